//! `config/schema.json` is generated from the structs that the reader decodes into; one that is stale fails here.
//!
//! `KEYFERRY_REGENERATE=1 cargo test -p keyferry-config --test schema` writes it anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jsonschema::Validator;
use keyferry_config::document::{Options, json_schema, parse};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn validator() -> Validator {
    let schema = json_schema();
    jsonschema::meta::validate(&schema).expect("a schema");
    jsonschema::validator_for(&schema).expect("a schema")
}

fn errors(validator: &Validator, text: &str) -> Vec<String> {
    let value: Value = serde_saphyr::from_str(text).expect("YAML");
    validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Every key of every block, by the block's name in the schema.
fn keys(schema: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    collect(schema, &mut keys);
    keys
}

fn collect(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            // Only a block says that it has no other keys; an `if` has properties, too.
            if object.get("additionalProperties") == Some(&json!(false))
                && let Some(Value::Object(properties)) = object.get("properties")
            {
                keys.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| collect(value, keys));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_checked_in_schema_is_the_readers() {
    let path = folder().join("schema.json");
    let schema = json_schema();
    if std::env::var_os("KEYFERRY_REGENERATE").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        serde_json::from_str::<Value>(&written).is_ok_and(|written| written == schema),
        "config/schema.json is stale: run this test with KEYFERRY_REGENERATE=1 and commit the file"
    );
}

#[test]
fn every_example_names_the_schema_and_is_valid() {
    let validator = validator();
    for file in std::fs::read_dir(folder().join("examples")).unwrap() {
        let path = file.unwrap().path();
        // Fixtures are not configurations.
        if path.to_str().unwrap().ends_with(".test.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(first, "# yaml-language-server: $schema=../schema.json", "{}", path.display());
        assert_eq!(errors(&validator, &text), Vec::<String>::new(), "{}", path.display());
    }
}

/// The decoder's own list of keys, out of what it says about a key that it does not know.
#[test]
fn each_block_has_the_keys_of_its_reader_and_no_others() {
    let schema = json_schema();
    let secret =
        |inside: &str| format!("transforms: [{{ name: secrets, config: {{ secrets: [{inside}] }} }}]");
    let transform = |name: &str, config: &str| format!("transforms: [{{ name: {name}, config: {config} }}]");
    let cases = [
        ("document", "zz: 1".to_owned()),
        ("proxy", "proxy: { zz: 1 }".to_owned()),
        ("auth", "proxy: { auth: { zz: 1 } }".to_owned()),
        ("upstream_proxy", "proxy: { upstream_proxy: { zz: 1 } }".to_owned()),
        ("tls", "tls: { zz: 1 }".to_owned()),
        ("dns", "dns: { zz: 1 }".to_owned()),
        ("dns_record", "dns: { records: [{ zz: 1 }] }".to_owned()),
        ("mcp", "mcp: { zz: 1 }".to_owned()),
        ("mcp_error", "mcp: { error: { zz: 1 } }".to_owned()),
        ("mcp_server", "mcp: { servers: [{ zz: 1 }] }".to_owned()),
        ("mcp_tool", "mcp: { servers: [{ tools: [{ zz: 1 }] }] }".to_owned()),
        ("mcp_clause", "mcp: { servers: [{ tools: [{ when: [{ zz: 1 }] }] }] }".to_owned()),
        ("mcp_gateway", "mcp_gateway: { zz: 1 }".to_owned()),
        ("mcp_route", "mcp_gateway: { routes: [{ zz: 1 }] }".to_owned()),
        ("mcp_credential", "mcp_gateway: { routes: [{ credentials: [{ zz: 1 }] }] }".to_owned()),
        ("postgres", "postgres: { zz: 1 }".to_owned()),
        ("postgres_client", "postgres: { client: { zz: 1 } }".to_owned()),
        ("postgres_upstream", "postgres: { upstreams: [{ zz: 1 }] }".to_owned()),
        ("postgres_setting", "postgres: { upstreams: [{ settings: [{ zz: 1 }] }] }".to_owned()),
        ("control_plane", "control_plane: { zz: 1 }".to_owned()),
        ("metrics", "metrics: { zz: 1 }".to_owned()),
        ("management", "management: { zz: 1 }".to_owned()),
        ("log", "log: { zz: 1 }".to_owned()),
        ("audit", "audit: { zz: 1 }".to_owned()),
        ("audit_rotate", "audit: { rotate: { zz: 1 } }".to_owned()),
        ("transform", "transforms: [{ zz: 1 }]".to_owned()),
        ("allowlist", transform("allowlist", "{ zz: 1 }")),
        ("rule", transform("allowlist", "{ rules: [{ zz: 1 }] }")),
        ("secrets", transform("secrets", "{ zz: 1 }")),
        ("secret", secret("{ zz: 1 }")),
        ("source", secret("{ source: { zz: 1 } }")),
        ("inject", secret("{ inject: { zz: 1 } }")),
        ("replace", secret("{ replace: { zz: 1 } }")),
        ("gcp_auth", transform("gcp_auth", "{ zz: 1 }")),
        ("gcp_provider", transform("gcp_auth", "{ credentials_provider: { zz: 1 } }")),
        ("gcp_id_token", transform("gcp_id_token", "{ zz: 1 }")),
        ("oauth_token", transform("oauth_token", "{ zz: 1 }")),
        ("oauth_token_entry", transform("oauth_token", "{ tokens: [{ zz: 1 }] }")),
        ("aws_auth", transform("aws_auth", "{ zz: 1 }")),
        ("aws_provider", transform("aws_auth", "{ credentials_provider: { zz: 1 } }")),
        ("hmac_sign", transform("hmac_sign", "{ zz: 1 }")),
        ("hmac_timestamp", transform("hmac_sign", "{ timestamp: { zz: 1 } }")),
        ("hmac_signature", transform("hmac_sign", "{ signature: { zz: 1 } }")),
        ("hmac_header", transform("hmac_sign", "{ headers: [{ zz: 1 }] }")),
        ("annotate", transform("annotate", "{ zz: 1 }")),
        ("annotation", transform("annotate", "{ annotations: [{ zz: 1 }] }")),
        ("header_allowlist", transform("header_allowlist", "{ zz: 1 }")),
        ("body_capture", transform("body_capture", "{ zz: 1 }")),
        ("grpc", transform("grpc", "{ zz: 1 }")),
        ("grpc_tls", transform("grpc", "{ tls: { zz: 1 } }")),
        ("judge", transform("judge", "{ zz: 1 }")),
        ("judge_provider", transform("judge", "{ provider: { zz: 1 } }")),
        ("judge_circuit_breaker", transform("judge", "{ circuit_breaker: { zz: 1 } }")),
    ];
    for (name, text) in &cases {
        let block = if *name == "document" { &schema } else { &schema["$defs"][name] };
        let described: BTreeSet<String> =
            block["properties"].as_object().unwrap_or_else(|| panic!("no {name}")).keys().cloned().collect();
        assert_eq!(described, reader_keys(text), "{name}");
    }
    let mut blocks: BTreeSet<&str> =
        schema["$defs"].as_object().unwrap().keys().map(String::as_str).collect();
    blocks.insert("document");
    assert_eq!(blocks, cases.iter().map(|(name, _)| *name).collect());
}

fn reader_keys(text: &str) -> BTreeSet<String> {
    let problems = match parse("f.yaml", text, &|_| None, Options::default()) {
        Err(problems) => problems,
        Ok(loaded) => panic!("{loaded:?}"),
    };
    let unknown = problems.iter().find(|problem| problem.message == "unknown key").expect("the key zz");
    let hint = unknown.hint.as_deref().unwrap_or_default();
    let list = hint.strip_prefix("valid here: ").unwrap_or_else(|| panic!("{text}: {hint}"));
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_manual_has_every_key() {
    let manual = std::fs::read_to_string(folder().join("../docs/configuration.md")).unwrap();
    let words: BTreeSet<&str> = manual.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let missing: Vec<_> =
        keys(&json_schema()).into_iter().filter(|key| !words.contains(key.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new(), "not in docs/configuration.md");
}

#[test]
fn what_the_reader_takes_in_more_than_one_form_is_valid() {
    let validator = validator();
    for text in [
        "log:\ntransforms: ~\nproxy: { auth: , tunnel_listen: ~ }\n",
        "proxy: { tunnel_listen: ':1', allowed_ports: ['*'], max_request_body_bytes: '${MAX:-10}' }\n",
        "proxy: { tunnel_listen: [':1', '${LISTEN:-:2}'], allowed_ports: [443, '${PORT:-80}'], drain_timeout: 0 }\n",
        "tls: { mode: '${MODE:-mitm}', ca_cert: 5, cert_cache_size: -1 }\n",
        "default_action: '${ACTION:-deny}'\nlog: { level: '${LEVEL:-info}' }\n",
        "transforms: [{ name: '${NAME:-allowlist}', config: { warn: '${WARN:-true}', domains: [a.example] } }]\n",
        "metrics: { listen: '' }\n",
    ] {
        parse("f.yaml", text, &|_| None, Options::default()).err().into_iter().for_each(|problems| {
            assert!(problems.to_string().contains("required"), "{problems}");
        });
        assert_eq!(errors(&validator, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn an_editor_sees_the_plain_mistakes() {
    let validator = validator();
    for text in [
        "transfroms: []\n",
        "proxy: { tunel_listen: ':1' }\n",
        "proxy: { tunnel_listen: 3128 }\n",
        "proxy: { allowed_ports: [70000] }\n",
        "proxy: { drain_timeout: soon! }\n",
        "default_action: maybe\n",
        "log: { level: loud }\n",
        "transforms: [{ config: {} }]\n",
        "transforms: [{ name: alowlist }]\n",
        "transforms: [{ name: allowlist, config: { warn: perhaps } }]\n",
        "transforms: [{ name: secrets, config: { secrets: [{ source: { var: A } }] } }]\n",
        "transforms: [{ name: allowlist, config: { rules: [{ host: a.example, cidr: 10.0.0.0 }] } }]\n",
        "transforms: [{ name: allowlist, config: { rules: [{ host: a.example, schemes: [ftp] }] } }]\n",
        "transforms: [{ name: judge, config: { domains: [a.example] } }]\n",
        "mcp: { servers: [{ tools: [{ when: [{ path: a, equals: [1] }] }] }] }\n",
    ] {
        assert_ne!(errors(&validator, text), Vec::<String>::new(), "{text}");
    }
}
