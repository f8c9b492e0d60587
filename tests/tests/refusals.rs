//! What is refused, with which words, and that nothing of it reaches anybody.

use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::tunnel::{self, Hello};
use keyferry_tests::within;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

async fn allowing(domains: &[&str]) -> (Origin, Proxy) {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(domains).route(&origin).name("other.example").start().await;
    (origin, proxy)
}

fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Reasons in the audit log, in order; null for what was allowed.
async fn reasons(proxy: Proxy) -> Value {
    proxy.stop().await.records().iter().map(|record| record["audit"]["reason"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_who_why_and_what_to_do_next() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    let port = origin.port();

    let (_, answer) = tunnel::ask(&proxy, &format!("other.example:{port}")).await;

    assert_eq!((answer.status, answer.reason.as_str()), (403, "host_not_allowed"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status = answer.header("proxy-status").expect("Proxy-Status, RFC 9209");
    assert!(status.starts_with("keyferry") && status.contains("host_not_allowed"), "{status}");
    let body = answer.json();
    let mut keys: Vec<_> = body.as_object().expect("an object").keys().collect();
    keys.sort();
    assert_eq!(keys, ["error", "hint", "message", "reason", "request_id"]);
    assert!(body["message"].as_str().expect("words").contains("other.example"), "{body:#}");
    assert_eq!(proxy.stop().await.records()[0]["audit"]["request_id"], body["request_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_a_client_that_is_refused_in_the_middle_of_its_body_hears_why() {
    let origin = Origin::start("api.example").await;
    let policy =
        "transforms: [{ name: allowlist, config: { rules: [{ host: api.example, methods: [GET] }] } }]\n";
    let proxy = Proxy::builder(KEYFERRY).policy(policy).route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);
    let url = origin.url("/");
    for size in [10, 40_000] {
        let body = sandbox.write("body", "x".repeat(size));
        let data = format!("@{}", body.display());
        for flag in ["--http1.1", "--http2"] {
            // Often, for whether the client has sent all of it by then is a matter of luck.
            for _ in 0..10 {
                let answer = sandbox.fetch([flag, "--data-binary", &data, &url]).await;
                assert_eq!((answer.status, answer.reason().as_str()), (403, "method_not_allowed"));
            }
        }
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(proxy.stop().await.records().len(), 40);
}

fn rules(rules: &str) -> ProxyBuilder {
    Proxy::builder(KEYFERRY).policy(&format!(
        "transforms: [{{ name: allowlist, config: {{ domains: [\"*.example\"], rules: [{rules}] }} }}]\n"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn t17_a_deny_rule_wins_in_any_order() {
    let origin = Origin::start("api.example").await;
    let allow = "{ host: api.example, methods: [GET] }";
    let deny = "{ host: api.example, paths: [\"/v1/admin/*\"], action: deny }";
    for (order, name) in
        [([allow, deny].join(", "), "allowlist.rules[1]"), ([deny, allow].join(", "), "allowlist.rules[0]")]
    {
        let proxy = rules(&order).route(&origin).start().await;
        let sandbox = Sandbox::of(&proxy);
        let before = origin.received().len();
        for path in ["/v1/admin/users", "/v1/%61dmin/users", "//v1//admin/users", "/v1/admin"] {
            let answer = sandbox.fetch(["--path-as-is", &origin.url(path)]).await;
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
        }
        // Two readers may disagree about these.
        for path in ["/v1/x/../admin/users", "/v1%2Fadmin/users", "/v1/admin;x/users", "/v1\\admin"] {
            let answer = sandbox.fetch(["--path-as-is", &origin.url(path)]).await;
            assert!([400, 403].contains(&answer.status), "{path}: {answer:?}");
        }
        assert_eq!(origin.received().len(), before);
        assert_eq!(sandbox.fetch([origin.url("/v1/users")]).await.status, 200);
        assert_eq!(proxy.stop().await.records()[0]["audit"]["rule"], name);
    }

    let deny = format!("{{ host: api.example, ports: [{}], action: deny }}", origin.port());
    let proxy = rules(&deny).route(&origin).start().await;
    let (_, answer) = tunnel::ask(&proxy, &origin.authority()).await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_paths_are_judged_inside_the_tunnel() {
    let origin = Origin::start("api.example").await;
    let policy = r#"transforms: [{ name: allowlist, config: { rules: [{ host: api.example, methods: [post], paths: ["/v1/*"] }] } }]"#;
    let proxy = Proxy::builder(KEYFERRY).policy(policy).route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    for (method, path, expected) in [
        ("GET", "/v1/x", "method_not_allowed"),
        ("POST", "/v2/x", "path_not_allowed"),
        ("POST", "/v10/x", "path_not_allowed"),
        ("post", "/v1/x", "method_not_allowed"),
    ] {
        let answer = sandbox.fetch(["-X", method, &origin.url(path)]).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, expected), "{method} {path}");
    }
    assert_eq!(origin.connections(), 0);
    for path in ["/v1", "/v1/", "/v1/a/b"] {
        assert_eq!(sandbox.fetch(["-X", "POST", &origin.url(path)]).await.status, 200, "{path}");
    }
}

fn one_secret(keys: &str) -> ProxyBuilder {
    Proxy::builder(KEYFERRY).policy(&format!(
        "transforms:\n  - {{ name: allowlist, config: {{ domains: [api.example] }} }}\n  \
         - name: secrets\n    config:\n      secrets:\n        - source: {{ type: env, var: API_KEY }}\n          \
         rules: [{{ host: api.example }}]\n          {keys}\n"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn t57_a_secret_that_cannot_be_had_rejects_the_request_that_it_would_have_gone_into() {
    let origin = Origin::start("api.example").await;
    let url = origin.url("/");
    let with_placeholder = ["-H", "Authorization: Bearer API_KEY", &url];
    for value in [None, Some("")] {
        let mut proxy = one_secret("replace: { proxy_value: API_KEY }").route(&origin);
        if let Some(empty) = value {
            proxy = proxy.env("API_KEY", empty);
        }
        let proxy = proxy.start().await;
        let sandbox = Sandbox::of(&proxy);

        let answer = sandbox.fetch(with_placeholder).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "secret_unavailable"));
        assert_eq!(origin.received(), []);

        let record = proxy.stop().await.only_record();
        assert_eq!(record["request_transforms"][0]["annotations"]["secret_unavailable"], json!(["API_KEY"]));
        assert_eq!(record["rejected_by"], "secrets");
    }

    // It goes into no other request.
    let proxy = one_secret("replace: { proxy_value: API_KEY }").route(&origin).start().await;
    assert_eq!(Sandbox::of(&proxy).fetch([&url]).await.status, 200);

    let passing = one_secret("replace: { proxy_value: API_KEY }\n          on_unavailable: pass")
        .route(&origin)
        .start()
        .await;
    assert_eq!(Sandbox::of(&passing).fetch(with_placeholder).await.status, 200);
    assert_eq!(origin.received().pop().expect("a request").header("authorization"), Some("Bearer API_KEY"));
    let record = passing.stop().await.only_record();
    assert_eq!(record["request_transforms"][0]["annotations"]["secret_unavailable"], json!(["API_KEY"]));

    let injecting = one_secret("inject: { header: X-Key }").route(&origin).start().await;
    let answer = Sandbox::of(&injecting).fetch([&url]).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "secret_unavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_placeholder_is_looked_for_in_the_inner_requests() {
    let origin = Origin::start("api.example").await;
    let proxy =
        one_secret("replace: { proxy_value: API_KEY, require: true }").env("API_KEY", "real").route(&origin);
    let proxy = proxy.start().await;
    let sandbox = Sandbox::of(&proxy);

    let answer = sandbox.fetch([origin.url("/")]).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "placeholder_missing"));
    assert_eq!(origin.received(), []);
    assert_eq!(sandbox.fetch(["-H", "X-Key: API_KEY", &origin.url("/")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_what_is_neither_tls_nor_http_in_a_tunnel_ends_it() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    for bytes in [
        b"\x00\x01\x02\x03\x04\x05\x06\x07".as_slice(),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\xff\xff\xff",
    ] {
        let mut stream = tunnel::open(&proxy, &origin.authority()).await;
        stream.write_all(bytes).await.expect("send");
        stream.shutdown().await.expect("half-close");
        let mut rest = Vec::new();
        // What comes back, if anything, comes from the proxy and is an end.
        let _ = within("the end of the tunnel", stream.read_to_end(&mut rest)).await;
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
    let records = proxy.stop().await.records();
    assert_eq!(records.len(), 3, "{records:#?}");
    assert!(records.iter().all(|record| record["audit"]["action"] == "reject"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t64_a_client_without_credentials_is_asked_for_them_and_may_try_again_at_once() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY)
        .allow(&["api.example"])
        .auth("sandbox", "secret")
        .route(&origin)
        .start()
        .await;
    let authority = origin.authority();
    let connect =
        |credentials: &str| format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n");

    let mut stream = tunnel::connect(&proxy).await;
    for credentials in
        ["", "Proxy-Authorization: Basic c2FuZGJveDp3cm9uZw==\r\n", "Proxy-Authorization: Bearer secret\r\n"]
    {
        let answer = tunnel::exchange(&mut stream, connect(credentials)).await;
        assert_eq!(
            (answer.status, answer.body.as_slice(), answer.header("content-length")),
            (407, [].as_slice(), Some("0"))
        );
        let challenge = answer.header("proxy-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Basic "), "{challenge}");
        assert_ne!(answer.header("connection"), Some("close"));
        assert_ne!(answer.header("proxy-connection"), Some("close"));
    }
    // "sandbox:secret", on the same connection.
    let right = connect("Proxy-Authorization: basic c2FuZGJveDpzZWNyZXQ=\r\n");
    stream.write_all(right.as_bytes()).await.expect("send");
    let answer =
        within("an answer", keyferry_tests::http1::read_answer_head(&mut stream)).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let mut stream = tunnel::secure(&proxy, stream, Hello::http1("api.example")).await.expect("a handshake");
    assert_eq!(tunnel::exchange(&mut stream, get("/", &authority)).await.status, 200);

    drop(stream);
    let expected = json!(["proxy_auth_required", "proxy_auth_required", "proxy_auth_required", null]);
    assert_eq!(reasons(proxy).await, expected);
}
