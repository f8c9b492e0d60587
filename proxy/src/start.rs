//! From a document to a running proxy, and to its end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use keyferry_config::document::{Document, ListenAddr};
use keyferry_config::policy::{CompileError, Policy};
use keyferry_dial::{Dialer, Guard, OwnListeners, Resolver, ResolverOptions};
use keyferry_source::{Environment, SourceError, Sources};

use crate::admin;
use crate::audit::{Audit, AuditError, AuditTarget, RequestIds, Writer};
use crate::data_plane::{DataPlane, Generation, Limits};
use crate::drain::Drain;
use crate::identity::{Credentials, Identity};
use crate::listener::{self, Bound};
use crate::tls::{
    Authority, AuthorityError, LeafCache, LeafError, LeafSettings, UpstreamTls, UpstreamTlsError,
};
use crate::upstream::{Connector, Pool};

/// How long the last audit records may take to be written.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// What a proxy is started with.
#[derive(Debug)]
pub struct Settings {
    /// The policy file.
    pub document: Document,
    /// Where `env` sources are read.
    pub environment: Environment,
}

/// Why a proxy did not start. It never starts with a control missing.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to listen on.
    #[error(
        "nothing to do: no listener is configured\n  hint: set proxy.tunnel_listen, for example \"127.0.0.1:3128\""
    )]
    NoListener,
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
    /// The listener's password cannot be had.
    #[error("proxy.auth.password cannot be had: {0}")]
    Password(SourceError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
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

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    plane: Arc<DataPlane>,
    writer: Writer,
    tunnels: Vec<Bound>,
    metrics: Option<Bound>,
    drain_timeout: Duration,
}

impl Proxy {
    /// Opens everything that the document names: the authority, the roots, the audit log, the listeners. Needs a Tokio runtime.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let Settings { document, environment } = settings;
        let sources = Sources::new(environment);
        let policy = Policy::compile(&document, 1)?;
        let (Some(certificate), Some(key), false) =
            (&document.tls.ca_cert, &document.tls.ca_key, document.proxy.tunnel_listen.is_empty())
        else {
            return Err(StartError::NoListener);
        };
        let authority = authority(certificate, key)?;
        let upstream_tls =
            UpstreamTls::new(document.tls.upstream_ca.as_deref(), authority.certificate_der())?;
        let leafs = LeafCache::new(authority, leaf_settings(&document))?;
        let identity = identity(&document, &sources).await?;

        let tunnels = document.proxy.tunnel_listen.iter().map(|address| bind("proxy.tunnel_listen", address));
        let tunnels = tunnels.collect::<Result<Vec<_>, _>>()?;
        let metrics =
            document.metrics.listen.as_ref().map(|address| bind("metrics.listen", address)).transpose()?;
        let own = OwnListeners::new(tunnels.iter().chain(&metrics).map(|bound| bound.address).collect());
        let dialer = Dialer::new(guard(&document), resolver(&document), own);
        let pool = Arc::new(Pool::new(Connector { dialer, tls: upstream_tls }));

        let (audit, writer) = Audit::open(&AuditTarget::from(&document.audit))?;
        let plane = DataPlane {
            generation: ArcSwap::from_pointee(Generation::new(policy, &sources)),
            identity,
            leafs,
            pool,
            audit,
            request_ids: RequestIds::new(),
            drain: Drain::default(),
            limits: Limits {
                held_body: document.proxy.max_request_body_bytes,
                response_head: document.proxy.upstream_response_header_timeout,
            },
        };
        Ok(Self {
            plane: Arc::new(plane),
            writer,
            tunnels,
            metrics,
            drain_timeout: document.proxy.drain_timeout,
        })
    }

    /// Where sandboxes connect to.
    pub fn tunnel_addresses(&self) -> Vec<SocketAddr> {
        self.tunnels.iter().map(|bound| bound.address).collect()
    }

    /// Serves until `shutdown` completes, then drains: idle connections close at once, busy ones within `proxy.drain_timeout`.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { plane, writer, tunnels, metrics, drain_timeout } = self;
        let sweep = tokio::spawn(Pool::sweep(Arc::downgrade(&plane.pool)));
        let admin = metrics.map(|bound| tokio::spawn(admin::serve(Arc::clone(&plane), bound)));
        for bound in tunnels {
            tracing::info!(address = %bound.address, "listening for sandboxes");
            plane.drain.spawn(listener::accept(Arc::clone(&plane), bound));
        }
        shutdown.await;
        tracing::info!("draining");
        plane.drain.drain(drain_timeout).await;
        for task in [Some(sweep), admin].into_iter().flatten() {
            task.abort();
            let _ = task.await;
        }
        drop(plane);
        let finished = tokio::task::spawn_blocking(move || writer.finish(LAST_RECORDS));
        let _ = finished.await;
    }
}

fn authority(certificate: &Path, key: &Path) -> Result<Authority, AuthorityError> {
    let authority = Authority::load(certificate, key)?;
    for warning in authority.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(authority)
}

fn leaf_settings(document: &Document) -> LeafSettings {
    LeafSettings {
        capacity: document.tls.cert_cache_size as u64,
        lifetime: Duration::from_secs(u64::from(document.tls.leaf_cert_expiry_hours) * 3600),
    }
}

/// The password is read once, now: a listener that should ask for one never runs without.
async fn identity(document: &Document, sources: &Sources) -> Result<Identity, StartError> {
    let Some(auth) = &document.proxy.auth else { return Ok(Identity::new(None)) };
    let password = sources.get(&auth.password).value().await.map_err(StartError::Password)?;
    Ok(Identity::new(Some(Credentials { user: auth.user.clone(), password })))
}

fn guard(document: &Document) -> Guard {
    Guard::tenant(document.proxy.upstream_allow_cidrs.clone(), document.proxy.upstream_deny_cidrs.clone())
}

fn resolver(document: &Document) -> Resolver {
    Resolver::new(ResolverOptions { upstream: document.dns.upstream_resolver, ..ResolverOptions::default() })
}

fn bind(key: &'static str, address: &ListenAddr) -> Result<Bound, StartError> {
    listener::bind(address).map_err(|source| StartError::Listen {
        key,
        address: address.socket_addr(),
        source,
    })
}
