//! One bad input of every kind, and the words that its author gets to read.

use keyferry_config::document::{Options, parse};

/// What `keyferry check` prints for a file; empty if there is nothing to say.
fn report(text: &str) -> String {
    report_with(text, &[], Options::default())
}

fn report_with(text: &str, environment: &[(&str, &str)], options: Options) -> String {
    let environment = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    match parse("f.yaml", text, &environment, options) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(report(text), *expected, "for the file\n{text}");
    }
}

/// A `secrets` entry on line 4, column 11 onwards.
fn secret(entry: &str) -> String {
    format!("transforms:\n- name: secrets\n  config:\n    secrets: [{entry}]\n")
}

fn check_secrets(cases: &[(&str, &str)]) {
    for (entry, expected) in cases {
        assert_eq!(report(&secret(entry)), *expected, "for the entry\n{entry}");
    }
}

/// An `allowlist` rule on line 4, column 9 onwards.
fn check_rules(cases: &[(&str, &str)]) {
    for (rule, expected) in cases {
        let text = format!("transforms:\n- name: allowlist\n  config:\n    rules: [{rule}]\n");
        assert_eq!(report(&text), *expected, "for the rule\n{rule}");
    }
}

#[test]
fn what_is_not_yaml() {
    check(&[
        ("", "f.yaml:1:1: the file is empty"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty"),
        ("---\n", "f.yaml:1:1: the file is empty"),
        ("~\n", "f.yaml:1:1: the file is empty"),
        (
            "log:\n\tlevel: info\n",
            "f.yaml:2:2: not valid YAML: tabs disallowed within this context (block indentation)\n  hint: indent with spaces",
        ),
        ("log: [1, 2\n", "f.yaml:1:6: not valid YAML: unclosed bracket '['"),
        ("log: {level: info\n", "f.yaml:1:6: not valid YAML: unclosed bracket '{'"),
        ("log: {level: 'info\n", "f.yaml:1:14: not valid YAML: unclosed quote"),
        (
            "log: \"\\q\"\n",
            "f.yaml:1:6: not valid YAML: while parsing a quoted scalar, found unknown escape character",
        ),
        (
            "log: level: info\n",
            "f.yaml:1:11: not valid YAML: mapping values are not allowed in this context\n  hint: put quotes around a text with special characters",
        ),
        (
            "log: `x`\n",
            "f.yaml:1:6: not valid YAML: unexpected character: ``'\n  hint: put quotes around a text with special characters",
        ),
        (
            "- a\nlog: {}\n",
            "f.yaml:2:1: not valid YAML: while parsing a block collection, did not find expected '-' indicator",
        ),
        ("log: {}\nlog: {}\n", "f.yaml:2:1: the key \"log\" is here twice\n  hint: keep one of the two"),
        (
            "log: {level: info, level: debug}\n",
            "f.yaml:1:20: the key \"level\" is here twice\n  hint: keep one of the two",
        ),
        (
            "log: {}\n---\ntls: {}\n",
            "f.yaml:2:1: a second document starts here; a file holds one\n  hint: remove `---` and what follows",
        ),
        ("log: *missing\n", "f.yaml:1:6: an alias without its anchor"),
        ("log: &a [*a]\n", "f.yaml:1:10: an alias inside of its own anchor"),
        ("log: !mine {}\n", "f.yaml:1:12: not valid YAML: unsupported tag `!mine`"),
        ("? [a]\n: 1\n", "f.yaml:1:3: a key must be a text"),
        ("~: 1\n", "f.yaml:1:1: a key must be a text"),
        (
            "log: {level: ${LEVEL}}\n",
            "f.yaml:1:15: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'\n  hint: inside of [ ] and { }, put quotes around \"${NAME}\"",
        ),
        (
            "log: \u{0}\n",
            "f.yaml:1:6: not valid YAML: unexpected character: `\\u{0}'\n  hint: put quotes around a text with special characters",
        ),
    ]);
}

#[test]
fn what_is_not_a_mapping() {
    check(&[
        ("just text\n", "f.yaml:1:1: expected a block of keys, found \"just text\""),
        ("[]\n", "f.yaml:1:1: expected a block of keys, found a list"),
        ("5\n", "f.yaml:1:1: expected a block of keys, found 5"),
        ("log: debug\n", "f.yaml:1:6: log: expected a block of keys, found \"debug\""),
        ("proxy: [1]\n", "f.yaml:1:8: proxy: expected a block of keys, found a list"),
    ]);
}

#[test]
fn unknown_keys_at_every_depth() {
    check(&[
        ("transfroms: []\n", "f.yaml:1:1: transfroms: unknown key\n  hint: did you mean \"transforms\"?"),
        (
            "banana: 1\n",
            "f.yaml:1:1: banana: unknown key\n  hint: valid here: proxy, tls, default_action, transforms, dns, mcp, mcp_gateway, postgres, control_plane, metrics, management, log, audit",
        ),
        (
            "proxy: { tunel_listen: ':1' }\n",
            "f.yaml:1:10: proxy.tunel_listen: unknown key\n  hint: did you mean \"tunnel_listen\"?",
        ),
        (
            "proxy: { auth: { user: a, password: { type: env, var: A, vra: B } } }\n",
            "f.yaml:1:58: proxy.auth.password.vra: unknown key\n  hint: did you mean \"var\"?",
        ),
        ("tls: { ca_crt: a }\n", "f.yaml:1:8: tls.ca_crt: unknown key\n  hint: did you mean \"ca_cert\"?"),
        (
            "dns: { upstream-resolver: '192.0.2.1:53' }\n",
            "f.yaml:1:8: dns.upstream-resolver: unknown key\n  hint: did you mean \"upstream_resolver\"?",
        ),
        (
            "metrics: { lisen: ':1' }\n",
            "f.yaml:1:12: metrics.lisen: unknown key\n  hint: did you mean \"listen\"?",
        ),
        ("log: { levle: info }\n", "f.yaml:1:8: log.levle: unknown key\n  hint: did you mean \"level\"?"),
        ("audit: { snik: stderr }\n", "f.yaml:1:10: audit.snik: unknown key\n  hint: did you mean \"sink\"?"),
        (
            "transforms:\n- name: allowlist\n  confg: {}\n",
            "f.yaml:3:3: transforms[0].confg: unknown key\n  hint: did you mean \"config\"?",
        ),
        (
            "transforms:\n- name: allowlist\n  config:\n    hosts: [a.example]\n",
            "f.yaml:4:5: transforms[0].config.hosts: unknown key\n  hint: did you mean \"domains\"?",
        ),
        (
            "transforms:\n- name: allowlist\n  config:\n    rules:\n    - host: a.example\n      method: [GET]\n",
            "f.yaml:6:7: transforms[0].config.rules[0].method: unknown key\n  hint: did you mean \"methods\"?",
        ),
        ("tunnel_listen: ':1'\n", "f.yaml:1:1: tunnel_listen: unknown key\n  hint: put it under \"proxy\""),
        (
            "\"\\e[31m\\n\": 1\n",
            "f.yaml:1:1: \"\\u{1b}[31m\\n\": unknown key\n  hint: valid here: proxy, tls, default_action, transforms, dns, mcp, mcp_gateway, postgres, control_plane, metrics, management, log, audit",
        ),
    ]);
    check_secrets(&[
        (
            "{ sorce: 1, source: { type: env, var: A }, replace: { proxy_value: x, requrie: true }, rules: [{ host: a.example, port: [1] }] }",
            "f.yaml:4:17: transforms[0].config.secrets[0].sorce: unknown key\n  hint: did you mean \"source\"?\n\
             f.yaml:4:85: transforms[0].config.secrets[0].replace.requrie: unknown key\n  hint: did you mean \"require\"?\n\
             f.yaml:4:129: transforms[0].config.secrets[0].rules[0].port: unknown key\n  hint: did you mean \"ports\"?",
        ),
        (
            "{ source: { type: env, var: A }, inject: { heder: x, header: y }, rules: [{ host: a.example }] }",
            "f.yaml:4:58: transforms[0].config.secrets[0].inject.heder: unknown key\n  hint: did you mean \"header\"?",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, match_path: true, rules: [{ host: a.example }] }",
            "f.yaml:4:77: transforms[0].config.secrets[0].match_path: unknown key\n  hint: put it under \"replace\", together with proxy_value",
        ),
    ]);
}

