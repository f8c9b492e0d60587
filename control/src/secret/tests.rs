use serde_json::{Map, Value, json};

use super::*;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("an object, not {other}"),
    }
}

/// One valid secret of each kind, with values of every source here.
pub(crate) fn valid(kind: SecretKind) -> Value {
    let rules = json!([{ "host": "api.vendor.test", "http_methods": ["GET"], "paths": ["/v1/*"] }]);
    let value = |text: &str| json!({ "source_type": "control_plane", "secret": text, "config": {} });
    match kind {
        SecretKind::Static => json!({
            "replace_config": { "proxy_value": "kf_0123456789abcdef0123456789abcdef", "match_headers": ["authorization"] },
            "source": value("s3cret-static"), "rules": rules,
        }),
        SecretKind::GcpAuth => {
            json!({ "scopes": ["https://x.test/a"], "keyfile": value("{\"s3cret\":1}"), "rules": rules })
        }
        SecretKind::GcpIdToken => json!({
            "audience": "https://run.test", "keyfile": value("{\"s3cret\":1}"), "rules": rules,
        }),
        SecretKind::AwsAuth => json!({
            "access_key_id": value("s3cret-id"), "secret_access_key": value("s3cret-key"), "rules": rules,
            "allowed_regions": ["us-west-2"],
        }),
        SecretKind::OauthToken => json!({
            "grant": "refresh_token", "token_endpoint": "https://login.vendor.test/token", "value_prefix": "Bearer",
            "credentials": { "refresh_token": value("s3cret-refresh"), "client_id": value("s3cret-client") },
            "rules": rules,
        }),
        SecretKind::PgDsn => json!({
            "database": "orders", "role": "tenant", "dsn": value("postgres://u:s3cret@db.test/orders"),
            "settings": [{ "name": "app.tenant", "value_from": { "principal_label": "tenant" } }],
        }),
        SecretKind::Hmac => json!({
            "timestamp_format": "unix_seconds", "signature_algorithm": "sha256", "signature_key_encoding": "raw",
            "signature_output_encoding": "hex", "signature_message": "{{ .Timestamp }}.{{ .Body }}",
            "headers": [{ "name": "X-Signature", "value": "{{ .Signature }}" }],
            "credentials": { "secret": value("s3cret-hmac") }, "rules": rules,
        }),
    }
}

fn faults(kind: SecretKind, value: Value) -> Details {
    match Spec::read(kind, object(value)) {
        Ok((spec, _)) => panic!("accepted: {:?}", spec.shown()),
        Err(details) => details,
    }
}

#[test]
fn every_kind_is_read_shown_without_values_and_read_again_from_storage() {
    for kind in SecretKind::ALL {
        let (mut spec, _) =
            Spec::read(kind, object(valid(kind))).unwrap_or_else(|faults| panic!("{kind:?}: {faults:?}"));
        let values = spec.take_values();
        assert!(!values.is_empty(), "{kind:?}");
        let shown = serde_json::to_string(&spec.shown()).expect("JSON");
        assert!(!shown.contains("s3cret") && !format!("{spec:?}").contains("s3cret"), "{shown}");
        let mut stored = Spec::stored(kind, &shown).expect("what was stored");
        assert_eq!(stored.shown(), spec.shown());
        // Without its values it is delivered to nobody; with them it is.
        let rules = || Tree::list(stored.facts().rules().iter().map(Rule::tree));
        assert!(stored.facts().render(rules()).is_none(), "{kind:?}");
        stored.put_values(&mut values.into_iter().collect());
        let rules = Tree::list(stored.facts().rules().iter().map(Rule::tree));
        assert!(
            stored.facts().render(rules).is_some_and(|tree| tree.reveal().contains("s3cret")),
            "{kind:?}"
        );
    }
}

#[test]
fn what_a_kind_lacks_is_said_field_by_field() {
    let base = |message: &str| vec![("base".to_owned(), vec![message.to_owned()])];
    let told = |details: &Details| {
        details.iter().map(|(field, messages)| (field.to_owned(), messages.to_vec())).collect::<Vec<_>>()
    };
    let empty = faults(SecretKind::Static, json!({}));
    assert_eq!(
        told(&empty),
        [
            base("must define one of inject_config or replace_config"),
            vec![("source".to_owned(), vec!["can't be blank".to_owned()])]
        ]
        .concat()
    );
    for (kind, fields) in [
        (SecretKind::GcpAuth, vec!["base", "scopes"]),
        (SecretKind::GcpIdToken, vec!["audience", "keyfile", "rules"]),
        (SecretKind::AwsAuth, vec!["access_key_id", "rules", "secret_access_key"]),
        (SecretKind::OauthToken, vec!["credentials.", "grant", "rules", "token_endpoint"]),
        (SecretKind::PgDsn, vec!["database", "dsn"]),
        (SecretKind::Hmac, vec!["credentials", "headers", "rules", "signature_message"]),
    ] {
        let details = faults(kind, json!({}));
        let found: Vec<_> = details.iter().map(|(field, _)| field.to_owned()).collect();
        for field in fields.iter().filter(|field| !field.ends_with('.')) {
            assert!(found.iter().any(|found| found == field), "{kind:?}: {field} is not in {found:?}");
        }
    }
}

