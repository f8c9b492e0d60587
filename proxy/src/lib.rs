//! The data plane: intercept, decide, inject, forward, audit.
//!
//! Data flows one way, in the order of the modules that it meets:
//! `listener → identity → tls → exchange → guard → policy → transform → upstream → audit`.

mod admin;
mod audit;
mod body;
mod coding;
mod data_plane;
mod drain;
mod exchange;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod generation;
mod guard;
mod identity;
mod listener;
mod management;
mod metrics;
mod open;
mod otlp;
mod passthrough;
mod principal;
mod redact;
mod refusal;
mod reload;
mod retry;
mod session;
mod start;
mod stream;
mod sync;
mod telemetry;
mod ticks;
pub mod tls;
mod trace;
mod transform;
mod upstream;
mod websocket;

pub use audit::{AuditError, AuditTarget};
pub use identity::SocketsError;
pub use otlp::{OtlpEndpoint, OtlpError, OtlpSettings};
pub use reload::{ReloadError, Reloaded, Reloader};
pub use start::{Configuration, Proxy, Settings, StartError};
pub use sync::{ControlUrl, ControlUrlError, Kept, ManagedOptions};
pub use trace::Sampler;
