//! `control_plane`: how a managed proxy asks for its policy.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{self, GoDuration};
use super::field::{Field, text};
use super::place::At;

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
    /// How long a policy counts that the control service has not confirmed; then everything is refused.
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
        let max_staleness = duration::at_least(keys.max_staleness, &at.key("max_staleness"), 1);
        Some(Self {
            poll_interval: poll_interval.unwrap_or(otherwise.poll_interval),
            max_staleness: max_staleness.unwrap_or(otherwise.max_staleness),
        })
    }
}
