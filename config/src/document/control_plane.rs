//! `control_plane`: how a managed proxy asks for its policy.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{self, GoDuration};
use super::field::{Field, text};
use super::place::At;

/// Three signs of life of a control service; a connection that is silent for as long is given up.
const LEAST_STALENESS: Duration = Duration::from_secs(30);

/// The `control_plane` block. It says how a proxy asks, not that it does: an address and a token do that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlPlane {
    /// How often to ask.
    #[serde(serialize_with = "duration::write")]
    pub poll_interval: Duration,
    /// How long a policy counts that the control service has not confirmed.
    #[serde(serialize_with = "duration::write")]
    pub max_staleness: Duration,
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self { poll_interval: Duration::from_secs(10), max_staleness: Duration::from_secs(900) }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "control_plane", deny_unknown_fields)]
pub(super) struct Keys {
    /// How often to ask for the policy; more than zero.
    #[serde(deserialize_with = "text")]
    #[schemars(extend("default" = "10s"))]
    poll_interval: Field<GoDuration>,
    /// How long a policy counts that the control service has not confirmed; then everything is refused. At least 30s, and twice
    /// poll_interval.
    #[serde(deserialize_with = "text")]
    #[schemars(extend("default" = "15m"))]
    max_staleness: Field<GoDuration>,
}

impl ControlPlane {
    /// `None` where the block is absent or empty, which asks for nothing.
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.block()?;
        let otherwise = Self::default();
        let poll_interval = duration::at_least(keys.poll_interval, &at.key("poll_interval"), 1);
        let poll_interval = poll_interval.unwrap_or(otherwise.poll_interval);
        let two_polls = poll_interval.saturating_mul(2);
        let at = at.key("max_staleness");
        let max_staleness = duration::at_least(keys.max_staleness, &at, 1);
        if max_staleness.is_some_and(|time| time < LEAST_STALENESS) {
            at.error(
                "must be at least 30s: control shows life every 10 s, and one sign may be late",
                "leave it at 15m, or write 30s",
            );
        } else if max_staleness.is_some_and(|time| time < two_polls) {
            at.error(
                "must be at least twice poll_interval, or a policy is stale between two polls",
                "write a longer one, or poll more often",
            );
        }
        let max_staleness = max_staleness.unwrap_or(otherwise.max_staleness.max(two_polls));
        Some(Self { poll_interval, max_staleness })
    }
}
