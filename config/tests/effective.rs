//! `keyferry config print --effective`: defaults, variables and overrides in, secrets out.

use keyferry_config::document::{Document, Options, effective, parse};

fn print(text: &str, environment: &[(&str, &str)]) -> String {
    let lookup = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    effective("f.yaml", text, &lookup, Options::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn read(text: &str) -> Document {
    parse("f.yaml", text, &|_| None, Options::default())
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
        .document
}

#[test]
fn defaults_variables_and_overrides_are_in_it() {
    let text = "
proxy: { tunnel_listen: '${LISTEN:-:3128}' }
tls: { ca_cert: ca.crt, ca_key: ca.key }
transforms:
- name: allowlist
  config: { domains: [\"${HOST}\"] }
- name: secrets
  config:
    secrets:
    - source: { type: file, path: /run/secret, ttl: 90s }
      proxy_value: kf_00112233445566778899aabbccddeeff
      rules: [{ host: a.example, methods: [get] }]
";
    let expected = "\
proxy:
  tunnel_listen:
  - \":3128\"
  max_request_body_bytes: 1048576
  max_response_body_bytes: 0
  upstream_response_header_timeout: 5m
  drain_timeout: 5s
  propagate_trace: false
tls:
  mode: mitm
  ca_cert: ca.crt
  ca_key: ca.key
  cert_cache_size: 1000
  leaf_cert_expiry_hours: 72
default_action: deny
transforms:
- name: allowlist
  config:
    domains:
    - a.example
    warn: false
- name: secrets
  config:
    secrets:
    - source:
        type: file
        path: /run/secret
        ttl: 1m30s
      rules:
      - host: a.example
        methods:
        - GET
        action: allow
        foreign_credentials: allow
      replace:
        proxy_value: kf_00112233445566778899aabbccddeeff
        match_body: false
        match_path: false
        match_query: false
        require: false
      on_unavailable: deny
      redact_responses: true
dns: {}
metrics: {}
management:
  api_key_env: IRON_MANAGEMENT_API_KEY
log:
  level: debug
audit:
  sink: stderr
  on_full: deny
";
    assert_eq!(print(text, &[("HOST", "a.example"), ("KEYFERRY_LOG_LEVEL", "debug")]), expected);
}

#[test]
fn no_secret_is_in_it() {
    let text = "
proxy:
  upstream_proxy: { http_proxy: 'http://user:${TOKEN}@p.example:3128/x', https_proxy: 'http://user:s3cret@p.example:3128' }
transforms:
- name: secrets
  config:
    secrets:
    - source: { type: control_plane, value: s3cret }
      inject: { header: Authorization, formatter: 'Basic {{ base64 \"${TOKEN}:\" .Value }}' }
      rules: [{ host: '${HOST}' }]
    - source: { type: env, var: '${VARIABLE}' }
      replace: { proxy_value: '${TOKEN}' }
      rules: [{ host: '${HOST}' }]
- name: oauth_token
  config:
    tokens:
    - grant: client_credentials
      client_id: { type: env, var: A }
      client_secret: { type: control_plane, value: '${TOKEN}' }
      token_endpoint: 'https://id.example/token?key=${TOKEN}'
      value_prefix: '${TOKEN}'
      rules: [{ host: '${HOST}' }]
- name: hmac_sign
  config:
    signature: { message: '${TOKEN}{{ .Body }}' }
    credentials: { secret: { type: env, var: A } }
    headers: [{ name: X-Key, value: '${TOKEN}' }]
    rules: [{ host: '${HOST}' }]
mcp_gateway: { routes: [{ name: a, rules: [{ host: '${HOST}' }], upstream: 'https://t.example/${TOKEN}' }] }
postgres:
  listen: ':5432'
  client: { user: a, password_env: PW }
  upstreams: [{ database: d, dsn: { type: env, var: A }, settings: [{ name: app.key, value: '${TOKEN}' }] }]
";
    let printed = print(text, &[("TOKEN", "s3cret"), ("HOST", "a.example"), ("VARIABLE", "API_KEY")]);

    assert!(!printed.contains("s3cret"), "{printed}");
    for kept in [
        "host: a.example",
        "var: API_KEY",
        "formatter: \"[redacted]\"",
        "https_proxy: http://[redacted]@p.example:3128/",
        "http_proxy: http://p.example:3128/redacted",
        "token_endpoint: https://id.example/redacted",
        "upstream: https://t.example/redacted",
    ] {
        assert!(printed.contains(kept), "{kept} is not in\n{printed}");
    }
    assert_eq!(printed.matches("[redacted]").count(), 9, "{printed}");
}

#[test]
fn without_secrets_it_means_the_same_document_again() {
    for text in [
        include_str!("../examples/iron-proxy-everything.yaml"),
        include_str!("../examples/iron-proxy.yaml"),
        include_str!("../examples/minimal.yaml"),
        include_str!("../examples/reference.yaml"),
        "proxy: { allowed_ports: ['*'], upstream_deny_cidrs: [], max_request_body_bytes: -1 }\ntls: { cert_cache_size: -1 }\n",
        "transforms: [{ name: judge, config: { name: 'yes', prompt: \"0123\\n  ${x}\\n$${y}: #\", provider: { type: openai, model: '1e3', api_key_env: '~' }, rules: [{ cidr: 10.0.0.0/8 }] } }]\n"
            .replace("${x}", "$${x}")
            .as_str(),
        "mcp: { servers: [{ name: a, rules: [{ host: a.example }], tools: [{ name: t, when: [{ path: p, in: [1, 1.5, '1', true, 'true'] }] }] }] }\n",
    ] {
        let printed = print(text, &[]);
        assert_eq!(read(&printed), read(text), "{printed}");
        assert_eq!(print(&printed, &[]), printed);
    }
}

#[test]
fn the_audit_block_is_printed_whole() {
    let printed = print(
        "audit: { sink: file, path: audit.jsonl, on_full: sample, rotate: { max_bytes: 1000000, max_age: 36h, keep: 7 } }\n",
        &[],
    );
    let block = "audit:\n  sink: file\n  path: audit.jsonl\n  rotate:\n    max_bytes: 1000000\n    max_age: 36h\n    keep: 7\n  on_full: sample\n";
    assert!(printed.ends_with(block), "{printed}");
}

#[test]
fn a_bad_file_is_refused_as_by_check() {
    let problems = effective("f.yaml", "log: { level: loud }\n", &|_| None, Options::default()).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "f.yaml:1:15: log.level: unknown log level: \"loud\"\n  hint: valid here: debug, info, warn, error"
    );
}
