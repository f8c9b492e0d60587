//! One bad `config` of every kind for each of iron-proxy's transforms, and the words that its author gets to read.

mod report;

use report::report;

/// A `config` on line 3, column 3 onwards.
fn check(name: &str, cases: &[(&str, &str)]) {
    for (config, expected) in cases {
        let text = format!("transforms:\n- name: {name}\n  config: {config}\n");
        assert_eq!(report(&text), *expected, "for the {name}\n{config}");
    }
}

#[test]
fn gcp_auth() {
    check(
        "gcp_auth",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config: exactly one of keyfile_path, keyfile and credentials_provider is required\nf.yaml:3:3: transforms[0].config.scopes: at least one scope is required\n  hint: write scopes: [https://www.googleapis.com/auth/cloud-platform]\nf.yaml:3:3: warning: transforms[0].config.rules: no rules, so every allowed host receives a token of Google's\n  hint: say where it may go: rules: [{ host: \"*.googleapis.com\" }]",
            ),
            (
                "{ keyfile_path: k.json, keyfile: { type: env, var: A }, scopes: [s], rules: [{ host: a.example }] }",
                "f.yaml:3:3: transforms[0].config: exactly one of keyfile_path, keyfile and credentials_provider is required",
            ),
            (
                "{ keyfile_path: k.json, credentials_provider: { type: workload_identity }, scopes: [s], rules: [{ host: a.example }] }",
                "f.yaml:3:3: transforms[0].config: exactly one of keyfile_path, keyfile and credentials_provider is required",
            ),
            (
                "{ credentials_provider: {}, scopes: [s], rules: [{ host: a.example }] }",
                "f.yaml:3:13: transforms[0].config.credentials_provider.type: required\n  hint: valid here: workload_identity",
            ),
            (
                "{ credentials_provider: { type: metadata }, scopes: [s], rules: [{ host: a.example }] }",
                "f.yaml:3:43: transforms[0].config.credentials_provider.type: unknown credentials provider: \"metadata\"\n  hint: valid here: workload_identity",
            ),
            (
                "{ credentials_provider: { type: workload_identity }, subject: a@b.example, scopes: [s], rules: [{ host: a.example }] }",
                "f.yaml:3:73: transforms[0].config.subject: only a service account with a key file stands in for others\n  hint: leave the subject out, or give a keyfile",
            ),
            (
                "{ keyfile: { type: env }, scopes: [s], rules: [{ host: a.example }] }",
                "f.yaml:3:13: transforms[0].config.keyfile.var: env source requires \"var\" field",
            ),
            (
                "{ keyfile_path: k.json, scopes: [], rules: [{ host: a.example }] }",
                "f.yaml:3:35: transforms[0].config.scopes: at least one scope is required\n  hint: write scopes: [https://www.googleapis.com/auth/cloud-platform]",
            ),
            (
                "{ keyfile_path: k.json, scopes: [s] }",
                "f.yaml:3:3: warning: transforms[0].config.rules: no rules, so every allowed host receives a token of Google's\n  hint: say where it may go: rules: [{ host: \"*.googleapis.com\" }]",
            ),
            ("{ keyfile_path: k.json, scopes: [s], subject: a@b.example, rules: [{ host: a.example }] }", ""),
        ],
    );
}

#[test]
fn gcp_id_token() {
    check(
        "gcp_id_token",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config: exactly one of keyfile_path and keyfile is required\nf.yaml:3:3: transforms[0].config.audience: required\n  hint: say whom the token is meant for\nf.yaml:3:3: transforms[0].config.rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ keyfile_path: k.json, keyfile: { type: env, var: A }, audience: x, rules: [{ host: a.example }] }",
                "f.yaml:3:3: transforms[0].config: exactly one of keyfile_path and keyfile is required",
            ),
            (
                "{ keyfile_path: k.json, audience: x, header: cookie, rules: [{ host: a.example }] }",
                "f.yaml:3:56: transforms[0].config.header: unknown header: \"cookie\"\n  hint: valid here: authorization, x-serverless-authorization",
            ),
            (
                "{ credentials_provider: { type: workload_identity }, audience: x, rules: [{ host: a.example }] }",
                "f.yaml:3:13: transforms[0].config.credentials_provider: unknown key\n  hint: valid here: keyfile_path, keyfile, audience, header, rules",
            ),
            (
                "{ keyfile: { type: env, var: A }, audience: x, header: x-serverless-authorization, rules: [{ host: a.example }] }",
                "",
            ),
        ],
    );
}

