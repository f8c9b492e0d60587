//! Where proxies find the values that tools name.

use std::fmt;

use serde_json::{Value, json};

use crate::tools::Field;

/// One for all values of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourcePolicy {
    /// The environment of the proxy.
    Env,
    /// Items of a 1Password vault.
    OnePassword { vault: String, ttl: String },
    /// The same, through a Connect server.
    OnePasswordConnect { vault: String, ttl: String },
}

impl SourcePolicy {
    /// The source of a value, as the API takes it.
    pub(super) fn source(&self, value: &str) -> Value {
        self.field(&Field { value: value.to_owned(), json_key: None })
    }

    pub(super) fn field(&self, field: &Field) -> Value {
        let item = |vault: &str| format!("op://{vault}/{}/credential", field.value);
        let (source_type, mut config) = match self {
            Self::Env => ("env", json!({ "var": field.value })),
            Self::OnePassword { vault, ttl } => {
                ("1password", json!({ "secret_ref": item(vault), "ttl": ttl }))
            }
            Self::OnePasswordConnect { vault, ttl } => {
                ("1password_connect", json!({ "secret_ref": item(vault), "ttl": ttl }))
            }
        };
        if let Some(key) = &field.json_key {
            config["json_key"] = json!(key);
        }
        json!({ "source_type": source_type, "config": config })
    }
}

impl fmt::Display for SourcePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env => f.write_str("env: variables of the proxies"),
            Self::OnePassword { vault, .. } => write!(f, "onepassword: vault {vault}"),
            Self::OnePasswordConnect { vault, .. } => write!(f, "onepassword-connect: vault {vault}"),
        }
    }
}
