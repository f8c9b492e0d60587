//! A declared secret as a resource of control. The names are those that others who register the same tool use.

use std::collections::BTreeSet;

use keyferry_control::secret::SecretKind;
use serde_json::{Map, Value, json};

use super::{SourcePolicy, slug};
use crate::tools::{Declaration, Field, InjectAt, Kind, SettingValue, Tool};

/// A secret to upsert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The name that the tool declares.
    pub(crate) name: String,
    pub(crate) kind: SecretKind,
    pub(crate) foreign_id: String,
    /// The whole secret.
    pub(crate) data: Value,
}

/// The role that holds a tool's secrets.
pub(crate) fn tool_role(tool: &str) -> String {
    format!("tool-{}", slug(tool))
}

/// What tells a resource that is registered from one that an operator made.
pub(crate) fn managed_labels() -> Map<String, Value> {
    Map::from_iter([("managed-by".to_owned(), json!("centaur"))])
}

/// Everything that a tool declares, or what is chosen of it.
pub(crate) fn registrations<'a>(
    tool: &Tool,
    secrets: impl IntoIterator<Item = &'a Declaration>,
    policy: &SourcePolicy,
    namespace: &str,
) -> Vec<Registration> {
    let mut labels = managed_labels();
    labels.insert("tool".to_owned(), json!(tool.name));
    labels.insert("overlay".to_owned(), json!(tool.overlay));
    let role = tool_role(&tool.name);
    // Names are given out over all that the tool declares, so that choosing fewer of them changes none.
    let names = foreign_ids(&role, &tool.secrets);
    secrets
        .into_iter()
        .map(|declaration| {
            let at = tool.secrets.iter().position(|known| known == declaration);
            let foreign_id = at.and_then(|at| names.get(at)).cloned().unwrap_or_default();
            let (kind, mut data) = resource(declaration, policy, namespace, &role);
            data["namespace"] = json!(namespace);
            data["labels"] = json!(labels);
            Registration { name: declaration.name.clone(), kind, foreign_id, data }
        })
        .collect()
}

/// One name for each, in their order; a name that is taken gets a number.
fn foreign_ids(role: &str, secrets: &[Declaration]) -> Vec<String> {
    let mut taken: BTreeSet<(SecretKind, String)> = BTreeSet::new();
    let unique = |secret: &Declaration| {
        let (kind, base) = base_name(role, secret);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        names.find(|name| taken.insert((kind, name.clone()))).unwrap_or(base)
    };
    secrets.iter().map(unique).collect()
}

fn base_name(role: &str, Declaration { name, kind }: &Declaration) -> (SecretKind, String) {
    let slug_of_name = slug(name);
    match kind {
        Kind::Replace { .. } | Kind::Inject { .. } | Kind::BrokeredToken { .. } => {
            (SecretKind::Static, format!("{role}-{slug_of_name}"))
        }
        Kind::OauthToken { token_endpoint, .. } => {
            (SecretKind::OauthToken, format!("{role}-oauth-{}", slug(token_endpoint)))
        }
        Kind::GcpAuth { .. } => (SecretKind::GcpAuth, format!("{role}-gcp-{slug_of_name}")),
        Kind::GcpIdToken { .. } => (SecretKind::GcpIdToken, format!("{role}-gcp-id-token-{slug_of_name}")),
        Kind::AwsAuth { .. } => (SecretKind::AwsAuth, format!("{role}-aws-{slug_of_name}")),
        Kind::HmacSign { .. } => (SecretKind::Hmac, format!("{role}-hmac-{slug_of_name}")),
        // The variable that the sandbox reads is made of it again: NAME_DSN.
        Kind::PgDsn { .. } => {
            (SecretKind::PgDsn, slug_of_name.strip_suffix("-dsn").unwrap_or(&slug_of_name).to_owned())
        }
    }
}

