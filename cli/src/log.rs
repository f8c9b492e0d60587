//! The process's own log: JSON lines on stderr.

use std::panic::PanicHookInfo;

use keyferry_config::document::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;

/// The running log, whose level a reload may change.
#[derive(Debug)]
pub(crate) struct Log(Handle<Targets, Registry>);

impl Log {
    /// Begins to log. Once per process.
    pub(crate) fn to_stderr(level: LogLevel) -> Self {
        let (targets, handle) = Layer::new(targets(level));
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
        tracing_subscriber::registry().with(targets).with(lines).init();
        std::panic::set_hook(Box::new(report));
        Self(handle)
    }

    pub(crate) fn set_level(&self, level: LogLevel) {
        // It fails only when the subscriber is gone, and nobody logs any more.
        let _ = self.0.reload(targets(level));
    }
}

/// A panic ends the connection that it happened on (T89). Where it was is said and its message is not: that may hold anything (T46).
fn report(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    tracing::error!(at, "a part of keyferry panicked, and the connection that it served is closed");
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // The libraries' own debug lines print what is on the wire, credentials among it (T46).
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("keyferry", level)
}