#[test]
fn oauth_token() {
    check(
        "oauth_token",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config.tokens: at least one token is required\n  hint: write tokens: [{ grant: …, token_endpoint: … }]",
            ),
            (
                "{ tokens: [] }",
                "f.yaml:3:13: transforms[0].config.tokens: at least one token is required\n  hint: write tokens: [{ grant: …, token_endpoint: … }]",
            ),
            (
                "{ tokens: [{}] }",
                "f.yaml:3:22: transforms[0].config.tokens[0].token_endpoint: required\n  hint: name the URL that gives out tokens\nf.yaml:3:22: transforms[0].config.tokens[0].grant: required\n  hint: valid here: refresh_token, client_credentials, password, jwt_bearer\nf.yaml:3:22: transforms[0].config.tokens[0].rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ tokens: [{ grant: implicit, token_endpoint: 'https://i.example/token', rules: [{ host: a.example }] }] }",
                "f.yaml:3:31: transforms[0].config.tokens[0].grant: unknown grant: \"implicit\"\n  hint: valid here: refresh_token, client_credentials, password, jwt_bearer",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: /token, client_id: { type: env, var: A }, client_secret: { type: env, var: A }, rules: [{ host: a.example }] }] }",
                "f.yaml:3:67: transforms[0].config.tokens[0].token_endpoint: a URL needs its scheme\n  hint: write https://HOST/PATH",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https:///token', client_id: { type: env, var: A }, client_secret: { type: env, var: A }, rules: [{ host: a.example }] }] }",
                "f.yaml:3:67: transforms[0].config.tokens[0].token_endpoint: not a URL\n  hint: write https://HOST/PATH",
            ),
            (
                "{ tokens: [{ grant: refresh_token, token_endpoint: 'https://i.example/token', rules: [{ host: a.example }] }] }",
                "f.yaml:3:22: transforms[0].config.tokens[0].refresh_token: the grant refresh_token requires \"refresh_token\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:3:22: transforms[0].config.tokens[0].client_id: the grant refresh_token requires \"client_id\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https://i.example/token', client_id: { type: env, var: A }, rules: [{ host: a.example }] }] }",
                "f.yaml:3:22: transforms[0].config.tokens[0].client_secret: the grant client_credentials requires \"client_secret\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }",
            ),
            (
                "{ tokens: [{ grant: password, token_endpoint: 'https://i.example/token', rules: [{ host: a.example }] }] }",
                "f.yaml:3:22: transforms[0].config.tokens[0].username: the grant password requires \"username\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:3:22: transforms[0].config.tokens[0].password: the grant password requires \"password\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:3:22: transforms[0].config.tokens[0].client_id: the grant password requires \"client_id\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }",
            ),
            (
                "{ tokens: [{ grant: jwt_bearer, token_endpoint: 'https://i.example/token', rules: [{ host: a.example }] }] }",
                "f.yaml:3:22: transforms[0].config.tokens[0].issuer: the grant jwt_bearer requires \"issuer\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:3:22: transforms[0].config.tokens[0].subject: the grant jwt_bearer requires \"subject\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:3:22: transforms[0].config.tokens[0].private_key: the grant jwt_bearer requires \"private_key\"\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:3:22: transforms[0].config.tokens[0].audience: required\n  hint: say whom the assertion is meant for",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https://i.example/token', client_id: { type: env, var: A }, client_secret: { type: env, var: A }, username: { type: env, var: A }, audience: x, rules: [{ host: a.example }] }] }",
                "f.yaml:3:166: transforms[0].config.tokens[0].username: the grant client_credentials takes no \"username\"\n  hint: valid here: client_id, client_secret\nf.yaml:3:209: transforms[0].config.tokens[0].audience: the grant client_credentials takes no \"audience\"",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https://i.example/token', client_id: { type: env, var: A }, client_secret: { type: env, var: A }, header: Host, token_endpoint_headers: { '': { type: env, var: A }, X-Key: { type: env } }, rules: [{ host: a.example }] }] }",
                "f.yaml:3:174: transforms[0].config.tokens[0].header: the proxy itself decides about this header: \"Host\"\nf.yaml:3:206: transforms[0].config.tokens[0].token_endpoint_headers.\"\": not a header name: \"\"\n  hint: write a name such as Authorization\nf.yaml:3:233: transforms[0].config.tokens[0].token_endpoint_headers.X-Key.var: env source requires \"var\" field",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https://i.example/token', client_id: { type: env, var: A }, client_secret: { type: env, var: A }, token_endpoint_headers: [X-Key], rules: [{ host: a.example }] }] }",
                "f.yaml:3:190: transforms[0].config.tokens[0].token_endpoint_headers: expected a block of keys, found a list",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https://i.example/token', client_id: { type: env, var: A }, client_secret: { type: env, var: A } }] }",
                "f.yaml:3:22: transforms[0].config.tokens[0].rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https://i.example/token', client_id: { type: env, var: A }, client_secret: { type: env, var: A }, require: true, on_unavailable: pass, rules: [{ host: a.example }] }] }",
                "f.yaml:3:197: transforms[0].config.tokens[0].on_unavailable: `require: true` and `on_unavailable: pass` contradict each other\n  hint: keep one",
            ),
            (
                "{ tokens: [{ grant: client_credentials, token_endpoint: 'https://i.example/token', client_id: { type: env, var: A }, client_secret: { type: env, var: A }, rules: [{ paths: [v1] }] }] }",
                "f.yaml:3:174: transforms[0].config.tokens[0].rules[0]: host or cidr is required\n  hint: write host: api.example, or cidr: 10.0.0.0/8\nf.yaml:3:184: transforms[0].config.tokens[0].rules[0].paths[0]: a path begins with `/`: \"v1\"\n  hint: write \"/*\" for every path",
            ),
            (
                "{ tokens: [{ grant: jwt_bearer, token_endpoint: 'https://i.example/token', issuer: { type: env, var: A }, subject: { type: env, var: A }, private_key: { type: env, var: A }, private_key_id: { type: env, var: A }, audience: x, rules: [{ host: a.example }] }] }",
                "",
            ),
        ],
    );
}

