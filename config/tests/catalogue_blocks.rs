//! One bad input of every kind for the blocks and sources that iron-proxy has, and the words that its author gets to read.

mod report;

use report::report;

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(report(text), *expected, "for the file\n{text}");
    }
}

#[test]
fn dns() {
    check(&[
        (
            "dns: { enabled: true }\n",
            "f.yaml:1:1: dns.proxy_ip: required by the DNS server\n  hint: name the address that intercepted names resolve to, or write enabled: false",
        ),
        (
            "dns: { listen: ':53' }\n",
            "f.yaml:1:1: dns.proxy_ip: required by the DNS server\n  hint: name the address that intercepted names resolve to, or write enabled: false",
        ),
        (
            "dns: { enabled: true, proxy_ip: '::1', listen: nowhere }\n",
            "f.yaml:1:33: dns.proxy_ip: not an IPv4 address: \"::1\"\n  hint: write the proxy's IPv4 address as sandboxes see it\nf.yaml:1:48: dns.listen: not an address to listen on: \"nowhere\"\n  hint: write an IP address and a port, such as 127.0.0.1:3128 or [::1]:3128, or :3128 for every address",
        ),
        (
            "dns: { proxy_ip: 192.0.2.1, passthrough: ['a/b'], records: [{}, { name: a, type: MX, value: b }, { name: a.example, type: A, value: b }, a] }\n",
            "f.yaml:1:43: dns.passthrough[0]: a host holds no path: \"a/b\"\n  hint: write the host alone, and the path as paths: [\"/v1/*\"] in a rule; a range of addresses is a cidr\nf.yaml:1:61: dns.records[0].name: required\n  hint: say the name that is asked for\nf.yaml:1:61: dns.records[0].value: required\n  hint: say the answer\nf.yaml:1:61: dns.records[0].type: required\n  hint: valid here: A, CNAME\nf.yaml:1:82: dns.records[1].type: unknown type of record: \"MX\"\n  hint: valid here: A, CNAME\nf.yaml:1:133: dns.records[2].value: not an IPv4 address: \"b\"\n  hint: an A record holds an address\nf.yaml:1:138: dns.records[3]: expected a block of keys, found \"a\"",
        ),
        (
            "dns: { enabled: false, listen: ':53', records: [{ name: a.example, type: CNAME, value: b.example }] }\n",
            "",
        ),
    ]);
}

#[test]
fn proxy_listeners() {
    check(&[
        (
            "proxy: { upstream_proxy: { http_proxy: 'p.example:3128', https_proxy: 'ftp://p.example', no_proxy: a.example } }\n",
            "f.yaml:1:40: proxy.upstream_proxy.http_proxy: a URL needs its scheme\n  hint: write http://HOST:PORT, or the same with https, socks5 or socks5h\nf.yaml:1:71: proxy.upstream_proxy.https_proxy: a URL of another scheme than belongs here\n  hint: write http://HOST:PORT, or the same with https, socks5 or socks5h",
        ),
        (
            "proxy: { upstream_proxy: { http_proxy: 'socks5h://user:secret@p.example:1080#x' } }\n",
            "f.yaml:1:40: proxy.upstream_proxy.http_proxy: a URL of a service has no fragment\n  hint: write http://HOST:PORT, or the same with https, socks5 or socks5h",
        ),
        (
            "proxy: { http_listen: ':8080', tunnel_listen: ':8080' }\ntls: { ca_cert: a, ca_key: b }\n",
            "f.yaml:1:23: proxy.http_listen: proxy.tunnel_listen has this address already: \":8080\"\n  hint: take another port",
        ),
        (
            "proxy: { https_listen: ':8443' }\n",
            "f.yaml:1:1: tls.ca_cert: required where proxy.https_listen is set\n  hint: `keyferry ca init` makes both files\nf.yaml:1:1: tls.ca_key: required where proxy.https_listen is set\n  hint: `keyferry ca init` makes both files",
        ),
        ("proxy: { https_listen: ':8443' }\ntls: { mode: sni-only }\n", ""),
    ]);
}

