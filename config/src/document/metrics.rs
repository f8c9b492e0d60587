//! `metrics`: the listener for operators.

use serde::Deserialize;

use super::field::{Field, text};
use super::listen::ListenAddr;
use super::place::At;

/// The `metrics` block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where health and readiness are served; nowhere, if absent.
    pub listen: Option<ListenAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(deserialize_with = "text")]
    listen: Field<ListenAddr>,
}

impl Metrics {
    pub(super) fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        Self { listen: keys.listen.get() }
    }
}
