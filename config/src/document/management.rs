//! `management`: the listener through which a running proxy is told to reload, and asked how it does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Field, text};
use super::listen::ListenAddr;
use super::place::At;

/// The `management` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Management {
    /// Where `/v1/reload` and `/v1/status` are served; nowhere, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddr>,
    /// The environment variable with the bearer token that callers must send. Only its name is here: nobody reads it before
    /// the listener starts.
    pub api_key_env: String,
}

impl Default for Management {
    fn default() -> Self {
        Self { listen: None, api_key_env: "IRON_MANAGEMENT_API_KEY".to_owned() }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "management", deny_unknown_fields)]
pub(super) struct Keys {
    /// Where a running proxy is told to reload and asked for its status; nowhere, if absent.
    #[serde(deserialize_with = "text")]
    listen: Field<ListenAddr>,
    /// The environment variable with the bearer token that callers send.
    #[schemars(extend("default" = "IRON_MANAGEMENT_API_KEY"))]
    api_key_env: Field<String>,
}

impl Management {
    pub(super) fn read(at: &At<'_>) -> Self {
        let otherwise = Self::default();
        let Some(keys) = at.decode::<Keys>() else { return otherwise };
        let api_key_env = keys.api_key_env.not_empty().get();
        if let Some(name) = &api_key_env {
            at.key("api_key_env").check_variable_name(name);
        }
        Self { listen: keys.listen.get(), api_key_env: api_key_env.unwrap_or(otherwise.api_key_env) }
    }
}