#[test]
fn management_and_control_plane() {
    check(&[
        (
            "metrics: { listen: ':9090' }\nmanagement: { listen: ':9090', api_key_env: 'A=B', key: x }\n",
            "f.yaml:2:23: management.listen: metrics.listen has this address already: \":9090\"\n  hint: take another port\nf.yaml:2:45: management.api_key_env: not the name of an environment variable\n  hint: write the name alone, such as API_KEY\nf.yaml:2:52: management.key: unknown key\n  hint: valid here: listen, api_key_env",
        ),
        (
            "control_plane: { poll_interval: 0s }\n",
            "f.yaml:1:33: control_plane.poll_interval: must be more than zero: \"0s\"",
        ),
        (
            "control_plane: { max_staleness: 29s }\n",
            "f.yaml:1:33: control_plane.max_staleness: must be at least 30s: control shows life every 10 s, and one sign may be late\n  hint: leave it at 15m, or write 30s",
        ),
        (
            "control_plane: { poll_interval: 20s, max_staleness: 39s }\n",
            "f.yaml:1:53: control_plane.max_staleness: must be at least twice poll_interval, or a policy is stale between two polls\n  hint: write a longer one, or poll more often",
        ),
        (
            "control_plane: { poll_interval: 10, interval: 10s }\n",
            "f.yaml:1:33: control_plane.poll_interval: not a duration: 10\n  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m\nf.yaml:1:37: control_plane.interval: unknown key\n  hint: valid here: poll_interval, max_staleness",
        ),
    ]);
}

#[test]
fn mcp() {
    check(&[
        (
            "mcp: { servers: [{}] }\n",
            "f.yaml:1:18: mcp.servers[0].name: required\n  hint: say what records call the server\nf.yaml:1:18: mcp.servers[0].rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
        ),
        (
            "mcp: { servers: [{ name: a, rules: [{ host: a.example }], tools: [{}, { name: t }, { name: t }] }, { name: a, rules: [] }] }\n",
            "f.yaml:1:67: mcp.servers[0].tools[0].name: required\n  hint: say the tool's name\nf.yaml:1:92: mcp.servers[0].tools[2].name: an earlier tool has this name: \"t\"\n  hint: take another name\nf.yaml:1:108: mcp.servers[1].name: an earlier server has this name: \"a\"\n  hint: take another name\nf.yaml:1:111: mcp.servers[1].rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
        ),
        (
            "mcp: { servers: [{ name: a, rules: [{ host: a.example }], tools: [{ name: t, when: [{}, { path: x }, { path: x, equals: 1, in: [1] }, { path: x, equals: ~ }, { path: x, equals: [1] }, { path: x, equals: { a: 1 } }, { path: x, equals: 1.5 }, { path: x, in: [a, [b], true] }, { path: x, matches: '(' }, { path: x, in: 1 }] }] }] }\n",
            "f.yaml:1:85: mcp.servers[0].tools[0].when[0].path: required\n  hint: say the argument, such as project or labels.0\nf.yaml:1:85: mcp.servers[0].tools[0].when[0]: exactly one of equals, in and matches is required\n  hint: make a clause of each\nf.yaml:1:89: mcp.servers[0].tools[0].when[1]: exactly one of equals, in and matches is required\n  hint: make a clause of each\nf.yaml:1:102: mcp.servers[0].tools[0].when[2]: exactly one of equals, in and matches is required\n  hint: make a clause of each\nf.yaml:1:135: mcp.servers[0].tools[0].when[3]: exactly one of equals, in and matches is required\n  hint: make a clause of each\nf.yaml:1:178: mcp.servers[0].tools[0].when[4].equals: not a text, a number or a boolean: a list\nf.yaml:1:204: mcp.servers[0].tools[0].when[5].equals: not a text, a number or a boolean: a block of keys\nf.yaml:1:261: mcp.servers[0].tools[0].when[7].in[1]: not a text, a number or a boolean: a list\nf.yaml:1:295: mcp.servers[0].tools[0].when[8].matches: not a regular expression: \"(\"\n  hint: backreferences and lookaround are not supported\nf.yaml:1:317: mcp.servers[0].tools[0].when[9].in: expected a list, found 1\n  hint: put it into brackets: [1]",
        ),
        (
            "mcp: { error: { code: x } }\n",
            "f.yaml:1:23: mcp.error.code: expected a whole number, found \"x\"",
        ),
    ]);
}