#[test]
fn aws_auth() {
    check(
        "aws_auth",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config: access_key_id and secret_access_key, or credentials_provider, are required\n  hint: write credentials_provider: { type: workload_identity } for the machine's own\nf.yaml:3:3: transforms[0].config.rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ access_key_id: { type: env, var: A }, secret_access_key: { type: env, var: A }, credentials_provider: { type: workload_identity }, rules: [{ host: a.example }] }",
                "f.yaml:3:3: transforms[0].config: access keys and credentials_provider are mutually exclusive\n  hint: keep one of them",
            ),
            (
                "{ access_key_id: { type: env, var: A }, rules: [{ host: a.example }] }",
                "f.yaml:3:3: transforms[0].config.secret_access_key: required\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }",
            ),
            (
                "{ session_token: { type: env, var: A }, rules: [{ host: a.example }] }",
                "f.yaml:3:3: transforms[0].config.access_key_id: required\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }\nf.yaml:3:3: transforms[0].config.secret_access_key: required\n  hint: write { type: env, var: NAME } or { type: file, path: FILE }",
            ),
            (
                "{ credentials_provider: {}, rules: [{ host: a.example }] }",
                "f.yaml:3:13: transforms[0].config.credentials_provider.type: required\n  hint: valid here: workload_identity",
            ),
            (
                "{ credentials_provider: { type: instance }, rules: [{ host: a.example }] }",
                "f.yaml:3:43: transforms[0].config.credentials_provider.type: unknown credentials provider: \"instance\"\n  hint: valid here: workload_identity",
            ),
            (
                "{ credentials_provider: { type: workload_identity, region: eu-west-1 } }",
                "f.yaml:3:3: transforms[0].config.rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ access_key_id: { type: env, var: A }, secret_access_key: { type: env, var: A }, session_token: { type: env, var: A }, rules: [{ host: a.example }] }",
                "",
            ),
        ],
    );
}

