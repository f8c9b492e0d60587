//! `GET /api/v1/proxy/stream`: what is pushed to a proxy as it changes.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::generation::Generation;
use super::policy::Policy;
use super::poll::{Status, plain};
use super::tree::Tree;

/// One event of the stream. What stands between `begin` and `commit` is one state and takes effect at `commit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// What follows belongs together.
    Begin {
        /// Whether it adds to what the proxy holds, or is all there is.
        reach: Reach,
        /// Whom the proxy serves. Said and not guessed: a shared proxy without a sandbox must not take its only policy for
        /// everybody's.
        serves: Serves,
    },
    /// A policy is now this.
    Policy(PolicyOf),
    /// A policy is no more; neither is any sandbox that has it.
    PolicyGone {
        /// Which.
        id: String,
    },
    /// A sandbox is now this.
    Sandbox(SandboxIdentity),
    /// A sandbox is no more.
    SandboxGone {
        /// Which.
        id: String,
    },
    /// The state is complete.
    Commit {
        /// Which state it is; also the event's id, to go on from after a lost connection.
        generation: Generation,
    },
    /// The proxy's token is no longer good: it drops everything.
    Revoked,
}

/// Whether a state adds to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// What is not named again is gone.
    Everything,
    /// What is not named stays.
    Changes,
}

/// Whom a proxy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serves {
    /// One principal, whoever connects.
    Dedicated,
    /// Whoever a sandbox proves to be.
    Shared,
}

/// The policy of a principal, or of a channel with a requesting user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyOf {
    /// What sandboxes refer to: the principal's id, or the two ids with a `+` between. Empty for an unassigned proxy.
    pub id: String,
    /// The hash of its content, to be reported when it is applied.
    pub config_hash: String,
    /// Whether there is a principal, and whether this proxy can enforce its policy.
    pub status: Status,
    /// The principal.
    pub principal_id: Option<String>,
    /// Whose grants apply where the principal has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester_principal_id: Option<String>,
    /// The policy itself.
    #[serde(flatten)]
    pub policy: Policy,
}

/// A sandbox that a shared proxy serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxIdentity {
    /// Its id, which is the user of `Proxy-Authorization`.
    pub id: String,
    /// The policy that it has.
    pub policy: String,
    /// SHA-256 of its token, in hexadecimal digits; the token itself is nowhere.
    pub token_sha256: String,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// From where it may come; from anywhere, if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_cidrs: Vec<IpNet>,
    /// How it proves who it is.
    pub transport: Transport,
}

/// How a sandbox proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A token in `Proxy-Authorization`.
    #[default]
    Token,
    /// A socket of its own.
    Unix,
}

/// `POST /api/v1/proxy/applied`: what a proxy enforces now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The state that is in force.
    pub generation: Generation,
    /// For a dedicated proxy, the hash of its policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// Where sandboxes reach the proxy, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// In which directory of its machine the proxy makes the sockets of sandboxes, see [`sandbox_socket`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_sockets: Option<String>,
}

/// Where the socket of a sandbox is. It has a directory of its own: that is what a sandbox has mounted, so that a socket which a proxy
/// makes anew is the one that is seen inside.
pub fn sandbox_socket(directory: &Path, id: &str) -> PathBuf {
    directory.join(id).join("proxy.sock")
}

impl Message {
    /// The event's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Policy(_) => "policy",
            Self::PolicyGone { .. } => "policy_gone",
            Self::Sandbox(_) => "sandbox",
            Self::SandboxGone { .. } => "sandbox_gone",
            Self::Commit { .. } => "commit",
            Self::Revoked => "revoked",
        }
    }

    /// For the wire, by [`Tree::reveal`].
    pub fn into_tree(self) -> Tree {
        let mut policy = None;
        let mut message = self;
        if let Self::Policy(of) = &mut message {
            policy = Some(std::mem::take(&mut of.policy));
        }
        let mut tree = plain(&message);
        for (key, member) in policy.into_iter().flat_map(Policy::into_members) {
            tree.set(key, member);
        }
        tree
    }
}
