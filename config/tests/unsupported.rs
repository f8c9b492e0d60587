//! What the language has and this version does not run is loaded, and named with its place.

use keyferry_config::document::{Document, Loaded, Options, Unsupported, parse, unsupported};

fn load(text: &str) -> Loaded {
    parse("f.yaml", text, &|_| None, Options::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn each_part_is_named_once_at_its_place() {
    let text = include_str!("../examples/iron-proxy-everything.yaml");
    let expected: Vec<(&str, &str)> = vec![
        ("proxy.http_listen", "iron-proxy's HTTP listener"),
        ("proxy.https_listen", "iron-proxy's HTTPS listener"),
        ("proxy.upstream_proxy", "upstream proxies"),
        ("tls.mode", "iron-proxy's sni-only mode"),
        ("dns.enabled", "iron-proxy's DNS server"),
        ("mcp", "iron-proxy's MCP policy"),
        ("mcp_gateway", "iron-proxy's MCP gateway"),
        ("postgres", "iron-proxy's Postgres proxy"),
        ("transforms[1].name", "the transform `annotate`"),
        ("transforms[2].name", "the transform `body_capture`"),
        ("transforms[3].name", "the transform `judge`"),
        ("transforms[4].config.secrets[0].source.type", "the source `aws_sm`"),
        ("transforms[4].config.secrets[1].source.type", "the source `aws_ssm`"),
        ("transforms[4].config.secrets[2].source.type", "the source `1password`"),
        ("transforms[4].config.secrets[3].source.type", "the source `1password_connect`"),
        ("transforms[4].config.secrets[4].source.type", "the source `vault_kv`"),
        ("transforms[5].name", "the transform `gcp_auth`"),
        ("transforms[6].name", "the transform `gcp_id_token`"),
        ("transforms[7].name", "the transform `oauth_token`"),
        ("transforms[8].name", "the transform `aws_auth`"),
        ("transforms[9].name", "the transform `hmac_sign`"),
        ("transforms[10].name", "the transform `header_allowlist`"),
        ("transforms[11].name", "the transform `grpc`"),
    ];

    let loaded = load(text);

    let found = unsupported(&loaded.document);
    let named: Vec<_> =
        found.iter().map(|Unsupported { path, what, .. }| (path.as_str(), what.as_str())).collect();
    assert_eq!(named, expected);
    let lines: Vec<&str> = text.lines().collect();
    for problem in &loaded.unsupported {
        let line = lines[problem.location.expect("all of it is in the file").line as usize - 1];
        let path = problem.path.rsplit('.').next().expect("a key");
        assert!(line.contains(&format!("{path}:")), "{} points at {line}", problem.path);
    }
    assert_eq!(loaded.unsupported.len(), expected.len());
}

#[test]
fn the_words_name_the_place_and_a_way_out() {
    let text = "\
proxy: { auth: { user: a, password: { type: vault_kv, mount: kv, path: p } } }
transforms:
- name: secrets
  config:
    secrets: [{ source: { type: control_plane, value: s3cret }, replace: { proxy_value: x }, rules: [{ host: a.example }] }]
- name: header_allowlist
  config: { headers: [Accept] }
";
    assert_eq!(
        load(text).unsupported.to_string(),
        "f.yaml:1:45: proxy.auth.password.type: this version does not run the source `vault_kv`\n  hint: give the value by env or file\n\
         f.yaml:5:33: transforms[0].config.secrets[0].source.type: this version does not run the source `control_plane`\n  hint: give the value by env or file\n\
         f.yaml:6:9: transforms[1].name: this version does not run the transform `header_allowlist`\n  hint: leave the transform out"
    );
}

#[test]
fn a_rule_that_denies_has_no_credentials_to_judge() {
    let text = "\
transforms:
- name: allowlist
  config: { rules: [{ host: a.example, action: deny, foreign_credentials: strip }, { host: b.example, foreign_credentials: deny }] }
";
    let loaded = load(text);
    assert_eq!(
        (loaded.warnings.to_string(), loaded.unsupported.to_string()),
        (
            "f.yaml:3:75: warning: transforms[0].config.rules[0].foreign_credentials: a rule that denies lets nothing pass whose credentials could be judged\n  hint: write it in the rule that allows these requests".to_owned(),
            String::new()
        )
    );
}

#[test]
fn what_asks_for_nothing_is_not_refused() {
    let text = "
postgres: {}
mcp: ~
mcp_gateway: { routes: [] }
management:
control_plane: {}
dns: { enabled: false, listen: ':53', proxy_ip: 192.0.2.1, passthrough: [a.example], records: [] }
proxy: { http_listen: '', https_listen: [], upstream_proxy: { http_proxy: '', no_proxy: } }
tls: { mode: mitm }
";
    assert_eq!(load(text).unsupported.to_string(), "");
    assert_eq!(unsupported(&Document::default()), []);
}

#[test]
fn iron_proxys_dns_server_is_asked_for_by_any_of_its_keys() {
    for (keys, key) in [
        ("enabled: true, proxy_ip: 192.0.2.1", "dns.enabled"),
        ("listen: ':53', proxy_ip: 192.0.2.1", "dns.listen"),
        ("proxy_ip: 192.0.2.1", "dns.proxy_ip"),
    ] {
        let found = unsupported(&load(&format!("dns: {{ {keys} }}\n")).document);
        assert_eq!(found.iter().map(|part| part.path.as_str()).collect::<Vec<_>>(), [key]);
    }
    assert_eq!(unsupported(&load("dns: { upstream_resolver: '192.0.2.53:53' }\n").document), []);
}
