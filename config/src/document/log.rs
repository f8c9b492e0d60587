//! `log`: what the process says about itself. Requests are recorded under `audit`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::Field;
use super::place::At;

/// The `log` block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Log {
    /// The least important thing that is still logged.
    pub level: LogLevel,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "log level", rename_all = "lowercase")]
pub enum LogLevel {
    /// For whoever is looking for a fault.
    Debug,
    /// What happens in the normal course.
    #[default]
    Info,
    /// Something that somebody should look at.
    Warn,
    /// Something that did not work.
    Error,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "log", deny_unknown_fields)]
pub(super) struct Keys {
    /// The least important thing that is still logged.
    #[schemars(extend("default" = "info"))]
    level: Field<LogLevel>,
}

impl Log {
    pub(super) fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        Self { level: keys.level.get().unwrap_or_default() }
    }
}