#[test]
fn mcp_gateway() {
    check(&[
        (
            "mcp_gateway: { routes: [{}] }\n",
            "f.yaml:1:25: mcp_gateway.routes[0].name: required\n  hint: say what records call the route\nf.yaml:1:25: mcp_gateway.routes[0].rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]\nf.yaml:1:25: mcp_gateway.routes[0].upstream: required\n  hint: name the URL of the server",
        ),
        (
            "mcp_gateway: { routes: [{ name: a, rules: [{ host: a.example }], upstream: 'ftp://a.example' }, { name: a, rules: [{ host: a.example }], upstream: 'https://a.example/#x' }, { name: b, rules: [{ host: a.example }], upstream: 'https:///x' }] }\n",
            "f.yaml:1:76: mcp_gateway.routes[0].upstream: a URL of another scheme than belongs here\n  hint: write https://HOST/PATH\nf.yaml:1:105: mcp_gateway.routes[1].name: an earlier route has this name: \"a\"\n  hint: take another name\nf.yaml:1:148: mcp_gateway.routes[1].upstream: a URL of a service has no fragment\n  hint: write https://HOST/PATH\nf.yaml:1:225: mcp_gateway.routes[2].upstream: not a URL\n  hint: write https://HOST/PATH",
        ),
        (
            "mcp_gateway: { routes: [{ name: a, rules: [{ host: a.example }], upstream: 'https://a.example', credentials: [{}, { source: { type: env, var: A }, inject: {} }, { source: { type: env, var: A }, inject: { header: x, query_param: y } }, { source: { type: env, var: A }, inject: { header: x, formatter: '{{' } }] }] }\n",
            "f.yaml:1:111: mcp_gateway.routes[0].credentials[0].source: required\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:1:111: mcp_gateway.routes[0].credentials[0].inject: required\n  hint: write inject: { header: Authorization }\nf.yaml:1:148: mcp_gateway.routes[0].credentials[1].inject: inject requires \"header\" or \"query_param\"\n  hint: write header: Authorization\nf.yaml:1:195: mcp_gateway.routes[0].credentials[2].inject: header and query_param are mutually exclusive\n  hint: make two entries of it\nf.yaml:1:301: mcp_gateway.routes[0].credentials[3].inject.formatter: `{{` without its `}}` in a template: \"{{\"\n  hint: write `Bearer {{ .Value }}` or `Basic {{ base64 \"user:\" .Value }}`",
        ),
    ]);
}

#[test]
fn postgres() {
    check(&[
        (
            "postgres: { listen: '' , client: {}, upstreams: [] }\n",
            "f.yaml:1:21: postgres.listen: required\n  hint: name the address that clients connect to, such as :5432\nf.yaml:1:26: postgres.client.user: required\n  hint: say the user that clients send\nf.yaml:1:26: postgres.client.password_env: required\n  hint: say the environment variable with the password\nf.yaml:1:38: postgres.upstreams: at least one upstream is required\n  hint: write upstreams: [{ database: …, dsn: … }]",
        ),
        (
            "postgres: { listen: ':5432', client: { user: a, password_env: 'A=B' }, upstreams: [{}, { database: d, dsn: { type: env, var: A } }, { database: d, dsn: { type: env, var: A } }] }\n",
            "f.yaml:1:63: postgres.client.password_env: not the name of an environment variable\n  hint: write the name alone, such as API_KEY\nf.yaml:1:84: postgres.upstreams[0].database: required\n  hint: say the name that clients ask for\nf.yaml:1:84: postgres.upstreams[0].dsn: required\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:1:145: postgres.upstreams[2].database: an earlier database has this name: \"d\"\n  hint: take another name",
        ),
        (
            "postgres: { listen: ':5432', client: { user: a, password_env: PW }, upstreams: [{ database: d, dsn: { type: env, var: A }, settings: [{}, { name: a.b.c }, { name: 1x }, { name: Role }, { name: session_authorization }, { name: app.a }, { name: APP.A }] }] }\n",
            "f.yaml:1:135: postgres.upstreams[0].settings[0].name: required\n  hint: say the setting, such as app.tenant\nf.yaml:1:147: postgres.upstreams[0].settings[1].name: not the name of a setting: \"a.b.c\"\n  hint: write name or class.name, of ASCII letters, digits and `_`\nf.yaml:1:164: postgres.upstreams[0].settings[2].name: not the name of a setting: \"1x\"\n  hint: write name or class.name, of ASCII letters, digits and `_`\nf.yaml:1:178: postgres.upstreams[0].settings[3].name: this setting is not for the file: \"Role\"\n  hint: give the upstream a `role`\nf.yaml:1:194: postgres.upstreams[0].settings[4].name: this setting is not for the file: \"session_authorization\"\n  hint: give the upstream a `role`\nf.yaml:1:244: postgres.upstreams[0].settings[6].name: an earlier setting has this name: \"APP.A\"\n  hint: take another name",
        ),
    ]);
}