fn resource(
    Declaration { name, kind }: &Declaration,
    policy: &SourcePolicy,
    namespace: &str,
    role: &str,
) -> (SecretKind, Value) {
    match kind {
        Kind::Replace { value, hosts, replacer, match_headers, match_path, match_query } => {
            let mut replace =
                json!({ "proxy_value": replacer, "match_path": match_path, "match_query": match_query });
            if !match_headers.is_empty() {
                replace["match_headers"] = json!(match_headers);
            }
            let (source, rules) = (policy.source(value), rules(hosts));
            let data = json!({ "name": name, "replace_config": replace, "source": source, "rules": rules });
            (SecretKind::Static, data)
        }
        Kind::Inject { value, hosts, at } => {
            let inject = match at {
                InjectAt::Header { name, formatter } => json!({ "header": name, "formatter": formatter }),
                InjectAt::Query(name) => json!({ "query_param": name }),
            };
            let (source, rules) = (policy.source(value), rules(hosts));
            let data = json!({ "name": name, "inject_config": inject, "source": source, "rules": rules });
            (SecretKind::Static, data)
        }
        Kind::BrokeredToken { credential, hosts, header, formatter } => {
            let config = json!({ "credential_id": credential, "credential_namespace": namespace });
            let data = json!({
                "name": name,
                "inject_config": { "header": header, "formatter": formatter },
                "source": { "source_type": "token_broker", "config": config },
                "rules": rules(hosts),
            });
            (SecretKind::Static, data)
        }
        Kind::OauthToken {
            grant,
            hosts,
            fields,
            scopes,
            token_endpoint,
            token_endpoint_headers,
            audience,
        } => {
            let data = json!({
                "name": format!("OAuth {grant}"),
                "grant": grant,
                "token_endpoint": token_endpoint,
                "audience": audience,
                "scopes": scopes,
                "credentials": sources(policy, fields),
                "token_endpoint_headers": sources(policy, token_endpoint_headers),
                "rules": rules(hosts),
            });
            (SecretKind::OauthToken, data)
        }
        Kind::GcpAuth { value, hosts, scopes } => {
            let data = json!({
                "name": format!("GCP Auth ({role})"),
                "scopes": scopes,
                "keyfile": policy.source(value),
                "rules": rules(hosts),
            });
            (SecretKind::GcpAuth, data)
        }
        Kind::GcpIdToken { value, hosts, audience, header } => {
            let data = json!({
                "name": name,
                "audience": audience,
                "header": header,
                "keyfile": policy.source(value),
                "rules": rules(hosts),
            });
            (SecretKind::GcpIdToken, data)
        }
        Kind::AwsAuth {
            hosts,
            access_key_id,
            secret_access_key,
            session_token,
            allowed_regions,
            allowed_services,
        } => {
            let data = json!({
                "name": name,
                "access_key_id": policy.field(access_key_id),
                "secret_access_key": policy.field(secret_access_key),
                "session_token": session_token.as_ref().map(|token| policy.field(token)),
                "allowed_regions": allowed_regions,
                "allowed_services": allowed_services,
                "rules": rules(hosts),
            });
            (SecretKind::AwsAuth, data)
        }
        Kind::PgDsn { value, database, role, settings } => {
            let settings: Vec<_> = settings
                .iter()
                .map(|setting| match &setting.value {
                    SettingValue::Fixed(value) => json!({ "name": setting.name, "value": value }),
                    SettingValue::PrincipalLabel(label) => from(&setting.name, "principal_label", label),
                    SettingValue::PrincipalField(field) => from(&setting.name, "principal_field", field),
                    SettingValue::ProxyLabel(label) => from(&setting.name, "proxy_label", label),
                })
                .collect();
            let data = json!({
                "name": name,
                "database": database,
                "role": role,
                "settings": settings,
                "dsn": policy.source(value),
            });
            (SecretKind::PgDsn, data)
        }
        Kind::HmacSign {
            hosts,
            credentials,
            headers,
            algorithm,
            key_encoding,
            output_encoding,
            message,
            timestamp_format,
            allow_chunked_body,
        } => {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            let data = json!({
                "name": name,
                "timestamp_format": timestamp_format,
                "signature_algorithm": algorithm,
                "signature_key_encoding": key_encoding,
                "signature_output_encoding": output_encoding,
                "signature_message": message,
                "allow_chunked_body": allow_chunked_body,
                "headers": headers,
                "credentials": sources(policy, credentials),
                "rules": rules(hosts),
            });
            (SecretKind::Hmac, data)
        }
    }
}

fn from(setting: &str, key: &str, value: &str) -> Value {
    json!({ "name": setting, "value_from": { key: value } })
}

fn rules(hosts: &[String]) -> Value {
    hosts.iter().map(|host| json!({ "host": host })).collect()
}

fn sources(policy: &SourcePolicy, fields: &[(String, Field)]) -> Value {
    Value::Object(fields.iter().map(|(name, field)| (name.clone(), policy.field(field))).collect())
}