#[test]
fn hmac_sign() {
    check(
        "hmac_sign",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config.signature.message: required\n  hint: say what is signed, such as {{ .Body }}\nf.yaml:3:3: transforms[0].config.credentials: a credential \"secret\" is required\n  hint: it is the key that signs\nf.yaml:3:3: transforms[0].config.headers: at least one header is required\n  hint: write headers: [{ name: …, value: … }]\nf.yaml:3:3: transforms[0].config.rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ timestamp: { format: iso }, signature: { algorithm: md5, key_encoding: der, output_encoding: raw, message: x }, credentials: { secret: { type: env, var: A } }, headers: [{ name: X-Signature, value: '{{ .Signature }}' }], rules: [{ host: a.example }] }",
                "f.yaml:3:34: transforms[0].config.timestamp.format: unknown timestamp format: \"iso\"\n  hint: valid here: unix_seconds, unix_millis, unix_nanos, rfc3339\nf.yaml:3:65: transforms[0].config.signature.algorithm: unknown algorithm: \"md5\"\n  hint: valid here: sha256, sha512, sha1\nf.yaml:3:84: transforms[0].config.signature.key_encoding: unknown key encoding: \"der\"\n  hint: valid here: raw, base64, hex\nf.yaml:3:106: transforms[0].config.signature.output_encoding: unknown output encoding: \"raw\"\n  hint: valid here: base64, hex",
            ),
            (
                "{ signature: {}, credentials: { secret: { type: env, var: A } }, headers: [{ name: X-Signature, value: '{{ .Signature }}' }], rules: [{ host: a.example }] }",
                "f.yaml:3:13: transforms[0].config.signature.message: required\n  hint: say what is signed, such as {{ .Body }}",
            ),
            (
                "{ signature: { message: '{{ .Body' }, credentials: { secret: { type: env, var: A } }, headers: [{ name: X-Signature, value: '{{ .Signature }}' }], rules: [{ host: a.example }] }",
                "f.yaml:3:35: transforms[0].config.signature.message: `{{` without its `}}` in a template: \"{{ .Body\"",
            ),
            (
                "{ signature: { message: '{{ .Signature }}' }, credentials: { secret: { type: env, var: A } }, headers: [{ name: X-Signature, value: '{{ .Signature }}' }], rules: [{ host: a.example }] }",
                "f.yaml:3:35: transforms[0].config.signature.message: not a template that this proxy reads: \"{{ .Signature }}\"\n  hint: valid here: {{ .Timestamp }}, {{ .Method }}, {{ .Path }}, {{ .PathWithQuery }}, {{ .Query }}, {{ .Host }}, {{ .Body }}",
            ),
            (
                "{ signature: { message: '{{ .Credentials.secret }}' }, credentials: { secret: { type: env, var: A } }, headers: [{ name: X-Signature, value: '{{ .Signature }}' }], rules: [{ host: a.example }] }",
                "f.yaml:3:35: transforms[0].config.signature.message: not a template that this proxy reads: \"{{ .Credentials.secret }}\"\n  hint: valid here: {{ .Timestamp }}, {{ .Method }}, {{ .Path }}, {{ .PathWithQuery }}, {{ .Query }}, {{ .Host }}, {{ .Body }}",
            ),
            (
                "{ signature: { message: '{{ .Timestamp }}{{ .Body }}' }, credentials: { secret: { type: env, var: A } }, headers: [], rules: [{ host: a.example }] }",
                "f.yaml:3:116: transforms[0].config.headers: at least one header is required\n  hint: write headers: [{ name: …, value: … }]",
            ),
            (
                "{ signature: { message: '{{ .Timestamp }}{{ .Body }}' }, credentials: { secret: { type: env, var: A } }, headers: [{}, { name: 'a b', value: x }, { name: X-A, value: '{{ .Body }}' }, { name: X-B, value: '{{ .Credentials.key }}' }], rules: [{ host: a.example }] }",
                "f.yaml:3:126: transforms[0].config.headers[0].name: required\n  hint: say the header that is set\nf.yaml:3:126: transforms[0].config.headers[0].value: required\n  hint: say its value, such as {{ .Signature }}\nf.yaml:3:138: transforms[0].config.headers[1].name: not a header name: \"a b\"\n  hint: write a name such as Authorization\nf.yaml:3:177: transforms[0].config.headers[2].value: not a template that this proxy reads: \"{{ .Body }}\"\n  hint: valid here: {{ .Timestamp }}, {{ .Signature }}, {{ .Credentials.NAME }}\nf.yaml:3:214: transforms[0].config.headers[3].value: there is no credential \"key\"\n  hint: name it under \"credentials\"",
            ),
            (
                "{ signature: { message: '{{ .Timestamp }}{{ .Body }}' }, credentials: { key: { type: env, var: A } }, headers: [{ name: X-Signature, value: '{{ .Signature }}' }], rules: [{ host: a.example }] }",
                "f.yaml:3:68: transforms[0].config.credentials: a credential \"secret\" is required\n  hint: it is the key that signs",
            ),
            (
                "{ signature: { message: '{{ .Timestamp }}{{ .Body }}' }, credentials: { secret: { type: env, var: A } }, headers: [{ name: X-Signature, value: '{{ .Signature }}' }] }",
                "f.yaml:3:3: transforms[0].config.rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ signature: { message: '{{ .Timestamp }}{{ .Body }}' }, credentials: { secret: { type: env, var: A }, key: { type: env, var: A } }, headers: [{ name: X-Key, value: '{{ .Credentials.key }}:{{.Timestamp}}' }], rules: [{ host: a.example }] }",
                "",
            ),
        ],
    );
}