#[test]
fn wrong_types() {
    check(&[
        ("default_action: [deny]\n", "f.yaml:1:17: default_action: expected a text, found a list"),
        (
            "default_action: denied\n",
            "f.yaml:1:17: default_action: unknown action: \"denied\"\n  hint: valid here: allow, deny",
        ),
        (
            "default_action: maybe\n",
            "f.yaml:1:17: default_action: unknown action: \"maybe\"\n  hint: valid here: allow, deny",
        ),
        (
            "proxy: { tunnel_listen: { a: 1 } }\n",
            "f.yaml:1:25: proxy.tunnel_listen: expected a text, found a block of keys",
        ),
        (
            "proxy: { tunnel_listen: 3128 }\n",
            "f.yaml:1:25: proxy.tunnel_listen: not an address to listen on: 3128\n  hint: write an IP address and a port, such as 127.0.0.1:3128 or [::1]:3128, or :3128 for every address",
        ),
        (
            "proxy: { allowed_ports: '*' }\n",
            "f.yaml:1:25: proxy.allowed_ports: expected a list, found \"*\"\n  hint: put it into brackets: [\"*\"]",
        ),
        (
            "proxy: { allowed_ports: ['*', 1] }\n",
            "f.yaml:1:26: proxy.allowed_ports[0]: \"*\" stands alone\n  hint: write [\"*\"] for every port, or a list of ports",
        ),
        (
            "proxy: { allowed_ports: [0, 70000, '443', 1.5, -1, [], 0443] }\n",
            "f.yaml:1:26: proxy.allowed_ports[0]: port 0 does not exist\n\
             f.yaml:1:29: proxy.allowed_ports[1]: expected a whole number from 0 to 65535, found 70000\n\
             f.yaml:1:36: proxy.allowed_ports[2]: expected a whole number from 0 to 65535, found \"443\"\n  hint: leave out the quotes and leading zeros\n\
             f.yaml:1:43: proxy.allowed_ports[3]: expected a whole number from 0 to 65535, found 1.5\n\
             f.yaml:1:48: proxy.allowed_ports[4]: expected a whole number from 0 to 65535, found -1\n\
             f.yaml:1:52: proxy.allowed_ports[5]: expected a whole number from 0 to 65535, found a list\n\
             f.yaml:1:56: proxy.allowed_ports[6]: expected a whole number from 0 to 65535, found \"0443\"\n  hint: leave out the quotes and leading zeros",
        ),
        (
            "proxy: { upstream_allow_cidrs: [10.0.0.1, 10.0.0.0/33, nonsense, ''] }\n",
            "f.yaml:1:33: proxy.upstream_allow_cidrs[0]: an address range needs its length: \"10.0.0.1\"\n  hint: a single address ends in /32 (IPv4) or /128 (IPv6)\n\
             f.yaml:1:43: proxy.upstream_allow_cidrs[1]: not an address range: \"10.0.0.0/33\"\n  hint: write an address and a length, such as 10.0.0.0/8 or fd00::/8\n\
             f.yaml:1:56: proxy.upstream_allow_cidrs[2]: not an address range: \"nonsense\"\n  hint: write an address and a length, such as 10.0.0.0/8 or fd00::/8\n\
             f.yaml:1:66: proxy.upstream_allow_cidrs[3]: not an address range: \"\"\n  hint: write an address and a length, such as 10.0.0.0/8 or fd00::/8",
        ),
        (
            "proxy: { max_request_body_bytes: 1MiB }\n",
            "f.yaml:1:34: proxy.max_request_body_bytes: expected a whole number, found \"1MiB\"",
        ),
        (
            "proxy: { drain_timeout: 5, upstream_response_header_timeout: soon }\n",
            "f.yaml:1:25: proxy.drain_timeout: not a duration: 5\n  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m\n\
             f.yaml:1:62: proxy.upstream_response_header_timeout: not a duration: \"soon\"\n  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m",
        ),
        (
            "proxy: { drain_timeout: -1s, upstream_response_header_timeout: 0s }\n",
            "f.yaml:1:25: proxy.drain_timeout: cannot be negative: \"-1s\"\n\
             f.yaml:1:64: proxy.upstream_response_header_timeout: must be more than zero: \"0s\"",
        ),
        (
            "tls: { leaf_cert_expiry_hours: -1 }\n",
            "f.yaml:1:32: tls.leaf_cert_expiry_hours: expected a whole number from 0 to 4294967295, found -1",
        ),
        (
            "tls: { leaf_cert_expiry_hours: 100000 }\n",
            "f.yaml:1:32: tls.leaf_cert_expiry_hours: at most 87600 hours (ten years)",
        ),
        (
            "dns: { upstream_resolver: dns.example }\n",
            "f.yaml:1:27: dns.upstream_resolver: not the address of a resolver: \"dns.example\"\n  hint: write an IP address and a port, such as 192.0.2.53:53",
        ),
        (
            "metrics: { listen: 9090 }\n",
            "f.yaml:1:20: metrics.listen: not an address to listen on: 9090\n  hint: write an IP address and a port, such as 127.0.0.1:3128 or [::1]:3128, or :3128 for every address",
        ),
        (
            "log: { level: verbose }\n",
            "f.yaml:1:15: log.level: unknown log level: \"verbose\"\n  hint: valid here: debug, info, warn, error",
        ),
        (
            "log: { level: warning }\n",
            "f.yaml:1:15: log.level: unknown log level: \"warning\"\n  hint: did you mean \"warn\"?",
        ),
        ("transforms: {}\n", "f.yaml:1:13: transforms: expected a list, found a block of keys"),
        (
            "transforms:\n- allowlist\n-\n",
            "f.yaml:2:3: transforms[0]: expected a block of keys, found \"allowlist\"\n\
             f.yaml:3:2: transforms[1]: expected a block of keys, found nothing",
        ),
        (
            "transforms:\n- name: allowlist\n  config: { warn: yes, domains: a.example }\n",
            "f.yaml:3:19: transforms[0].config.warn: expected true or false, found \"yes\"\n  hint: write true\n\
             f.yaml:3:33: transforms[0].config.domains: expected a list, found \"a.example\"\n  hint: put it into brackets: [\"a.example\"]",
        ),
        (
            "transforms:\n- name: allowlist\n  config: { warn: 'true', domains: [[a], {b: c}, ~] }\n",
            "f.yaml:3:19: transforms[0].config.warn: expected true or false, found \"true\"\n  hint: leave out the quotes\n\
             f.yaml:3:37: transforms[0].config.domains[0]: expected a text, found a list\n\
             f.yaml:3:42: transforms[0].config.domains[1]: expected a text, found a block of keys\n\
             f.yaml:3:50: transforms[0].config.domains[2]: expected a text, found nothing",
        ),
    ]);
}

