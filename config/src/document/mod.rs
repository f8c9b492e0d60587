//! The words of the policy language: iron-proxy's YAML and our additions to it, as types.
//!
//! A [`Document`] says what its author wrote, checked for shape and for the things that make no sense on their own (two
//! modes in one secret, a path without a leading slash). What it *means* for a request is [`crate::policy`]'s business.
//!
//! [`parse`] goes through the file in four steps: `node` makes a tree in which every value knows its position,
//! `interpolate` and `overrides` put the environment in, `decode` turns blocks into structs, and each block's own
//! module checks what the block says. Problems are collected on the way, so that one run tells all of them.

mod audit;
mod cidr;
mod collisions;
mod decode;
mod dns;
mod duration;
mod field;
mod formatter;
mod interpolate;
mod listen;
mod load;
mod log;
mod management;
mod metrics;
mod nearest;
mod node;
mod overrides;
mod pattern;
mod place;
mod problem;
mod proxy;
mod rule;
mod secrets;
mod source;
mod tls;
mod transforms;
mod unsupported;

pub use audit::{Audit, AuditSink};
pub use dns::Dns;
pub use duration::GoDuration;
pub use formatter::{Formatter, FormatterError};
pub use listen::{ListenAddr, OneOrMany};
pub use load::{Loaded, Options, parse};
pub use log::{Log, LogLevel};
pub use management::Management;
pub use metrics::Metrics;
pub use problem::{Location, Problem, Problems, Severity, ValueError};
pub use proxy::{AllowedPorts, Auth, Proxy};
pub use rule::{Action, Rule, Scheme};
pub use secrets::{Inject, InjectTarget, OnUnavailable, Replace, SecretEntry, SecretMode, Secrets};
pub use source::{Source, SourceKind};
pub use tls::Tls;
pub use transforms::{Allowlist, Transform};

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Listeners, limits and timeouts.
    pub proxy: Proxy,
    /// Certificates.
    pub tls: Tls,
    /// What happens where no `allowlist` is configured.
    pub default_action: Action,
    /// The allowlist and the secrets, in order.
    pub transforms: Vec<Transform>,
    /// How upstream names are resolved.
    pub dns: Dns,
    /// The operators' listener.
    pub metrics: Metrics,
    /// The listener for reloads.
    pub management: Management,
    /// What the process says.
    pub log: Log,
    /// Where the record of each request goes.
    pub audit: Audit,
}

impl Default for Document {
    /// Nothing listens and nothing may leave.
    fn default() -> Self {
        Self {
            proxy: Proxy::default(),
            tls: Tls::default(),
            default_action: Action::Deny,
            transforms: Vec::new(),
            dns: Dns::default(),
            metrics: Metrics::default(),
            management: Management::default(),
            log: Log::default(),
            audit: Audit::default(),
        }
    }
}