#[test]
fn annotate() {
    check(
        "annotate",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config.annotations: at least one annotation is required\n  hint: write annotations: [{ rules: [{ host: … }], headers: [X-Session] }]",
            ),
            (
                "{ annotations: [] }",
                "f.yaml:3:13: transforms[0].config.annotations: at least one annotation is required\n  hint: write annotations: [{ rules: [{ host: … }], headers: [X-Session] }]",
            ),
            (
                "{ annotations: [{}] }",
                "f.yaml:3:27: transforms[0].config.annotations[0].rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]\nf.yaml:3:27: transforms[0].config.annotations[0].headers: at least one header is required",
            ),
            (
                "{ annotations: [{ rules: [{ host: a.example }], headers: [] }] }",
                "f.yaml:3:59: transforms[0].config.annotations[0].headers: at least one header is required",
            ),
            (
                "{ annotations: [{ rules: [{ host: a.example }], headers: ['a b', X-Session] }] }",
                "f.yaml:3:69: transforms[0].config.annotations[0].headers[0]: not a header name: \"a b\"\n  hint: write a name such as X-Request-Id",
            ),
            (
                "{ annotations: [{ rules: [{ host: a.example, cidr: 10.0.0.0/8 }], headers: [X-Session] }] }",
                "f.yaml:3:37: transforms[0].config.annotations[0].rules[0]: host and cidr are mutually exclusive\n  hint: make two rules of it",
            ),
        ],
    );
}

#[test]
fn header_allowlist() {
    check(
        "header_allowlist",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config.headers: at least one header is required\n  hint: name the headers that stay",
            ),
            (
                "{ headers: [] }",
                "f.yaml:3:13: transforms[0].config.headers: at least one header is required\n  hint: name the headers that stay",
            ),
            (
                "{ headers: ['/(/', 'a b'] }",
                "f.yaml:3:23: transforms[0].config.headers[0]: not a regular expression: \"/(/\"\n  hint: backreferences and lookaround are not supported\nf.yaml:3:30: transforms[0].config.headers[1]: not a header name: \"a b\"\n  hint: write a name, or a regular expression between slashes",
            ),
            (
                "{ headers: [Accept, '/^x-/'], rules: [{}] }",
                "f.yaml:3:49: transforms[0].config.rules[0]: host or cidr is required\n  hint: write host: api.example, or cidr: 10.0.0.0/8",
            ),
            ("{ headers: [Accept] }", ""),
        ],
    );
}

#[test]
fn body_capture() {
    check(
        "body_capture",
        &[
            (
                "{}",
                "f.yaml:3:3: warning: transforms[0].config.rules: no rules, so no body is recorded\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ max_request_body_bytes: -1, rules: [{ host: a.example }] }",
                "f.yaml:3:37: transforms[0].config.max_request_body_bytes: expected a whole number, not negative, found -1",
            ),
            (
                "{ rules: [{ host: a.example, paths: [x] }] }",
                "f.yaml:3:48: transforms[0].config.rules[0].paths[0]: a path begins with `/`: \"x\"\n  hint: write \"/*\" for every path",
            ),
            ("{ rules: [{ host: a.example }] }", ""),
        ],
    );
}