#[test]
fn what_a_block_lacks_or_contradicts() {
    check(&[
        (
            "proxy:\n  tunnel_listen: ':3128'\n",
            "f.yaml:1:1: tls.ca_cert: required where proxy.tunnel_listen is set\n  hint: `keyferry ca init` makes both files\n\
             f.yaml:1:1: tls.ca_key: required where proxy.tunnel_listen is set\n  hint: `keyferry ca init` makes both files",
        ),
        (
            "proxy: { tunnel_listen: ':3128' }\ntls: { ca_cert: a }\n",
            "f.yaml:2:1: tls.ca_key: required where proxy.tunnel_listen is set\n  hint: `keyferry ca init` makes both files",
        ),
        (
            "tls: { ca_key: a }\n",
            "f.yaml:1:1: tls.ca_cert: required with the other of ca_cert and ca_key\n  hint: `keyferry ca init` makes both files",
        ),
        (
            "proxy: { tunnel_listen: [':1', ':1'] }\ntls: { ca_cert: a, ca_key: b }\n",
            "f.yaml:1:32: proxy.tunnel_listen[1]: this address is here twice: \":1\"\n  hint: keep one of the two",
        ),
        (
            "proxy: { tunnel_listen: ':1' }\ntls: { ca_cert: a, ca_key: b }\nmetrics: { listen: ':1' }\n",
            "f.yaml:3:20: metrics.listen: proxy.tunnel_listen has this address already: \":1\"\n  hint: take another port",
        ),
        (
            "proxy: { auth: {} }\n",
            "f.yaml:1:10: proxy.auth.user: required\n  hint: name the user that clients send\n\
             f.yaml:1:10: proxy.auth.password: required\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }",
        ),
        (
            "proxy: { auth: { user: 'a:b', password: { type: env, var: A } } }\n",
            "f.yaml:1:24: proxy.auth.user: a user name holds neither `:` nor control characters",
        ),
        (
            "tls: { mode: transparent }\n",
            "f.yaml:1:14: tls.mode: tls.mode must be \"mitm\" or \"sni-only\"; got \"transparent\"\n  hint: leave out tls.mode",
        ),
        (
            "audit: { sink: file }\n",
            "f.yaml:1:1: audit.path: required by the sink \"file\"\n  hint: name the file that records are appended to",
        ),
        (
            "audit: { path: a.jsonl }\n",
            "f.yaml:1:16: audit.path: only the sink \"file\" takes a path\n  hint: write sink: file, or leave out the path",
        ),
        (
            "audit: { rotate: { max_bytes: 1000000 } }\n",
            "f.yaml:1:10: audit.rotate: only the sink \"file\" is rotated\n  hint: write sink: file, or leave out the rotation",
        ),
        (
            "audit: { sink: file, path: a, rotate: { keep: 3 } }\n",
            "f.yaml:1:31: audit.rotate: says neither how large nor how old a file may become\n  hint: set max_bytes, max_age, or both",
        ),
        (
            "audit: { sink: file, path: a, rotate: { max_bytes: 65535 } }\n",
            "f.yaml:1:52: audit.rotate.max_bytes: must be at least 65536",
        ),
        (
            "audit: { sink: file, path: a, rotate: { max_age: 59s } }\n",
            "f.yaml:1:50: audit.rotate.max_age: must be at least 1m",
        ),
        (
            "audit: { on_full: block }\n",
            "f.yaml:1:19: audit.on_full: unknown choice: \"block\"\n  hint: valid here: deny, sample",
        ),
        (
            "audit: { sink: syslog, path: a }\n",
            "f.yaml:1:16: audit.sink: unknown audit sink: \"syslog\"\n  hint: valid here: stderr, stdout, file",
        ),
        (
            "transforms:\n- config: {}\n",
            "f.yaml:2:3: transforms[0].name: required\n  hint: valid here: allowlist, secrets, gcp_auth, gcp_id_token, oauth_token, aws_auth, hmac_sign, annotate, header_allowlist, body_capture, grpc, judge",
        ),
        (
            "transforms:\n- name: alowlist\n",
            "f.yaml:2:9: transforms[0].name: unknown transform: \"alowlist\"\n  hint: did you mean \"allowlist\"?",
        ),
    ]);
}

