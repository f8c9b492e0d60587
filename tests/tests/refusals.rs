//! What is refused, with which words, and that nothing of it reaches anybody.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyferry_tests::http1::Answer;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::tunnel::{self, Hello};
use keyferry_tests::within;
use rustls::AlertDescription;
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

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

fn refusal(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
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

#[tokio::test(flavor = "multi_thread")]
async fn t02_a_host_other_than_the_tunnels() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let (authority, port) = (origin.authority(), origin.port());

    for host in
        [format!("other.example:{port}"), "api.example".to_owned(), format!("api.example:{}", port ^ 1)]
    {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        assert_eq!(
            code(&tunnel::exchange(&mut stream, get("/", &host)).await),
            refusal(421, "destination_mismatch")
        );
    }
    assert_eq!(origin.connections(), 0);

    // The same host in other words.
    for host in [format!("API.Example:{port}"), format!("api.example.:{port}")] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        assert_eq!(tunnel::exchange(&mut stream, get("/", &host)).await.status, 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t02_no_host_or_two() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    let authority = origin.authority();
    for request in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {authority}\r\nHost: {authority}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {authority}\r\nHost: other.example\r\n\r\n"),
    ] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        assert_eq!(tunnel::exchange(&mut stream, &request).await.status, 400, "{request}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_a_server_name_other_than_the_tunnels() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;

    let stream = tunnel::open(&proxy, &origin.authority()).await;
    let error =
        tunnel::secure(&proxy, stream, Hello::http1("other.example")).await.expect_err("no handshake");

    assert_eq!(tunnel::alert(&error), Some(AlertDescription::UnrecognisedName), "{error}");
    assert_eq!(origin.connections(), 0);
    let record = proxy.stop().await.only_record();
    assert_eq!(
        json!([record["audit"]["mode"], record["audit"]["reason"], record["audit"]["sni"]]),
        json!(["tunnel", "destination_mismatch", "other.example"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_a_handshake_without_a_server_name_means_the_tunnels_host() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    let stream = tunnel::open(&proxy, &origin.authority()).await;
    let hello = Hello { sni: false, ..Hello::http1("api.example") };
    let mut stream = tunnel::secure(&proxy, stream, hello).await.expect("a handshake");
    assert_eq!(tunnel::exchange(&mut stream, get("/", &origin.authority())).await.status, 200);
    assert_eq!(proxy.stop().await.only_record()["audit"]["sni"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn t03_an_authority_other_than_the_tunnels_ends_its_stream_and_no_other() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let stream = tunnel::open(&proxy, &origin.authority()).await;
    let stream = tunnel::secure(&proxy, stream, Hello::http2("api.example")).await.expect("a handshake");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut client, connection) = handshake.expect("an HTTP/2 connection");
    tokio::spawn(connection);

    let own = origin.authority();
    let other = format!("other.example:{}", origin.port());
    for (authority, host, status) in
        [(&own, None, 200), (&other, None, 421), (&own, Some(&other), 421), (&own, Some(&own), 200)]
    {
        let mut request = hyper::Request::get(format!("https://{authority}/"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).expect("a request");
        let answer = within("an answer", client.send_request(request))
            .await
            .expect("an answer on a living connection");
        assert_eq!(answer.status(), status, "{authority} {host:?}");
        answer.into_body().collect().await.expect("its body");
    }
    assert_eq!(origin.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_an_absolute_target_inside_a_tunnel_names_the_tunnels_host_and_is_cut_to_its_path() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let authority = origin.authority();

    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let own = get(&format!("https://{authority}/path?q=1"), &authority);
    assert_eq!(tunnel::exchange(&mut stream, own).await.status, 200);
    assert_eq!(origin.only_request().target, "/path?q=1");

    for target in [format!("https://other.example:{}/", origin.port()), format!("http://{authority}/")] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let answer = tunnel::exchange(&mut stream, get(&target, &authority)).await;
        assert_eq!(code(&answer), refusal(421, "destination_mismatch"), "{target}");
    }
    assert_eq!(origin.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_the_second_request_of_a_tunnel_is_judged_like_the_first() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;

    assert_eq!(tunnel::exchange(&mut stream, get("/", &authority)).await.status, 200);
    let other = get("/", &format!("other.example:{}", origin.port()));
    assert_eq!(code(&tunnel::exchange(&mut stream, other).await), refusal(421, "destination_mismatch"));

    assert_eq!(origin.received().len(), 1);
    assert_eq!(reasons(proxy).await, json!([null, "destination_mismatch"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_a_name_has_one_form() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    for spelling in ["API.EXAMPLE", "api.example."] {
        let authority = format!("{spelling}:{}", origin.port());
        let stream = tunnel::open(&proxy, &authority).await;
        let mut stream =
            tunnel::secure(&proxy, stream, Hello::http1("api.example")).await.expect("a handshake");
        assert_eq!(tunnel::exchange(&mut stream, get("/", &authority)).await.status, 200, "{spelling}");
    }
    let records = proxy.stop().await.records();
    assert!(records.iter().all(|record| record["audit"]["host"] == "api.example"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_t10_an_address_in_any_spelling_is_no_way_around_names() {
    let (origin, proxy) = allowing(&["*"]).await;
    let spellings = [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "0.0.0.0",
        "[::]",
    ];
    for host in spellings {
        let (_, answer) = tunnel::ask(&proxy, &format!("{host}:{}", origin.port())).await;
        assert!([400, 403].contains(&answer.status), "{host}: {answer:?}");
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
    assert_eq!(proxy.stop().await.records().len(), spellings.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn t09_a_target_that_is_not_a_host_is_refused_and_recorded() {
    let (origin, proxy) = allowing(&["*"]).await;
    let hosts = [
        "api.example\0.other.example",
        "api.example%2eother",
        "api.example%00.other.example",
        "a b",
        "api.example@other.example",
        "[fe80::1%25eth0]",
        "api..example",
        "",
    ];
    for host in hosts {
        let mut stream = tunnel::connect(&proxy).await;
        let target = format!("{host}:{}", origin.port());
        let answer =
            tunnel::exchange(&mut stream, format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
                .await;
        assert!([400, 403].contains(&answer.status), "{host:?}: {answer:?}");
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
    let records = proxy.stop().await.records();
    assert_eq!(records.len(), hosts.len(), "{records:#?}");
    assert!(records.iter().all(|record| record["audit"]["action"] == "reject"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_a_port_that_no_rule_means() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).name("api.example").start().await;
    for port in [22, 25, 80, 8443, origin.port()] {
        let (_, answer) = tunnel::ask(&proxy, &format!("api.example:{port}")).await;
        // 80 is the port of a scheme that cannot be inside a tunnel.
        assert_eq!(answer.status, if port == 80 { 200 } else { 403 }, "{port}: {answer:?}");
        if port != 80 {
            assert_eq!(
                (answer.reason.as_str(), code(&answer)),
                ("port_not_allowed", refusal(403, "port_not_allowed"))
            );
        }
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rules_own_ports_widen_what_it_means() {
    let origin = Origin::start("api.example").await;
    let rules = |port: u16| {
        format!(
            "transforms: [{{ name: allowlist, config: {{ rules: [{{ host: api.example, ports: [{port}] }}] }} }}]\n"
        )
    };
    let proxy = Proxy::builder(KEYFERRY).policy(&rules(origin.port())).name("api.example").start().await;
    assert_eq!(Sandbox::of(&proxy).fetch([origin.url("/")]).await.status, 200);

    let (_, answer) = tunnel::ask(&proxy, "api.example:443").await;
    assert_eq!(code(&answer), refusal(403, "port_not_allowed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_name_that_leads_to_a_private_address() {
    let origin = Origin::start("api.example").await;
    let denied =
        ["10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"];
    let mut builder = Proxy::builder(KEYFERRY).allow(&["*.example"]).port(origin.port());
    for (n, address) in denied.iter().enumerate() {
        builder = builder.name_at(&format!("n{n}.example"), address.parse().expect("an address"));
    }
    let proxy = builder.clone().start().await;
    let sandbox = Sandbox::of(&proxy);
    for (n, address) in denied.iter().enumerate() {
        let answer = sandbox.fetch([format!("https://n{n}.example:{}/", origin.port())]).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "address_denied"), "{address}");
    }

    let proxy = builder.option("upstream_allow_cidrs: []").route(&origin).start().await;
    let answer = Sandbox::of(&proxy).fetch([origin.url("/")]).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "address_denied"));
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t19_the_proxy_itself() {
    let proxy = Proxy::builder(KEYFERRY).allow(&["self.example"]).name("self.example");
    let proxy = proxy.option("allowed_ports: [\"*\"]").start().await;
    let sandbox = Sandbox::of(&proxy);
    for port in [proxy.address().port(), proxy.admin_address().port()] {
        for scheme in ["http", "https"] {
            let answer = sandbox.fetch([format!("{scheme}://self.example:{port}/readyz")]).await;
            assert_eq!((answer.status, answer.reason().as_str()), (403, "address_denied"), "{scheme} {port}");
        }
    }
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
