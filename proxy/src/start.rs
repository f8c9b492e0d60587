//! From a document to a running proxy, and to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyferry_config::document::Document;
use keyferry_config::policy::CompileError;
use keyferry_source::{Environment, SourceError};

use crate::audit::AuditError;
use crate::identity::SocketsError;
use crate::otlp::{OtlpError, OtlpSettings};
use crate::reload::Reloader;
use crate::sync::ManagedOptions;
use crate::tls::{AuthorityError, LeafError, UpstreamTlsError};

/// How long the last audit records may take to be written.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// Where the proxy's document comes from, now and at each reload.
pub trait Configuration: std::fmt::Debug + Send + Sync {
    /// Reads the document.
    ///
    /// # Errors
    /// Everything that is wrong with it, in words for the operator.
    fn load(&self) -> Result<Document, String>;

    /// `document` is in force now.
    fn applied(&self, document: &Document);
}

/// What a proxy is started with.
#[derive(Debug)]
pub struct Settings {
    /// The document to start with.
    pub document: Document,
    /// Where the next one comes from.
    pub configuration: Arc<dyn Configuration>,
    /// Where `env` sources are read.
    pub environment: Environment,
    /// Where the policy comes from, if not from the document.
    pub managed: Option<ManagedOptions>,
    /// What is told to an OpenTelemetry collector; nothing, if absent. It stays as it is over reloads.
    pub otlp: Option<OtlpSettings>,
}

/// Why a document is not put in force. A proxy never runs with a control missing.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The document asks for something that this version has no engine for.
    #[error("{path}: this version does not run {what}\n  hint: {hint}")]
    Unsupported {
        /// The key.
        path: String,
        /// What it asks for.
        what: String,
        /// What to do until there is an engine.
        hint: &'static str,
    },
    /// There is nothing to listen on.
    #[error(
        "nothing to do: no listener is configured\n  hint: set proxy.tunnel_listen, for example \"127.0.0.1:3128\""
    )]
    NoListener,
    /// The policy is a control service's to say.
    #[error(
        "{key}: the policy of this proxy comes from a control service, and what the file says of it would be ignored\n  hint: leave {key} out, or start without the address of a control service"
    )]
    PolicyInFile {
        /// The key.
        key: &'static str,
    },
    /// The document does not compile.
    #[error(transparent)]
    Policy(#[from] CompileError),
    /// The authority cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Leafs cannot be made.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// Upstreams cannot be verified.
    #[error(transparent)]
    UpstreamTls(#[from] UpstreamTlsError),
    /// A password or key of a listener cannot be had.
    #[error("{key} cannot be had: {error}")]
    Control {
        /// The key of the document.
        key: &'static str,
        /// Why.
        error: SourceError,
    },
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Nothing can be told to the collector.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// Sandboxes cannot have sockets of their own.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// A port is taken, or the address is not this machine's.
    #[error(
        "{key}: cannot listen on {address}: {source}\n  hint: is another process using the port? `ss -ltnp` tells which"
    )]
    Listen {
        /// The key of the document.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Proxy {
    reloader: Reloader,
}

impl Proxy {
    /// Opens everything that the document names (the authority, the roots, the audit log, the listeners) and serves. Needs a
    /// Tokio runtime.
    ///
    /// # Errors
    /// The first thing that cannot be opened; then nothing is.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Ok(Self { reloader: Reloader::start(settings).await? })
    }

    /// Puts a new document in force, for whoever notices that there may be one.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Where sandboxes are served: a port that was chosen by the system stands here.
    pub async fn tunnel_addresses(&self) -> Vec<SocketAddr> {
        self.reloader.tunnel_addresses().await
    }

    /// Completes once there is a policy: at once for a file's, and for a control service's when it was heard or what it said last
    /// was found on disk.
    pub async fn has_policy(&self) {
        if let Some(standing) = self.reloader.standing() {
            standing.in_force().await;
        }
    }

    /// Serves until `shutdown` completes, then drains: idle connections close at once, busy ones within `proxy.drain_timeout`.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        tracing::info!("draining");
        self.reloader.finish(LAST_RECORDS).await;
    }
}
