//! How a file and the environment become a document: defaults, many problems at once, interpolation, overrides, limits.

use std::time::{Duration, Instant};

use keyferry_config::document::{
    Action, AllowedPorts, Allowlist, Dns, Document, ListenAddr, Loaded, Log, LogLevel, Metrics, Options,
    Problems, Proxy, SecretMode, Tls, Transform, parse,
};

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let lookup = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    parse("f.yaml", text, &lookup, Options::default())
}

fn document(text: &str, environment: &[(&str, &str)]) -> Document {
    load(text, environment).unwrap_or_else(|problems| panic!("{problems}")).document
}

fn problems(text: &str, environment: &[(&str, &str)]) -> String {
    load(text, environment).map_or_else(|problems| problems.to_string(), |loaded| loaded.warnings.to_string())
}

#[test]
fn a_file_that_says_nothing_opens_nothing_and_allows_nothing() {
    let said_nothing = document("log: {}\n", &[]);
    assert_eq!(said_nothing, Document::default());
    assert!(said_nothing.proxy.tunnel_listen.is_empty());
    assert_eq!(
        (said_nothing.metrics.listen, said_nothing.default_action, said_nothing.transforms),
        (None, Action::Deny, Vec::new())
    );
}

#[test]
fn an_empty_value_counts_as_an_absent_one() {
    let text = "
proxy: { tunnel_listen: '', drain_timeout: '', auth: ~, upstream_deny_cidrs: }
tls: { ca_cert: '', ca_key: , cert_cache_size: 0, leaf_cert_expiry_hours: 0, mode: '' }
transforms:
metrics: { listen: '' }
log:
";
    assert_eq!(document(text, &[]), Document::default());
}

#[test]
fn an_absent_deny_list_and_an_empty_one_are_different() {
    let deny = |text: &str| document(text, &[]).proxy.upstream_deny_cidrs;
    assert_eq!(deny("proxy: {}\n"), None);
    assert_eq!(deny("proxy: { upstream_deny_cidrs: [] }\n"), Some(Vec::new()));
    assert_eq!(
        deny("proxy: { upstream_deny_cidrs: [10.1.2.3/8] }\n"),
        Some(vec!["10.0.0.0/8".parse().unwrap()])
    );
}

#[test]
fn the_request_body_limit_has_a_default_and_no_limit() {
    let limit = |bytes: &str| {
        document(&format!("proxy: {{ max_request_body_bytes: {bytes} }}\n"), &[]).proxy.max_request_body_bytes
    };
    assert_eq!((limit("0"), limit("-1"), limit("4096")), (Some(1_048_576), None, Some(4096)));
}

#[test]
fn allowed_ports_are_a_list_or_a_star() {
    let ports =
        |text: &str| document(&format!("proxy: {{ allowed_ports: {text} }}\n"), &[]).proxy.allowed_ports;
    assert_eq!(ports("~"), None);
    assert_eq!(ports("['*']"), Some(AllowedPorts::Any));
    assert_eq!(ports("[]"), Some(AllowedPorts::List(Vec::new())));
    assert_eq!(ports("[443, 8443]"), Some(AllowedPorts::List(vec![443, 8443])));
}

#[test]
fn a_number_where_a_text_belongs_is_the_text_as_written() {
    let text = "
transforms:
- name: secrets
  config:
    secrets:
    - { source: { type: env, var: 1.10 }, replace: { proxy_value: 0x1F }, rules: [{ host: a.example }] }
";
    let Document { transforms, .. } = document(text, &[]);
    let [Transform::Secrets(secrets)] = transforms.as_slice() else { panic!("{transforms:?}") };
    let SecretMode::Replace(replace) = &secrets.secrets[0].mode else { panic!("{secrets:?}") };
    assert_eq!(
        (secrets.secrets[0].source.display_name().as_str(), replace.proxy_value.as_str()),
        ("1.10", "0x1F")
    );
}

