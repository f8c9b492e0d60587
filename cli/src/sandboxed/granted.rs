//! What a principal was granted, as a sandbox may know it.

use std::collections::HashMap;

use keyferry_sandbox::{Granted, Shown};
use serde_json::Value;

use crate::control_client::{ClientError, ControlClient, Resource, path};

/// What a sandbox of a principal has.
pub(super) struct Access {
    /// The more important first.
    pub(super) secrets: Vec<Granted>,
    /// There is nowhere to go.
    pub(super) reaches_nothing: bool,
}

/// What counts for this principal now.
pub(super) async fn to(client: &ControlClient, principal: &Resource) -> Result<Access, ClientError> {
    let explained = client.get(&path(["principals", principal.id(), "explain"])).await?;
    let config = client.get(&path(["principals", principal.id(), "effective_config"])).await?;
    Ok(Access {
        secrets: secrets(explained.value(), config.value()),
        reaches_nothing: list(config.value(), "rules").next().is_none(),
    })
}

fn secrets(explained: &Value, config: &Value) -> Vec<Granted> {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let placeholders: HashMap<String, String> = list(config, "secrets")
        .filter_map(|entry| Some((text(entry, "id")?, text(&entry["replace"], "proxy_value")?)))
        .collect();
    // The address of a database is of no use to a client of HTTP.
    let mut held: Vec<&Value> = list(explained, "secrets")
        .filter(|held| held["delivered"] == true && held["kind"] != "pg_dsn")
        .collect();
    held.sort_by_key(|held| std::cmp::Reverse(held["priority"].as_i64()));
    held.into_iter()
        .filter_map(|held| {
            let id = text(held, "secret_id")?;
            let shown = match placeholders.get(&id) {
                Some(placeholder) => Shown::Placeholder(placeholder.clone()),
                None => Shown::Dummy,
            };
            Some(Granted {
                name: text(held, "name"),
                foreign_id: text(held, "foreign_id").unwrap_or(id),
                shown,
            })
        })
        .collect()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_secret_that_is_delivered_is_shown_by_its_placeholder_or_not_at_all() {
        let explained = json!({ "secrets": [
            { "secret_id": "ssr_1", "kind": "static", "foreign_id": "models", "name": "MODELS", "priority": 0, "delivered": true },
            { "secret_id": "ssr_2", "kind": "static", "foreign_id": "github", "name": null, "priority": 100, "delivered": true },
            { "secret_id": "ssr_3", "kind": "static", "foreign_id": "gone", "name": null, "priority": 100, "delivered": false },
            { "secret_id": "pgs_1", "kind": "pg_dsn", "foreign_id": "db", "name": null, "priority": 100, "delivered": true },
            { "secret_id": "ots_1", "kind": "oauth_token", "foreign_id": null, "name": null, "priority": 1, "delivered": true },
        ] });
        let config = json!({ "secrets": [
            { "id": "ssr_1", "inject": { "header": "X-Key" } },
            { "id": "ssr_2", "replace": { "proxy_value": "kf_2" } },
        ] });
        let granted = |name: Option<&str>, foreign_id: &str, shown| Granted {
            name: name.map(str::to_owned),
            foreign_id: foreign_id.to_owned(),
            shown,
        };
        assert_eq!(
            secrets(&explained, &config),
            [
                granted(None, "github", Shown::Placeholder("kf_2".to_owned())),
                granted(None, "ots_1", Shown::Dummy),
                granted(Some("MODELS"), "models", Shown::Dummy),
            ]
        );
    }
}