#[test]
fn t76_hostile_writes_are_refused_at_their_field_and_never_quoted_back() {
    let with = |kind, key: &str, value: Value| {
        let mut secret = object(valid(kind));
        secret.insert(key.to_owned(), value);
        Value::Object(secret)
    };
    let source = |source: Value| with(SecretKind::Static, "source", source);
    let rules = |rule: Value| with(SecretKind::Static, "rules", json!([rule]));
    for (kind, write, field) in [
        (
            SecretKind::Static,
            source(json!({ "source_type": "env", "config": { "var": "A", "s3cret": 1 } })),
            "source.config",
        ),
        (SecretKind::Static, source(json!({ "source_type": "env", "config": {} })), "source.var"),
        (
            SecretKind::Static,
            source(json!({ "source_type": "env", "secret": "s3cret", "config": { "var": "A" } })),
            "source.secret",
        ),
        (SecretKind::Static, source(json!({ "source_type": "control_plane" })), "source.secret"),
        (
            SecretKind::Static,
            source(json!({ "source_type": "control_plane", "secret": "" })),
            "source.secret",
        ),
        (
            SecretKind::Static,
            source(json!({ "source_type": "control_plane", "secret": { "s3cret": 1 } })),
            "source.secret",
        ),
        (SecretKind::Static, source(json!({ "source_type": "s3cret" })), "source.source_type"),
        (
            SecretKind::Static,
            source(json!({ "source_type": "token_broker", "config": { "credential_id": "bcr_1" } })),
            "source.config",
        ),
        (SecretKind::Static, source(json!("s3cret")), "source"),
        (SecretKind::Static, rules(json!({ "host": "a.test", "cidr": "10.0.0.0/8" })), "rules[0]"),
        (SecretKind::Static, rules(json!({})), "rules[0]"),
        (SecretKind::Static, rules(json!({ "cidr": "10.0.0.1" })), "rules[0].cidr"),
        (
            SecretKind::Static,
            rules(json!({ "host": "a.test", "http_methods": ["FETCH"] })),
            "rules[0].http_methods",
        ),
        (SecretKind::Static, rules(json!({ "host": "a.test", "paths": ["v1"] })), "rules[0].paths[0]"),
        (SecretKind::Static, rules(json!({ "host": "a.test", "action": "perhaps" })), "rules[0].action"),
        (SecretKind::Static, rules(json!({ "host": "a\0.test" })), "rules"),
        (SecretKind::Static, with(SecretKind::Static, "inject_config", json!({ "header": "X" })), "base"),
        (
            SecretKind::Static,
            with(SecretKind::Static, "replace_config", json!({ "proxy_value": "" })),
            "replace_config.proxy_value",
        ),
        (
            SecretKind::Static,
            with(SecretKind::Static, "replace_config", json!({ "proxy_value": "x", "s3cret": 1 })),
            "replace_config.s3cret",
        ),
        (
            SecretKind::GcpAuth,
            with(SecretKind::GcpAuth, "credentials_provider", json!({ "type": "workload_identity" })),
            "base",
        ),
        (SecretKind::OauthToken, with(SecretKind::OauthToken, "audience", json!("x")), "audience"),
        (
            SecretKind::OauthToken,
            with(SecretKind::OauthToken, "token_endpoint", json!("file:///etc/passwd")),
            "token_endpoint",
        ),
        (SecretKind::PgDsn, with(SecretKind::PgDsn, "database", json!("other")), "database"),
        (
            SecretKind::PgDsn,
            with(SecretKind::PgDsn, "settings", json!([{ "name": "role", "value": "x" }])),
            "settings[0].name",
        ),
        (
            SecretKind::PgDsn,
            with(
                SecretKind::PgDsn,
                "settings",
                json!([{ "name": "a", "value_from": { "principal_field": "token_hash" } }]),
            ),
            "settings[0].value_from",
        ),
        (
            SecretKind::Hmac,
            with(SecretKind::Hmac, "headers", json!([{ "name": "X", "value": "{{ .Credentials.other }}" }])),
            "headers[0].value",
        ),
        (
            SecretKind::Hmac,
            with(SecretKind::Hmac, "headers", json!([{ "name": "Host", "value": "x" }])),
            "headers[0].name",
        ),
    ] {
        let details = faults(kind, write);
        let fields: Vec<_> = details.iter().map(|(field, _)| field.to_owned()).collect();
        assert!(fields.iter().any(|found| found == field), "{field} is not in {details:?}");
        let values: Vec<_> = details.iter().flat_map(|(_, messages)| messages.iter().cloned()).collect();
        assert!(!values.join(" ").replace("\"s3cret\" is no key", "").contains("s3cret"), "{details:?}");
    }
}

#[test]
fn a_placeholder_that_is_a_word_is_warned_about_where_bodies_are_searched() {
    let mut secret = object(valid(SecretKind::Static));
    secret.insert("replace_config".into(), json!({ "proxy_value": "TOKEN", "match_body": true }));
    let (_, warnings) = Spec::read(SecretKind::Static, secret).expect("accepted");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("replace_config.proxy_value: "), "{warnings:?}");
}

#[test]
fn a_token_for_google_without_rules_is_for_google() {
    let mut secret = object(valid(SecretKind::GcpAuth));
    secret.remove("rules");
    let (spec, _) = Spec::read(SecretKind::GcpAuth, secret).expect("accepted");
    assert_eq!(spec.shown()["rules"][0]["host"], "*.googleapis.com");
}
