//! `keyferry proxy`.

mod managed;

use std::path::PathBuf;
use std::sync::Arc;

use keyferry_config::document::Document;
use keyferry_proxy::{Configuration, ManagedOptions, Reloader, Settings, StartError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::managed::Managed;
use crate::configuration::{self, Leniency};
use crate::environment;
use crate::failure::Failure;
use crate::log::Log;
use crate::opentelemetry;
use crate::watch::Watch;

/// Run the proxy
///
/// With the address of a control service (--control) and a token of its own, the policy comes from there, for one principal or for
/// the sandboxes of many; the configuration then says everything but the policy.
///
/// Logs JSON lines on stderr. The configuration is read again when the file changes and on SIGHUP; one that is wrong changes nothing.
/// SIGTERM and SIGINT end the proxy: idle tunnels close at once, the rest within proxy.drain_timeout.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry proxy --config keyferry.yaml

Exit codes: 0 ended by a signal, 1 something failed (a port in use, for example), 2 the configuration is wrong.")]
pub(crate) struct Proxy {
    /// The configuration
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    leniency: Leniency,
    #[command(flatten)]
    managed: Managed,
}

impl Proxy {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let managed = self.managed.options(&self.config)?;
        let document = configuration::load(&self.config, &self.leniency)?;
        let file = Arc::new(File {
            path: self.config,
            leniency: self.leniency,
            log: Log::to_stderr(document.log.level),
        });
        raise_descriptor_limit();
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?
            .block_on(serve(document, file, managed))
    }
}

/// Shells hand out 1,024 descriptors, and each tunnel may take two; the hard limit is what the operator grants.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What is not granted is not there; the proxy counts its connections anyway.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn serve(document: Document, file: Arc<File>, managed: Option<ManagedOptions>) -> Result<(), Failure> {
    // Before the first listener opens: a signal in between must not kill half a proxy.
    let shutdown = Shutdown::listen()?;
    let hangup = listen(SignalKind::hangup())?;
    let watch = Watch::new(file.path.clone());
    let otlp = opentelemetry::settings(&environment::variable).map_err(Failure::config)?;
    let environment = environment::secrets();
    let settings = Settings { document, configuration: file, environment, otlp, managed };
    let proxy = keyferry_proxy::Proxy::start(settings).await.map_err(start_failure)?;
    let reloads = tokio::spawn(reload(proxy.reloader(), hangup, watch));
    proxy.run_until(shutdown.requested()).await;
    reloads.abort();
    Ok(())
}

/// Reloads on SIGHUP and when the file changes. What comes of it is in the log and in `/v1/status`.
async fn reload(reloader: Reloader, mut hangup: Signal, mut watch: Watch) {
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            () = watch.changed() => {}
        }
        let _ = reloader.reload().await;
    }
}

/// The configuration as a file that may change.
#[derive(Debug)]
struct File {
    path: PathBuf,
    leniency: Leniency,
    log: Log,
}

impl Configuration for File {
    fn load(&self) -> Result<Document, String> {
        configuration::read(&self.path, &self.leniency).map(|loaded| {
            if !loaded.warnings.is_empty() {
                tracing::warn!("{}", loaded.warnings);
            }
            loaded.document
        })
    }

    fn applied(&self, document: &Document) {
        self.log.set_level(document.log.level);
    }
}

/// What the configuration says is wrong, or what it names is not as it says: a script tells them apart by the exit code.
pub(crate) fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::NoListener
        | StartError::Policy(_)
        | StartError::PolicyInFile { .. }
        | StartError::Unsupported { .. } => Failure::config(error),
        StartError::Authority(_)
        | StartError::Leaf(_)
        | StartError::UpstreamTls(_)
        | StartError::Control { .. }
        | StartError::Audit(_)
        | StartError::Otlp(_)
        | StartError::Sockets(_)
        | StartError::Listen { .. } => Failure::fatal(error),
    }
}

/// The signals that ask a process to end.
pub(super) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    pub(super) async fn requested(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::fatal(format!("signals cannot be received: {error}")))
}
