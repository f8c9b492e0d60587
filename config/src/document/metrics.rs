//! `metrics`: the listener for operators.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Field, text};
use super::listen::ListenAddr;
use super::place::At;

/// The `metrics` block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Where health and readiness are served; nowhere, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddr>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "metrics", deny_unknown_fields)]
pub(super) struct Keys {
    /// Where /healthz, /readyz and /metrics are served; nowhere, if absent.
    #[serde(deserialize_with = "text")]
    listen: Field<ListenAddr>,
}

impl Metrics {
    pub(super) fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        Self { listen: keys.listen.get() }
    }
}