#[test]
fn json_is_yaml() {
    let json = serde_json::json!({
        "transforms": [{ "name": "allowlist", "config": { "domains": ["a.example"], "warn": true } }],
        "log": { "level": "debug" },
    });
    let expected = Document {
        transforms: vec![Transform::Allowlist(Allowlist {
            domains: vec!["a.example".to_owned()],
            warn: true,
            ..Allowlist::default()
        })],
        log: Log { level: LogLevel::Debug },
        ..Document::default()
    };
    assert_eq!(document(&json.to_string(), &[]), expected);
}

#[test]
fn anchors_aliases_and_merges_are_followed() {
    let text = "
transforms:
- name: allowlist
  config:
    rules:
    - &api { host: api.example, methods: [GET] }
    - { <<: *api, paths: [/v1/*] }
    - *api
";
    let Document { transforms, .. } = document(text, &[]);
    let [Transform::Allowlist(Allowlist { rules, .. })] = transforms.as_slice() else {
        panic!("{transforms:?}")
    };
    assert_eq!(rules[2], rules[0]);
    assert_eq!(
        rules[1],
        keyferry_config::document::Rule { paths: vec!["/v1/*".to_owned()], ..rules[0].clone() }
    );
}

#[test]
fn a_file_with_many_faults_hears_of_all_of_them_at_once() {
    let text = "\
proxy:
  tunnel_listen: 127.0.0.1
  drain_timeout: 5
  retries: 3
transforms:
  - name: allowlist
    config:
      domain: [a.example]
      rules:
        - host: https://api.example
          methods: POST
        - { paths: [v1] }
  - name: secrets
    config:
      secrets:
        - source: { type: env }
          replace: { proxy_value: A, requrie: true }
          rules: [{ host: api.example }]
        - source: { type: file, path: /run/secret }
          rules: [{ host: api.example, ports: [https] }]
  - name: header_allowlist
log: { level: loud }
mcp: { servers: [a] }
";
    let expected = "\
f.yaml:2:18: proxy.tunnel_listen: not an address to listen on: \"127.0.0.1\"
  hint: write an IP address and a port, such as 127.0.0.1:3128 or [::1]:3128, or :3128 for every address
f.yaml:3:18: proxy.drain_timeout: not a duration: 5
  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m
f.yaml:4:3: proxy.retries: unknown key
  hint: valid here: http_listen, https_listen, tunnel_listen, auth, allowed_ports, upstream_allow_cidrs, \
upstream_deny_cidrs, upstream_proxy, max_request_body_bytes, max_response_body_bytes, upstream_response_header_timeout, drain_timeout, propagate_trace
f.yaml:8:7: transforms[0].config.domain: unknown key
  hint: did you mean \"domains\"?
f.yaml:10:17: transforms[0].config.rules[0].host: a host holds no scheme: \"https://api.example\"
  hint: write the host alone, and the scheme as schemes: [https] in a rule
f.yaml:11:20: transforms[0].config.rules[0].methods: expected a list, found \"POST\"
  hint: put it into brackets: [\"POST\"]
f.yaml:12:11: transforms[0].config.rules[1]: host or cidr is required
  hint: write host: api.example, or cidr: 10.0.0.0/8
f.yaml:12:21: transforms[0].config.rules[1].paths[0]: a path begins with `/`: \"v1\"
  hint: write \"/*\" for every path
f.yaml:16:11: transforms[1].config.secrets[0].source.var: env source requires \"var\" field
f.yaml:17:38: transforms[1].config.secrets[0].replace.requrie: unknown key
  hint: did you mean \"require\"?
f.yaml:19:11: transforms[1].config.secrets[1]: inject or replace is required
  hint: write replace: { proxy_value: PLACEHOLDER }
f.yaml:20:48: transforms[1].config.secrets[1].rules[0].ports[0]: expected a whole number from 0 to 65535, found \"https\"
f.yaml:21:5: transforms[2].config.headers: at least one header is required
  hint: name the headers that stay
f.yaml:22:15: log.level: unknown log level: \"loud\"
  hint: valid here: debug, info, warn, error
f.yaml:23:18: mcp.servers[0]: expected a block of keys, found \"a\"";
    assert_eq!(problems(text, &[]), expected);
}

#[test]
fn lenient_forgives_unknown_keys_inside_a_transform_and_nowhere_else() {
    let lenient = |text: &str| parse("f.yaml", text, &|_| None, Options { lenient: true });
    let text =
        "transforms:\n- name: allowlist\n  config: { wran: true, rules: [{ host: a.example, port: 1 }] }\n";
    let loaded = lenient(text).unwrap();
    assert_eq!(
        loaded.warnings.to_string(),
        "f.yaml:3:13: warning: transforms[0].config.wran: unknown key\n  hint: did you mean \"warn\"?\n\
         f.yaml:3:52: warning: transforms[0].config.rules[0].port: unknown key\n  hint: did you mean \"ports\"?"
    );
    assert_eq!(
        lenient("transforms:\n- name: allowlist\n  confg: {}\n").unwrap_err().to_string(),
        "f.yaml:3:3: transforms[0].confg: unknown key\n  hint: did you mean \"config\"?"
    );
}

#[test]
fn a_variable_fills_a_key_of_any_type() {
    let text = "
proxy:
  tunnel_listen: ${HOST:-127.0.0.1}:${PORT}
  allowed_ports: [\"${PORT}\"]
  drain_timeout: ${DRAIN}
  max_request_body_bytes: ${BYTES}
tls: { ca_cert: \"${DIRECTORY}/ca.crt\", ca_key: \"${DIRECTORY}/ca.key\" }
default_action: ${ACTION}
transforms:
- name: allowlist
  config: { warn: \"${WARN}\", domains: [\"${DOMAIN}\"] }
";
    let environment = [
        ("PORT", "3128"),
        ("DRAIN", "9s"),
        ("BYTES", "-1"),
        ("DIRECTORY", "/etc/keyferry"),
        ("ACTION", "allow"),
        ("WARN", "true"),
        ("DOMAIN", "a.example"),
    ];
    let expected = Document {
        proxy: Proxy {
            tunnel_listen: vec![ListenAddr::Socket("127.0.0.1:3128".parse().unwrap())].into(),
            allowed_ports: Some(AllowedPorts::List(vec![3128])),
            drain_timeout: Duration::from_secs(9),
            max_request_body_bytes: None,
            ..Proxy::default()
        },
        tls: Tls {
            ca_cert: Some("/etc/keyferry/ca.crt".into()),
            ca_key: Some("/etc/keyferry/ca.key".into()),
            ..Tls::default()
        },
        default_action: Action::Allow,
        transforms: vec![Transform::Allowlist(Allowlist {
            domains: vec!["a.example".to_owned()],
            warn: true,
            ..Allowlist::default()
        })],
        ..Document::default()
    };
    assert_eq!(document(text, &environment), expected);
}

#[test]
fn a_value_from_the_environment_is_never_read_as_yaml() {
    let text = "transforms:\n- name: allowlist\n  config: { domains: [\"${DOMAIN}\"], warn: false }\n";
    for injected in [
        "a.example\", warn: true, cidrs: [\"0.0.0.0/0",
        "x\n  warn: true",
        "[\"*\"]: x",
        "*a: b",
        "!!bool true",
    ] {
        let report = problems(text, &[("DOMAIN", injected)]);
        assert!(report.starts_with("f.yaml:3:23: transforms[0].config.domains[0]: "), "{injected}: {report}");
        assert!(report.contains(": \"${DOMAIN}\""), "{injected}: {report}");
        assert_eq!(report.lines().filter(|line| line.starts_with("f.yaml")).count(), 1, "{report}");
    }
    // A text stays a text: neither of these becomes a null or a list.
    for (text, value) in
        [("audit: { sink: file, path: \"${P}\" }\n", "~"), ("audit: { sink: file, path: \"${P}\" }\n", "[a]")]
    {
        assert_eq!(document(text, &[("P", value)]).audit.path, Some(value.into()));
    }
}

#[test]
fn keys_are_not_interpolated() {
    assert_eq!(
        problems("\"${KEY}\": 1\n", &[("KEY", "log")]),
        "f.yaml:1:1: \"${KEY}\": unknown key\n  hint: valid here: proxy, tls, default_action, transforms, dns, mcp, mcp_gateway, postgres, control_plane, metrics, management, log, audit"
    );
}

#[test]
fn a_variable_that_is_not_set_is_an_error_at_its_place() {
    let text = "
tls:
  ca_cert: /etc/${DIRECTORY}/ca.crt
  ca_key: ${KEY
audit: { path: \"${1}\", sink: \"${SINK:-file}\" }
log: { level: $${LEVEL} }
";
    assert_eq!(
        problems(&text.replace("$${LEVEL}", "'$${LEVEL}'"), &[]),
        "f.yaml:3:12: tls.ca_cert: the environment variable DIRECTORY is not set\n  hint: set it, or give a default: `${DIRECTORY:-default}`\n\
         f.yaml:4:11: tls.ca_key: `${` without its `}`\n  hint: close it, or write `$${` for a literal `${`\n\
         f.yaml:5:16: audit.path: `${1}` does not name a variable\n  hint: write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`\n\
         f.yaml:6:15: log.level: unknown log level: \"${LEVEL}\"\n  hint: valid here: debug, info, warn, error"
    );
}

#[test]
fn no_problem_ever_shows_what_a_variable_holds() {
    let secret = "s3cr3t-hunter2";
    let keys = [
        "proxy: { tunnel_listen: X }",
        "proxy: { tunnel_listen: [X, X] }",
        "proxy: { allowed_ports: [X] }",
        "proxy: { allowed_ports: X }",
        "proxy: { auth: X }",
        "proxy: { auth: { user: X, password: X } }",
        "proxy: { upstream_allow_cidrs: [X] }",
        "proxy: { max_request_body_bytes: X }",
        "proxy: { drain_timeout: X }",
        "proxy: { upstream_proxy: X }",
        "tls: { mode: X, cert_cache_size: X, leaf_cert_expiry_hours: X }",
        "default_action: X",
        "dns: { enabled: X, upstream_resolver: X }",
        "metrics: { listen: X }",
        "audit: { sink: X }",
        "log: { level: X }",
        "log: X",
        "transforms: X",
        "transforms: [X]",
        "transforms: [{ name: X }]",
        "transforms: [{ name: allowlist, config: { warn: X, domains: ['a b', X], cidrs: [X] } }]",
        "transforms: [{ name: allowlist, config: { rules: [{ host: X, cidr: X, methods: [X], paths: [X], ports: [X], schemes: [X], action: X }] } }]",
        "transforms: [{ name: secrets, config: { secrets: [{ source: { type: X, ttl: X, failure_ttl: X }, priority: X, on_unavailable: X }] } }]",
        "transforms: [{ name: secrets, config: { secrets: [{ source: { type: env, path: X }, replace: { require: X, match_headers: [X] } }] } }]",
        "transforms: [{ name: secrets, config: { secrets: [{ source: X, inject: { header: X, formatter: X } }] } }]",
    ];
    for shape in [
        "s3cr3t-hunter2 x",
        "https://s3cr3t-hunter2",
        "{{ s3cr3t-hunter2",
        "/s3cr3t-hunter2(/",
        "*.s3cr3t-hunter2",
        "[s3cr3t-hunter2",
    ] {
        for key in keys {
            let text = format!("{}\n", key.replace('X', "\"${SECRET}\""));
            let report = problems(&text, &[("SECRET", shape)]);
            assert!(!report.is_empty(), "{shape} passes for {key}");
            assert!(!report.contains(secret) && !report.contains("hunter2"), "{key}: {report}");
        }
    }
}

#[test]
fn iron_variables_win_over_the_file() {
    let text = "
proxy: { tunnel_listen: [':1', ':2'], upstream_deny_cidrs: [10.0.0.0/8], drain_timeout: 9s }
tls: { ca_cert: file.crt, ca_key: file.key }
metrics: ~
log: { level: loud }
";
    let environment = [
        ("IRON_DNS_ENABLED", "F"),
        ("IRON_DNS_UPSTREAM_RESOLVER", "192.0.2.53:53"),
        ("IRON_PROXY_TUNNEL_LISTEN", ":3128"),
        ("IRON_PROXY_MAX_REQUEST_BODY_BYTES", "10"),
        ("IRON_PROXY_MAX_RESPONSE_BODY_BYTES", "20"),
        ("IRON_PROXY_UPSTREAM_RESPONSE_HEADER_TIMEOUT", "1m"),
        ("IRON_PROXY_UPSTREAM_DENY_CIDRS", "192.0.2.0/24, 198.51.100.0/24,"),
        ("IRON_TLS_MODE", "mitm"),
        ("IRON_TLS_CA_CERT", "environment.crt"),
        ("IRON_TLS_CA_KEY", ""),
        ("IRON_TLS_CERT_CACHE_SIZE", "7"),
        ("IRON_TLS_LEAF_CERT_EXPIRY_HOURS", "8"),
        ("IRON_METRICS_LISTEN", ":9090"),
        ("IRON_LOG_LEVEL", "warn"),
    ];
    let expected = Document {
        proxy: Proxy {
            tunnel_listen: vec![ListenAddr::Any(3128)].into(),
            upstream_deny_cidrs: Some(vec![
                "192.0.2.0/24".parse().unwrap(),
                "198.51.100.0/24".parse().unwrap(),
            ]),
            max_request_body_bytes: Some(10),
            max_response_body_bytes: 20,
            upstream_response_header_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(9),
            ..Proxy::default()
        },
        tls: Tls {
            ca_cert: Some("environment.crt".into()),
            ca_key: Some("file.key".into()),
            cert_cache_size: 7,
            leaf_cert_expiry_hours: 8,
            ..Tls::default()
        },
        dns: Dns {
            enabled: Some(false),
            upstream_resolver: Some("192.0.2.53:53".parse().unwrap()),
            ..Dns::default()
        },
        metrics: Metrics { listen: Some(ListenAddr::Any(9090)) },
        log: Log { level: LogLevel::Warn },
        ..Document::default()
    };
    assert_eq!(document(text, &environment), expected);
}

#[test]
fn a_bad_override_names_its_variable() {
    let cases = [
        (
            ("IRON_LOG_LEVEL", "loud"),
            "environment: IRON_LOG_LEVEL: log.level: unknown log level: \"loud\"\n  hint: valid here: debug, info, warn, error",
        ),
        (
            ("IRON_DNS_ENABLED", "yes"),
            "environment: IRON_DNS_ENABLED: dns.enabled: expected true or false, found \"yes\"\n  hint: write 1, t, true, 0, f or false",
        ),
        (
            ("IRON_TLS_CERT_CACHE_SIZE", "many"),
            "environment: IRON_TLS_CERT_CACHE_SIZE: tls.cert_cache_size: expected a whole number, found \"many\"",
        ),
        (
            ("IRON_PROXY_UPSTREAM_RESPONSE_HEADER_TIMEOUT", "30"),
            "environment: IRON_PROXY_UPSTREAM_RESPONSE_HEADER_TIMEOUT: proxy.upstream_response_header_timeout: not a duration: \"30\"\n  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m",
        ),
        (
            ("IRON_PROXY_UPSTREAM_DENY_CIDRS", "10.0.0.0/8,10.0.0.1"),
            "environment: IRON_PROXY_UPSTREAM_DENY_CIDRS: proxy.upstream_deny_cidrs[1]: an address range needs its length: \"10.0.0.1\"\n  hint: a single address ends in /32 (IPv4) or /128 (IPv6)",
        ),
    ];
    for ((name, value), expected) in cases {
        assert_eq!(problems("log: {}\n", &[(name, value)]), expected);
    }
}

#[test]
fn a_variable_for_what_we_do_not_run_is_named() {
    let cases = [
        ("DNS_ENABLED", "1", "dns.enabled: this version does not run iron-proxy's DNS server"),
        ("DNS_PROXY_IP", "192.0.2.1", "dns.proxy_ip: this version does not run iron-proxy's DNS server"),
        (
            "PROXY_HTTP_LISTEN",
            ":80",
            "proxy.http_listen: this version does not run iron-proxy's HTTP listener",
        ),
        ("TLS_MODE", "sni-only", "tls.mode: this version does not run iron-proxy's sni-only mode"),
        (
            "RESPONSE_RETRY_HANDLER_ALLOW_CIDRS",
            "10.0.0.0/8",
            "belongs to iron-proxy's response retry, which this version does not run",
        ),
    ];
    for (name, value, expected) in cases {
        for name in [format!("IRON_{name}"), format!("KEYFERRY_{name}")] {
            let text = "dns: { proxy_ip: 192.0.2.9, enabled: false }\n";
            let text = if name.ends_with("PROXY_IP") { "log: {}\n" } else { text };
            let loaded = load(text, &[(&name, value)]).unwrap_or_else(|problems| panic!("{problems}"));
            let report = loaded.unsupported.to_string();
            let first = report.lines().next().unwrap_or_default();
            assert_eq!(first, format!("environment: {name}: {expected}"));
            assert_eq!(loaded.warnings.to_string(), "");
            assert_eq!(load("log: {}\n", &[(&name, "")]).unwrap().unsupported.to_string(), "", "{name}");
        }
    }
}

#[test]
fn our_variables_win_over_iron_proxys() {
    let both = [("KEYFERRY_LOG_LEVEL", "debug"), ("IRON_LOG_LEVEL", "error")];
    let loaded = load("log: { level: warn }\n", &both).unwrap();
    assert_eq!(loaded.document.log, Log { level: LogLevel::Debug });
    assert_eq!(
        loaded.warnings.to_string(),
        "environment: warning: KEYFERRY_LOG_LEVEL: log.level: IRON_LOG_LEVEL says something else, and this one wins\n  hint: unset IRON_LOG_LEVEL"
    );

    let equal = load("log: {}\n", &[("KEYFERRY_LOG_LEVEL", "debug"), ("IRON_LOG_LEVEL", "debug")]).unwrap();
    assert_eq!((equal.document.log.level, equal.warnings.len()), (LogLevel::Debug, 0));
    let empty = load("log: {}\n", &[("KEYFERRY_LOG_LEVEL", ""), ("IRON_LOG_LEVEL", "error")]).unwrap();
    assert_eq!((empty.document.log.level, empty.warnings.len()), (LogLevel::Error, 0));

    assert_eq!(
        problems("log: {}\n", &[("KEYFERRY_DNS_ENABLED", "yes")]),
        "environment: KEYFERRY_DNS_ENABLED: dns.enabled: expected true or false, found \"yes\"\n  hint: write 1, t, true, 0, f or false"
    );
}

#[test]
fn the_management_key_is_read_from_our_variable_where_that_is_set() {
    let name = |text: &str, environment: &[(&str, &str)]| document(text, environment).management.api_key_env;
    let ours = [("KEYFERRY_MANAGEMENT_API_KEY", "s3cret")];
    let listen = "management: { listen: ':9092' }\n";
    assert_eq!(name(listen, &[]), "IRON_MANAGEMENT_API_KEY");
    assert_eq!(name(listen, &ours), "KEYFERRY_MANAGEMENT_API_KEY");
    assert_eq!(name("management: { listen: ':9092', api_key_env: OTHER }\n", &ours), "OTHER");
    assert_eq!(name("log: {}\n", &ours), "IRON_MANAGEMENT_API_KEY");
    assert_eq!(
        name("log: {}\n", &[ours[0], ("IRON_MANAGEMENT_LISTEN", ":9092")]),
        "KEYFERRY_MANAGEMENT_API_KEY"
    );
}

#[test]
fn files_that_grow_nest_or_weigh_too_much_are_refused_in_a_moment() {
    let bomb = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |file, level| {
        let below = vec![format!("*a{}", level - 1); 10].join(",");
        format!("{file}a{level}: &a{level} [{below}]\n")
    });
    let many_aliases = format!("a: &a {{ b: 1 }}\nc: [{}]\n", "*a,".repeat(5_000));
    let merges = format!("a: &a {{ b: 1 }}\nc: {{ {} }}\n", "<<: *a, ".repeat(2_000));
    let flow = "[".repeat(100_000);
    let block: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let long = format!("log: {}\n", "x".repeat(9 * 1024 * 1024));
    let nodes = format!("log: [{}]\n", "1,".repeat(600_000));
    let cases = [
        (&bomb, "the file grows too large when its anchors and aliases are followed"),
        (&many_aliases, "the file grows too large when its anchors and aliases are followed"),
        (&merges, "the file grows too large when its anchors and aliases are followed"),
        (&flow, "values are nested more than 32 deep"),
        (&block, "values are nested more than 32 deep"),
        (&long, "the file has 9437190 bytes; 8388608 is the limit"),
        (&nodes, "the file has more than 500000 values"),
    ];
    for (text, expected) in cases {
        let start = Instant::now();
        let report = problems(text, &[]);
        assert!(report.contains(expected) && !report.is_empty(), "{report}");
        assert_eq!(report.lines().filter(|line| line.starts_with("f.yaml:")).count(), 1, "{report}");
        assert!(start.elapsed() < Duration::from_secs(30), "{expected} took {:?}", start.elapsed());
    }
}

#[test]
fn ten_thousand_rules_load() {
    let rules: String = (0..10_000)
        .map(|n| format!("    - {{ host: host-{n}.example, methods: [GET], paths: [/v1/*] }}\n"))
        .collect();
    let text = format!("transforms:\n- name: allowlist\n  config:\n    rules:\n{rules}");
    let start = Instant::now();
    let Document { transforms, .. } = document(&text, &[]);
    let [Transform::Allowlist(Allowlist { rules, .. })] = transforms.as_slice() else {
        panic!("{transforms:?}")
    };
    assert_eq!(rules.len(), 10_000);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn t52_a_template_that_no_header_may_hold_is_refused() {
    for (target, formatter, refused) in [
        ("header: X-A", r#""Bearer {{ .Value }}\\r\\nX-B: c""#, true),
        ("header: X-A", "'Schlüssel {{ .Value }}'", true),
        ("header: X-A", r#"'Basic {{ base64 "ü:" .Value }}'"#, false),
        ("query_param: a", "'Schlüssel {{ .Value }}'", false),
    ] {
        let text = format!(
            "transforms: [{{ name: secrets, config: {{ secrets: [{{ source: {{ type: env, var: A }}, inject: {{ {target}, formatter: {formatter} }}, rules: [{{ host: a.example }}] }}] }} }}]"
        );
        let read = parse("f.yaml", &text.replace("\\\\", "\\"), &|_| None, Options::default());
        let said = read.err().map(|problems| problems.to_string()).unwrap_or_default();
        let expected = "inject.formatter: the text holds a character that no header may hold: ";
        assert_eq!(said.contains(expected), refused, "{formatter}: {said}");
    }
}

#[test]
fn a_value_in_the_file_that_is_too_short_to_be_taken_out_of_responses_is_told() {
    let text = |rest: &str| {
        format!(
            "transforms: [{{ name: secrets, config: {{ secrets: [{{ source: {{ type: control_plane, value: short }}, replace: {{ proxy_value: x }}, rules: [{{ host: a.example }}]{rest} }}] }} }}]"
        )
    };
    let warnings =
        |text: &str| parse("f.yaml", text, &|_| None, Options::default()).unwrap().warnings.to_string();
    assert_eq!(
        warnings(&text("")),
        "f.yaml:1:91: warning: transforms[0].config.secrets[0].source.value: a value of less than 8 bytes is not taken out of responses, as it occurs by chance\n  hint: use a longer credential; or say redact_responses: false, if that is meant"
    );
    assert_eq!(warnings(&text(", redact_responses: false")), "");
}
