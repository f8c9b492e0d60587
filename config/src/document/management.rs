//! `management`: the listener through which a running proxy is told to reload, and asked how it does.

use serde::Deserialize;

use super::field::{Field, text};
use super::listen::ListenAddr;
use super::place::At;

/// The `management` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Management {
    /// Where `/v1/reload` and `/v1/status` are served; nowhere, if absent.
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

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(deserialize_with = "text")]
    listen: Field<ListenAddr>,
    api_key_env: Field<String>,
}

impl Management {
    pub(super) fn read(at: &At<'_>) -> Self {
        let otherwise = Self::default();
        let Some(keys) = at.decode::<Keys>() else { return otherwise };
        let api_key_env = keys.api_key_env.not_empty().get();
        Self { listen: keys.listen.get(), api_key_env: api_key_env.unwrap_or(otherwise.api_key_env) }
    }
}