#[test]
fn rules() {
    check_rules(&[
        (
            "{}",
            "f.yaml:4:13: transforms[0].config.rules[0]: host or cidr is required\n  hint: write host: api.example, or cidr: 10.0.0.0/8",
        ),
        (
            "{ host: '' }",
            "f.yaml:4:13: transforms[0].config.rules[0]: host or cidr is required\n  hint: write host: api.example, or cidr: 10.0.0.0/8",
        ),
        (
            "{ host: a.example, cidr: 10.0.0.0/8 }",
            "f.yaml:4:13: transforms[0].config.rules[0]: host and cidr are mutually exclusive\n  hint: make two rules of it",
        ),
        (
            "{ cidr: 10.0.0.1 }",
            "f.yaml:4:21: transforms[0].config.rules[0].cidr: an address range needs its length: \"10.0.0.1\"\n  hint: a single address ends in /32 (IPv4) or /128 (IPv6)",
        ),
        (
            "{ host: 'https://a.example' }",
            "f.yaml:4:21: transforms[0].config.rules[0].host: a host holds no scheme: \"https://a.example\"\n  hint: write the host alone, and the scheme as schemes: [https] in a rule",
        ),
        (
            "{ host: 'a.example:8443' }",
            "f.yaml:4:21: transforms[0].config.rules[0].host: a host holds no port: \"a.example:8443\"\n  hint: write the host alone, and the port as ports: [8443] in a rule",
        ),
        (
            "{ host: a.example/v1 }",
            "f.yaml:4:21: transforms[0].config.rules[0].host: a host holds no path: \"a.example/v1\"\n  hint: write the host alone, and the path as paths: [\"/v1/*\"] in a rule; a range of addresses is a cidr",
        ),
        (
            "{ host: '[a-' }",
            "f.yaml:4:21: transforms[0].config.rules[0].host: `[` opens a class that no `]` closes: \"[a-\"\n  hint: write `\\[` for a bracket",
        ),
        (
            "{ host: a.example, paths: [v1, '/ok', '/[z-a]'] }",
            "f.yaml:4:40: transforms[0].config.rules[0].paths[0]: a path begins with `/`: \"v1\"\n  hint: write \"/*\" for every path\n\
             f.yaml:4:51: transforms[0].config.rules[0].paths[2]: a range in a class runs backwards: \"/[z-a]\"\n  hint: write it as [a-z]",
        ),
        (
            "{ host: a.example, methods: [GET, 'P OST', '*'] }",
            "f.yaml:4:47: transforms[0].config.rules[0].methods[1]: not a method: \"P OST\"\n  hint: write a name such as GET or POST\n\
             f.yaml:4:56: warning: transforms[0].config.rules[0].methods[2]: `*` beside other methods is no wildcard\n  hint: leave out methods to mean all of them",
        ),
        (
            "{ host: a.example, ports: [0, 65536], schemes: [htps, ftp], action: block }",
            "f.yaml:4:40: transforms[0].config.rules[0].ports[0]: port 0 does not exist\n\
             f.yaml:4:43: transforms[0].config.rules[0].ports[1]: expected a whole number from 0 to 65535, found 65536\n\
             f.yaml:4:61: transforms[0].config.rules[0].schemes[0]: unknown scheme: \"htps\"\n  hint: did you mean \"https\"?\n\
             f.yaml:4:67: transforms[0].config.rules[0].schemes[1]: unknown scheme: \"ftp\"\n  hint: valid here: https, http\n\
             f.yaml:4:81: transforms[0].config.rules[0].action: unknown action: \"block\"\n  hint: valid here: allow, deny",
        ),
        (
            "{ host: '*.com' }",
            "f.yaml:4:21: warning: transforms[0].config.rules[0].host: \"*.com\" matches every name under a top-level domain\n  hint: name the organisation's own domain, such as *.vendor.example",
        ),
        ("{ host: '*.com', action: deny }", ""),
        ("{ host: a.example, methods: [get, Post] }", ""),
        ("{ host: a.example, methods: ['*'], paths: [] }", ""),
    ]);
}

