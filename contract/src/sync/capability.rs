//! What a policy may need of a proxy.

use serde::{Deserialize, Serialize};

/// Something that not every proxy does. A policy that needs one is not given to a proxy that did not name it: a proxy that
/// ignores a key would let through what the key was to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// `action: deny` in rules.
    DenyRules,
    /// `ports` in rules.
    Ports,
    /// `schemes` in rules.
    Schemes,
    /// `foreign_credentials` in rules.
    ForeignCredentials,
    /// `not_after` on rules, entries and sandboxes.
    Expiry,
    /// Many principals in one proxy, told apart by their sandboxes.
    Sandboxes,
    /// A socket of its own for each sandbox that has no token.
    SandboxSockets,
    /// One that this version does not know, from a newer proxy.
    #[serde(other)]
    Unknown,
}

impl Capability {
    /// Everything that this version can ask for.
    pub const ALL: [Self; 7] = [
        Self::DenyRules,
        Self::Ports,
        Self::Schemes,
        Self::ForeignCredentials,
        Self::Expiry,
        Self::Sandboxes,
        Self::SandboxSockets,
    ];

    /// Its name in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DenyRules => "deny_rules",
            Self::Ports => "ports",
            Self::Schemes => "schemes",
            Self::ForeignCredentials => "foreign_credentials",
            Self::Expiry => "expiry",
            Self::Sandboxes => "sandboxes",
            Self::SandboxSockets => "sandbox_sockets",
            Self::Unknown => "unknown",
        }
    }
}
