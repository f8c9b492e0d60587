//! `keyferry proxy`.

use std::path::PathBuf;

use keyferry_config::document::{Document, LogLevel};
use keyferry_proxy::{Settings, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::configuration::{self, Leniency};
use crate::environment;
use crate::failure::Failure;

/// Run the proxy
///
/// Logs JSON lines on stderr. SIGTERM and SIGINT end it: idle tunnels close at once, the rest within proxy.drain_timeout.
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
}

impl Proxy {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let document = configuration::load(&self.config, &self.leniency)?;
        log_to_stderr(document.log.level);
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?
            .block_on(serve(document))
    }
}

async fn serve(document: Document) -> Result<(), Failure> {
    // Before the first listener opens: a signal in between must not kill half a proxy.
    let shutdown = Shutdown::listen()?;
    let settings = Settings { document, environment: environment::secrets() };
    let proxy = keyferry_proxy::Proxy::start(settings).await.map_err(start_failure)?;
    proxy.run_until(shutdown.requested()).await;
    Ok(())
}

/// What the configuration says is wrong, or what it names is not as it says: a script tells them apart by the exit code.
fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::NoListener | StartError::Policy(_) => Failure::config(error),
        StartError::Authority(_)
        | StartError::Leaf(_)
        | StartError::UpstreamTls(_)
        | StartError::Password(_)
        | StartError::Audit(_)
        | StartError::Listen { .. } => Failure::fatal(error),
    }
}

/// The signals that ask a process to end.
struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::fatal(format!("signals cannot be received: {error}")))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn requested(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // The libraries' own debug lines print what is on the wire, credentials among it (T46).
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("keyferry", level);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(targets).init();
}
