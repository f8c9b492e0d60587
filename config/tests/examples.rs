//! Every file under `examples/` loads, compiles, and means what its comments say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use keyferry_config::document::{
    Action, AllowedPorts, Allowlist, Audit, AuditSink, Auth, Dns, Document, Fixtures, ForeignCredentials,
    Formatter, Inject, InjectTarget, ListenAddr, Loaded, Log, LogLevel, Management, Metrics, OnFull,
    OnUnavailable, OneOrMany, Options, Proxy, Replace, Rule, Scheme, SecretEntry, SecretMode, Secrets,
    Source, SourceKind, Tls, TlsMode, Transform, parse,
};
use keyferry_config::policy::Policy;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn load(name: &str) -> Loaded {
    let text = std::fs::read_to_string(folder().join(name)).expect("an example");
    parse(name, &text, &|_| None, Options::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn rule(host: &str) -> Rule {
    Rule {
        host: Some(host.to_owned()),
        cidr: None,
        methods: Vec::new(),
        paths: Vec::new(),
        ports: Vec::new(),
        schemes: Vec::new(),
        action: Action::Allow,
        foreign_credentials: ForeignCredentials::Allow,
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn env_source(var: &str) -> Source {
    Source { kind: SourceKind::Env { var: var.to_owned() }, json_key: None, ttl: None, failure_ttl: None }
}

fn file_source(path: &str) -> Source {
    Source { kind: SourceKind::File { path: path.into() }, json_key: None, ttl: None, failure_ttl: None }
}

fn replace(proxy_value: &str, match_headers: &[&str]) -> Replace {
    Replace {
        proxy_value: proxy_value.to_owned(),
        match_headers: strings(match_headers),
        match_body: false,
        match_path: false,
        match_query: false,
        require: false,
    }
}

fn entry(source: Source, mode: SecretMode, rules: Vec<Rule>) -> SecretEntry {
    SecretEntry {
        name: None,
        source,
        rules,
        mode,
        priority: None,
        on_unavailable: OnUnavailable::Deny,
        redact_responses: true,
    }
}

#[test]
fn every_example_loads_without_a_warning_and_compiles() {
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".test.yaml") {
            continue;
        }
        let loaded = load(&name);
        assert_eq!(loaded.warnings.to_string(), "", "{name}");
        assert!(Policy::compile(&loaded.document, 1).is_ok(), "{name}");
        assert_eq!(loaded.unsupported.is_empty(), name != "iron-proxy-everything.yaml", "{name}");
        found.insert(name);
    }
    let expected = [
        "coding-agent.yaml",
        "iron-proxy-everything.yaml",
        "iron-proxy.yaml",
        "llm-agent.yaml",
        "minimal.yaml",
        "reference.yaml",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
}

#[test]
fn every_example_with_fixtures_does_what_they_expect() {
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".test.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(folder().join(&name)).unwrap();
        let fixtures = Fixtures::parse(&name, &text).unwrap_or_else(|problems| panic!("{problems}"));
        let config = load(fixtures.config.unwrap().to_str().unwrap());
        let policy = Arc::new(Policy::compile(&config.document, 1).unwrap());
        for case in &fixtures.cases {
            assert_eq!(policy.test(case).differences, [], "{name}: {}", case.name);
        }
        assert!(fixtures.cases.len() > 5, "{name} shows what its configuration is for");
        found.insert(name);
    }
    assert_eq!(found, ["llm-agent.test.yaml".to_owned()].into());
}

#[test]
fn the_minimal_example_is_one_host_and_one_credential() {
    let expected = Document {
        proxy: Proxy {
            tunnel_listen: vec![ListenAddr::Socket("127.0.0.1:3128".parse().unwrap())].into(),
            ..Proxy::default()
        },
        tls: Tls { ca_cert: Some("ca.crt".into()), ca_key: Some("ca.key".into()), ..Tls::default() },
        transforms: vec![
            Transform::Allowlist(Allowlist { domains: strings(&["api.example"]), ..Allowlist::default() }),
            Transform::Secrets(Secrets {
                secrets: vec![entry(
                    env_source("EXAMPLE_API_KEY"),
                    SecretMode::Replace(replace("EXAMPLE_API_KEY", &["Authorization"])),
                    vec![rule("api.example")],
                )],
            }),
        ],
        ..Document::default()
    };
    assert_eq!(load("minimal.yaml").document, expected);
}

#[test]
fn the_reference_example_says_every_key() {
    let net = |text: &str| text.parse().unwrap();
    let expected = Document {
        proxy: Proxy {
            http_listen: OneOrMany::default(),
            https_listen: OneOrMany::default(),
            upstream_proxy: None,
            tunnel_listen: vec![
                ListenAddr::Socket("127.0.0.1:3128".parse().unwrap()),
                ListenAddr::Socket("[::1]:3128".parse().unwrap()),
            ]
            .into(),
            auth: Some(Auth { user: "sandbox".to_owned(), password: env_source("LISTENER_PASSWORD") }),
            allowed_ports: Some(AllowedPorts::List(vec![80, 443, 8443])),
            upstream_allow_cidrs: vec![net("10.20.0.0/16")],
            upstream_deny_cidrs: Some(vec![net("203.0.113.0/24")]),
            max_request_body_bytes: Some(1_048_576),
            max_response_body_bytes: 0,
            upstream_response_header_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
            propagate_trace: false,
        },
        tls: Tls {
            mode: TlsMode::Mitm,
            ca_cert: Some("ca.crt".into()),
            ca_key: Some("ca.key".into()),
            upstream_ca: Some("internal-roots.pem".into()),
            cert_cache_size: 1000,
            leaf_cert_expiry_hours: 72,
        },
        default_action: Action::Deny,
        transforms: vec![
            Transform::Allowlist(Allowlist {
                domains: strings(&["packages.example", "*.cdn.example"]),
                cidrs: vec![net("10.20.0.0/16")],
                rules: vec![
                    Rule { methods: strings(&["POST"]), paths: strings(&["/v1/*"]), ..rule("api.example") },
                    Rule { paths: strings(&["/v1/admin/*"]), action: Action::Deny, ..rule("api.example") },
                    Rule { ports: vec![8080], schemes: vec![Scheme::Http], ..rule("metrics.example") },
                    Rule {
                        host: None,
                        cidr: Some(net("10.20.1.0/24")),
                        methods: strings(&["GET", "HEAD"]),
                        ..rule("")
                    },
                ],
                warn: false,
            }),
            Transform::Secrets(Secrets {
                secrets: vec![
                    SecretEntry {
                        priority: Some(10),
                        ..entry(
                            env_source("EXAMPLE_API_KEY"),
                            SecretMode::Replace(Replace {
                                match_query: true,
                                ..replace(
                                    "kf_00112233445566778899aabbccddeeff",
                                    &["Authorization", "/^x-.*-key$/"],
                                )
                            }),
                            vec![rule("api.example")],
                        )
                    },
                    entry(
                        Source {
                            json_key: Some("token".to_owned()),
                            ttl: Some(SignedDuration::from_mins(10)),
                            failure_ttl: Some(Duration::from_secs(60)),
                            ..file_source("/run/secrets/registry.json")
                        },
                        SecretMode::Inject(Inject {
                            target: InjectTarget::Header("Authorization".to_owned()),
                            formatter: Some(Formatter::parse("Basic {{ base64 \"ci:\" .Value }}").unwrap()),
                            require: true,
                        }),
                        vec![Rule { methods: strings(&["GET"]), ..rule("packages.example") }],
                    ),
                ],
            }),
        ],
        dns: Dns {
            enabled: Some(false),
            upstream_resolver: Some("192.0.2.53:53".parse().unwrap()),
            ..Dns::default()
        },
        mcp: None,
        mcp_gateway: None,
        postgres: None,
        control_plane: None,
        metrics: Metrics { listen: Some(ListenAddr::Socket("127.0.0.1:9090".parse().unwrap())) },
        management: Management {
            listen: Some(ListenAddr::Socket("127.0.0.1:9092".parse().unwrap())),
            api_key_env: "KEYFERRY_MANAGEMENT_API_KEY".to_owned(),
        },
        log: Log { level: LogLevel::Info },
        audit: Audit {
            sink: AuditSink::File,
            path: Some("audit.jsonl".into()),
            rotate: None,
            on_full: OnFull::Deny,
        },
    };
    assert_eq!(load("reference.yaml").document, expected);
}

#[test]
fn the_file_for_iron_proxy_is_read_with_its_old_forms() {
    let document = load("iron-proxy.yaml").document;
    assert_eq!(document.proxy.tunnel_listen.as_slice(), [ListenAddr::Any(8080)]);
    assert_eq!(document.proxy.upstream_response_header_timeout, Duration::from_secs(120));
    let expected = [
        Transform::Allowlist(Allowlist {
            domains: strings(&["registry.vendor.test", "*.githubusercontent.com"]),
            cidrs: vec!["192.0.2.0/24".parse().unwrap()],
            rules: vec![
                Rule { methods: strings(&["CONNECT"]), ..rule("api.vendor.test") },
                Rule {
                    methods: strings(&["GET", "POST"]),
                    paths: strings(&["/v1/*", "/health"]),
                    ..rule("api.vendor.test")
                },
            ],
            warn: false,
        }),
        Transform::Secrets(Secrets {
            secrets: vec![
                entry(
                    env_source("VENDOR_API_KEY"),
                    SecretMode::Replace(Replace {
                        require: true,
                        ..replace("vendor-proxy-token-1", &["Authorization", "/^x-vendor-/"])
                    }),
                    vec![rule("api.vendor.test")],
                ),
                entry(
                    Source {
                        ttl: Some(SignedDuration::from_nanos(-1)),
                        ..file_source("/run/secrets/registry-token")
                    },
                    SecretMode::Inject(Inject {
                        target: InjectTarget::Header("Authorization".to_owned()),
                        formatter: Some(Formatter::parse("Bearer {{ .Value }}").unwrap()),
                        require: false,
                    }),
                    vec![rule("registry.vendor.test")],
                ),
                entry(
                    Source { json_key: Some("key".to_owned()), ..env_source("SEARCH_KEY") },
                    SecretMode::Replace(Replace {
                        match_query: true,
                        ..replace("search-proxy-token-1", &[])
                    }),
                    vec![Rule { host: None, cidr: Some("192.0.2.0/24".parse().unwrap()), ..rule("") }],
                ),
            ],
        }),
    ];
    assert_eq!(document.transforms, expected);
}
