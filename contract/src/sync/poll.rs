//! `POST /api/v1/proxy/sync`: the question and the answer that iron-proxy knows, and what we add.

use serde::{Deserialize, Serialize};

use super::capability::Capability;
use super::generation::Generation;
use super::policy::Policy;
use super::tree::Tree;

/// What a proxy asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// The hash of what it holds; iron-proxy's first one is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// What it can do beyond iron-proxy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The hash of what it should hold.
    pub config_hash: String,
    /// All of it, unless the proxy holds it already.
    #[serde(flatten)]
    pub payload: Option<Payload>,
}

/// Everything that a dedicated proxy enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Whether there is a principal, and whether this proxy can enforce its policy.
    pub status: Status,
    /// The principal.
    pub principal_id: Option<String>,
    /// The state of the control plane that this is of; iron-control knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// What the policy needs and the proxy did not name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_capabilities: Vec<Capability>,
    /// Its policy; empty unless the status is `assigned`.
    #[serde(flatten)]
    pub policy: Policy,
}

/// How a proxy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It enforces the policy of its principal.
    Assigned,
    /// It has no principal; nothing may leave.
    Unassigned,
    /// Its principal's policy needs what it cannot do; nothing may leave.
    Incompatible,
}

impl Response {
    /// For the wire, by [`Tree::reveal`].
    pub fn into_tree(self) -> Tree {
        let mut members = vec![("config_hash", Tree::Text(self.config_hash))];
        if let Some(payload) = self.payload {
            members.push(("status", plain(&payload.status)));
            members.push(("principal_id", payload.principal_id.map_or(Tree::Null, Tree::Text)));
            if let Some(generation) = &payload.generation {
                members.push(("generation", plain(generation)));
            }
            if !payload.missing_capabilities.is_empty() {
                members.push(("missing_capabilities", plain(&payload.missing_capabilities)));
            }
            members.extend(payload.policy.into_members());
        }
        Tree::map(members)
    }
}

/// A shape without a live value in it.
pub(super) fn plain<T: Serialize>(shape: &T) -> Tree {
    serde_json::to_value(shape).map_or(Tree::Null, Tree::from)
}
