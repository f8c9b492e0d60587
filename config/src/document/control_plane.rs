//! `control_plane`: how a managed proxy asks for its policy.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{self, GoDuration};
use super::field::{Field, text};
use super::place::At;

/// The `control_plane` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlPlane {
    /// How often to ask.
    #[serde(serialize_with = "duration::write")]
    pub poll_interval: Duration,
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self { poll_interval: Duration::from_secs(10) }
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
}

impl ControlPlane {
    /// `None` where the block is absent or empty, which asks for nothing.
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.block()?;
        let otherwise = Self::default();
        let poll_interval = duration::at_least(keys.poll_interval, &at.key("poll_interval"), 1);
        Some(Self { poll_interval: poll_interval.unwrap_or(otherwise.poll_interval) })
    }
}