#[test]
fn secret_entries() {
    check_secrets(&[
        (
            "{}",
            "f.yaml:4:15: transforms[0].config.secrets[0].source: required\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\n\
             f.yaml:4:15: transforms[0].config.secrets[0]: inject or replace is required\n  hint: write replace: { proxy_value: PLACEHOLDER }\n\
             f.yaml:4:15: warning: transforms[0].config.secrets[0].rules: no rules, so this secret never applies\n  hint: say where it may go: rules: [{ host: … }]",
        ),
        (
            "{ source: { type: env, var: A }, rules: [{ host: a.example }] }",
            "f.yaml:4:15: transforms[0].config.secrets[0]: inject or replace is required\n  hint: write replace: { proxy_value: PLACEHOLDER }",
        ),
        (
            "{ source: { type: env, var: A }, proxy_value: x, replace: { proxy_value: x }, rules: [{ host: a.example }] }",
            "f.yaml:4:15: transforms[0].config.secrets[0]: proxy_value, match_headers, match_body and require on the entry itself do not go with replace\n  hint: put them under \"replace\"",
        ),
        (
            "{ source: { type: env, var: A }, require: true, inject: { header: x }, rules: [{ host: a.example }] }",
            "f.yaml:4:15: transforms[0].config.secrets[0]: proxy_value, match_headers, match_body and require on the entry itself do not go with inject\n  hint: put \"require\" under \"inject\", and leave out the others",
        ),
        (
            "{ source: { type: env, var: A }, inject: { header: x }, replace: { proxy_value: x }, rules: [{ host: a.example }] }",
            "f.yaml:4:15: transforms[0].config.secrets[0]: inject and replace are mutually exclusive\n  hint: make two entries of it",
        ),
        (
            "{ source: { type: env, var: A }, replace: { match_body: true }, rules: [{ host: a.example }] }",
            "f.yaml:4:48: transforms[0].config.secrets[0].replace.proxy_value: replace requires \"proxy_value\" field\n  hint: name the placeholder that clients send",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: [x] }, rules: [{ host: a.example }] }",
            "f.yaml:4:72: transforms[0].config.secrets[0].replace.proxy_value: expected a text, found a list",
        ),
        (
            "{ source: { type: env, var: A }, match_body: true, rules: [{ host: a.example }] }",
            "f.yaml:4:15: transforms[0].config.secrets[0].proxy_value: replace requires \"proxy_value\" field\n  hint: name the placeholder that clients send",
        ),
        (
            "{ source: { type: env, var: A }, inject: { formatter: 'x' }, rules: [{ host: a.example }] }",
            "f.yaml:4:48: transforms[0].config.secrets[0].inject: inject requires \"header\" or \"query_param\"\n  hint: write header: Authorization",
        ),
        (
            "{ source: { type: env, var: A }, inject: { header: x, query_param: y }, rules: [{ host: a.example }] }",
            "f.yaml:4:48: transforms[0].config.secrets[0].inject: header and query_param are mutually exclusive\n  hint: make two entries of it",
        ),
        (
            "{ source: { type: env, var: A }, inject: { header: 'a b' }, rules: [{ host: a.example }] }",
            "f.yaml:4:66: transforms[0].config.secrets[0].inject.header: not a header name: \"a b\"\n  hint: write a name such as Authorization",
        ),
        (
            "{ source: { type: env, var: A }, inject: { header: Host }, rules: [{ host: a.example }] }",
            "f.yaml:4:66: transforms[0].config.secrets[0].inject.header: the proxy itself decides about this header: \"Host\"",
        ),
        (
            "{ source: { type: env, var: A }, inject: { header: x, formatter: 'Bearer {{ .Value' }, rules: [{ host: a.example }] }",
            "f.yaml:4:80: transforms[0].config.secrets[0].inject.formatter: `{{` without its `}}` in a template: \"Bearer {{ .Value\"\n  hint: write `Bearer {{ .Value }}` or `Basic {{ base64 \"user:\" .Value }}`",
        ),
        (
            "{ source: { type: env, var: A }, inject: { header: x, formatter: '{{ .Token }}' }, rules: [{ host: a.example }] }",
            "f.yaml:4:80: transforms[0].config.secrets[0].inject.formatter: not a template that this proxy reads: \"{{ .Token }}\"\n  hint: write `Bearer {{ .Value }}` or `Basic {{ base64 \"user:\" .Value }}`",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x, match_headers: ['/(/', 'a b', '/(?=x)/'] }, rules: [{ host: a.example }] }",
            "f.yaml:4:91: transforms[0].config.secrets[0].replace.match_headers[0]: not a regular expression: \"/(/\"\n  hint: backreferences and lookaround are not supported\n\
             f.yaml:4:98: transforms[0].config.secrets[0].replace.match_headers[1]: not a header name: \"a b\"\n  hint: write a name, or a regular expression between slashes\n\
             f.yaml:4:105: transforms[0].config.secrets[0].replace.match_headers[2]: not a regular expression: \"/(?=x)/\"\n  hint: backreferences and lookaround are not supported",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x, require: true }, on_unavailable: pass, rules: [{ host: a.example }] }",
            "f.yaml:4:108: transforms[0].config.secrets[0].on_unavailable: `require: true` and `on_unavailable: pass` contradict each other\n  hint: keep one",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, on_unavailable: ignore, priority: high, rules: [{ host: a.example }] }",
            "f.yaml:4:93: transforms[0].config.secrets[0].on_unavailable: unknown on_unavailable: \"ignore\"\n  hint: valid here: deny, pass\n\
             f.yaml:4:111: transforms[0].config.secrets[0].priority: expected a whole number, found \"high\"",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, rules: [{ paths: [v1] }] }",
            "f.yaml:4:85: transforms[0].config.secrets[0].rules[0]: host or cidr is required\n  hint: write host: api.example, or cidr: 10.0.0.0/8\n\
             f.yaml:4:95: transforms[0].config.secrets[0].rules[0].paths[0]: a path begins with `/`: \"v1\"\n  hint: write \"/*\" for every path",
        ),
    ]);
}