#[test]
fn sources() {
    let cases = [
        (
            "{ type: aws_sm }",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.secret_id: aws_sm source requires \"secret_id\" field",
        ),
        (
            "{ type: aws_ssm }",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.name: aws_ssm source requires \"name\" field",
        ),
        (
            "{ type: 1password }",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.secret_ref: 1password source requires \"secret_ref\" field",
        ),
        (
            "{ type: 1password, secret_ref: vault/item }",
            "f.yaml:4:56: transforms[0].config.secrets[0].source.secret_ref: a 1Password reference begins with op://: \"vault/item\"\n  hint: write op://vault/item/field",
        ),
        (
            "{ type: 1password_connect, secret_ref: op://vault/item }",
            "f.yaml:4:64: transforms[0].config.secrets[0].source.secret_ref: a reference for Connect has three or four parts, none of them empty: \"op://vault/item\"\n  hint: write op://vault/item/field or op://vault/item/section/field",
        ),
        (
            "{ type: 1password_connect, secret_ref: op://vault//field }",
            "f.yaml:4:64: transforms[0].config.secrets[0].source.secret_ref: a reference for Connect has three or four parts, none of them empty: \"op://vault//field\"\n  hint: write op://vault/item/field or op://vault/item/section/field",
        ),
        (
            "{ type: 1password_connect, secret_ref: op://a/b/c/d/e }",
            "f.yaml:4:64: transforms[0].config.secrets[0].source.secret_ref: a reference for Connect has three or four parts, none of them empty: \"op://a/b/c/d/e\"\n  hint: write op://vault/item/field or op://vault/item/section/field",
        ),
        (
            "{ type: vault_kv }",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.mount: vault_kv source requires \"mount\" field\nf.yaml:4:17: transforms[0].config.secrets[0].source.path: vault_kv source requires \"path\" field",
        ),
        (
            "{ type: vault_kv, mount: kv, path: a, kv_version: 3 }",
            "f.yaml:4:75: transforms[0].config.secrets[0].source.kv_version: kv_version must be 1 or 2, got 3",
        ),
        (
            "{ type: control_plane }",
            "f.yaml:4:17: transforms[0].config.secrets[0].source.value: control_plane source requires \"value\" field",
        ),
        (
            "{ type: control_plane, value: a-value-of-it, ttl: 1m }",
            "f.yaml:4:75: transforms[0].config.secrets[0].source.ttl: a source of type control_plane takes no \"ttl\"\n  hint: valid here: type, json_key, value, id",
        ),
        (
            "{ type: token_broker, credential_id: a }",
            "f.yaml:4:33: transforms[0].config.secrets[0].source.type: iron-proxy itself no longer has the source `token_broker`\n  hint: valid here: env, file, aws_sm, aws_ssm, 1password, 1password_connect, vault_kv, control_plane",
        ),
        (
            "{ type: aws_sm, secret_id: a, name: b, ttl: 5, failure_ttl: -1s }",
            "f.yaml:4:61: transforms[0].config.secrets[0].source.name: a source of type aws_sm takes no \"name\"\n  hint: valid here: type, json_key, secret_id, region, ttl, failure_ttl\nf.yaml:4:69: transforms[0].config.secrets[0].source.ttl: not a duration: 5\n  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m\nf.yaml:4:85: transforms[0].config.secrets[0].source.failure_ttl: cannot be negative: \"-1s\"",
        ),
        (
            "{ type: aws_ssm, name: a, with_decryption: maybe }",
            "f.yaml:4:68: transforms[0].config.secrets[0].source.with_decryption: expected true or false, found \"maybe\"",
        ),
    ];
    for (source, expected) in cases {
        let text = format!(
            "transforms:\n- name: secrets\n  config:\n    secrets: [{{ source: {source}, replace: {{ proxy_value: x }}, rules: [{{ host: a.example }}] }}]\n"
        );
        assert_eq!(report(&text), expected, "for the source\n{source}");
    }
}