#[test]
fn grpc() {
    check(
        "grpc",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config.name: required\n  hint: say what records call the service\nf.yaml:3:3: transforms[0].config.target: required\n  hint: say the service, host:port",
            ),
            (
                "{ name: a, target: 'a.example:50051', tls: { enabled: true, cert: a.pem } }",
                "f.yaml:3:49: transforms[0].config.tls.key: required with the other of cert and key",
            ),
            (
                "{ name: a, target: 'a.example:50051', tls: { key: a.pem }, rules: [{}] }",
                "f.yaml:3:49: transforms[0].config.tls.cert: required with the other of cert and key\nf.yaml:3:78: transforms[0].config.rules[0]: host or cidr is required\n  hint: write host: api.example, or cidr: 10.0.0.0/8",
            ),
            ("{ name: a, target: 'a.example:50051' }", ""),
        ],
    );
}

#[test]
fn judge() {
    check(
        "judge",
        &[
            (
                "{}",
                "f.yaml:3:3: transforms[0].config.name: required\n  hint: say what records call it\nf.yaml:3:3: transforms[0].config.prompt: required\n  hint: say what the model is told\nf.yaml:3:3: transforms[0].config.rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]\nf.yaml:3:3: transforms[0].config.provider.type: required\n  hint: valid here: anthropic, openai\nf.yaml:3:3: transforms[0].config.provider.model: required\n  hint: say the vendor's name for the model\nf.yaml:3:3: transforms[0].config.provider.api_key_env: required\n  hint: say the environment variable with the key",
            ),
            (
                "{ name: a, prompt: p, provider: { type: anthropic, model: m, api_key_env: KEY }, fallback: allow, rules: [{ host: a.example }] }",
                "f.yaml:3:102: transforms[0].config.fallback: unknown fallback: \"allow\"\n  hint: valid here: deny, skip",
            ),
            (
                "{ name: a, prompt: p, provider: { type: google, model: m, api_key_env: KEY }, rules: [{ host: a.example }] }",
                "f.yaml:3:51: transforms[0].config.provider.type: unknown provider: \"google\"\n  hint: valid here: anthropic, openai",
            ),
            (
                "{ name: a, prompt: p, provider: { type: openai, model: '', api_key_env: 'A=B', base_url: 'ftp://a.example' }, rules: [{ host: a.example }] }",
                "f.yaml:3:66: transforms[0].config.provider.model: required\n  hint: say the vendor's name for the model\nf.yaml:3:83: transforms[0].config.provider.api_key_env: not the name of an environment variable\n  hint: write the name alone, such as API_KEY\nf.yaml:3:100: transforms[0].config.provider.base_url: a URL of another scheme than belongs here\n  hint: write https://HOST/PATH",
            ),
            (
                "{ name: a, prompt: p, provider: { type: anthropic, model: m, api_key_env: KEY }, timeout: soon, max_concurrent: -1, circuit_breaker: { consecutive_failures: x, cooldown: -1s }, rules: [{ host: a.example }] }",
                "f.yaml:3:101: transforms[0].config.timeout: not a duration: \"soon\"\n  hint: write numbers with units, such as 300ms, 30s, 5m or 1h30m\nf.yaml:3:123: transforms[0].config.max_concurrent: expected a whole number from 0 to 4294967295, found -1\nf.yaml:3:168: transforms[0].config.circuit_breaker.consecutive_failures: expected a whole number from 0 to 4294967295, found \"x\"\nf.yaml:3:181: transforms[0].config.circuit_breaker.cooldown: cannot be negative: \"-1s\"",
            ),
            (
                "{ name: a, prompt: p, provider: { type: anthropic, model: m, api_key_env: KEY } }",
                "f.yaml:3:3: transforms[0].config.rules: at least one rule is required\n  hint: say which requests are meant: rules: [{ host: … }]",
            ),
            (
                "{ name: a, prompt: p, provider: { type: anthropic, model: m, api_key_env: KEY }, timeout: 8000000000, rules: [{ host: a.example }] }",
                "",
            ),
        ],
    );
}