#[test]
fn sources() {
    let with = |source: &str| {
        report(&secret(&format!(
            "{{ source: {source}, replace: {{ proxy_value: x }}, rules: [{{ host: a.example }}] }}"
        )))
    };
    let cases = [
        (
            "env",
            "f.yaml:4:25: transforms[0].config.secrets[0].source: expected a block of keys, found \"env\"",
        ),
        (
            "{}",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.type: required\n  hint: valid here: env, file, aws_sm, aws_ssm, 1password, 1password_connect, vault_kv, control_plane",
        ),
        (
            "{ type: evn, var: A }",
            "f.yaml:4:33: transforms[0].config.secrets[0].source.type: unsupported source type \"evn\"\n  hint: did you mean \"env\"?",
        ),
        (
            "{ type: keychain }",
            "f.yaml:4:33: transforms[0].config.secrets[0].source.type: unsupported source type \"keychain\"\n  hint: valid here: env, file, aws_sm, aws_ssm, 1password, 1password_connect, vault_kv, control_plane",
        ),
        (
            "{ type: env }",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.var: env source requires \"var\" field",
        ),
        (
            "{ type: file }",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.path: file source requires \"path\" field",
        ),
        (
            "{ type: env, var: A, path: /b, ttl: 1m }",
            "f.yaml:4:52: transforms[0].config.secrets[0].source.path: a source of type env takes no \"path\"\n  hint: valid here: type, json_key, var\n\
             f.yaml:4:61: transforms[0].config.secrets[0].source.ttl: a source of type env takes no \"ttl\"\n  hint: valid here: type, json_key, var",
        ),
        (
            "{ type: file, path: /b, var: A }",
            "f.yaml:4:54: transforms[0].config.secrets[0].source.var: a source of type file takes no \"var\"\n  hint: valid here: type, json_key, path, ttl, failure_ttl",
        ),
        (
            "{ type: file, path: /b, ttl: 60, failure_ttl: -1s }",
            "f.yaml:4:54: transforms[0].config.secrets[0].source.ttl: not a duration: 60\n  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m\n\
             f.yaml:4:71: transforms[0].config.secrets[0].source.failure_ttl: cannot be negative: \"-1s\"",
        ),
        (
            "{ type: env, var: 'A=B' }",
            "f.yaml:4:43: transforms[0].config.secrets[0].source.var: not the name of an environment variable\n  hint: write the name alone, such as API_KEY",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(with(source), expected, "for the source\n{source}");
    }
}

#[test]
fn warnings() {
    check_secrets(&[
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x } }",
            "f.yaml:4:15: warning: transforms[0].config.secrets[0].rules: no rules, so this secret never applies\n  hint: say where it may go: rules: [{ host: … }]",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, rules: [] }",
            "f.yaml:4:77: warning: transforms[0].config.secrets[0].rules: no rules, so this secret never applies\n  hint: say where it may go: rules: [{ host: … }]",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, rules: [{ host: '*' }, { host: '*.com' }] }",
            "f.yaml:4:93: warning: transforms[0].config.secrets[0].rules[0].host: this secret goes to every host\n  hint: name the hosts that it is for\n\
             f.yaml:4:108: warning: transforms[0].config.secrets[0].rules[1].host: \"*.com\" matches every name under a top-level domain\n  hint: name the organisation's own domain, such as *.vendor.example",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: short, match_body: true }, rules: [{ host: a.example }] }",
            "f.yaml:4:72: warning: transforms[0].config.secrets[0].replace.proxy_value: match_body replaces this placeholder wherever it occurs, in ordinary text too\n  hint: use a placeholder of 16 bytes or more that is no word, such as kf_ and 32 hexadecimal digits",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: SOME_VENDORS_API_KEY, match_body: true }, rules: [{ host: a.example }] }",
            "f.yaml:4:72: warning: transforms[0].config.secrets[0].replace.proxy_value: match_body replaces this placeholder wherever it occurs, in ordinary text too\n  hint: use a placeholder of 16 bytes or more that is no word, such as kf_ and 32 hexadecimal digits",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: kf_00112233445566778899aabbccddeeff, match_body: true }, rules: [{ host: a.example }] }",
            "",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, rules: [{ host: a.vendor.example }] }, { source: { type: env, var: B }, replace: { proxy_value: x }, rules: [{ host: '*.vendor.example' }] }",
            "f.yaml:4:116: warning: transforms[0].config.secrets[1]: transforms[0].config.secrets[0] has the same placeholder and may have the same host\n  hint: give both a priority; without one the later entry wins",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, priority: 1, rules: [{ host: a.vendor.example }] }, { source: { type: env, var: B }, replace: { proxy_value: x }, priority: 2, rules: [{ host: '*.vendor.example' }] }",
            "",
        ),
        (
            "{ source: { type: env, var: A }, replace: { proxy_value: x }, rules: [{ host: a.example }] }, { source: { type: env, var: B }, replace: { proxy_value: x }, rules: [{ host: b.example }] }",
            "",
        ),
    ]);
    check(&[(
        "transforms: [{ name: allowlist, config: { domains: ['*.io'] } }]\n",
        "f.yaml:1:53: warning: transforms[0].config.domains[0]: \"*.io\" matches every name under a top-level domain\n  hint: name the organisation's own domain, such as *.vendor.example",
    )]);
}
