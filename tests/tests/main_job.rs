//! The proxy's main job: the real credential on the requests that were granted it, to the hosts that
//! it is bound to, and nowhere else; a record of each.

use keyferry_tests::audit::assert_json;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::Sandbox;
use serde_json::{Value, json};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "sk-real-0123456789abcdef";

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config:
      domains: [mirror.example]
      rules: [{ host: api.example, methods: [POST], paths: ["/v1/*"] }]
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: EXAMPLE_API_KEY }
          replace: { proxy_value: EXAMPLE_API_KEY, match_headers: [Authorization] }
          rules: [{ host: api.example }]
"#;

fn proxy() -> ProxyBuilder {
    Proxy::builder(KEYFERRY).policy(POLICY).env("EXAMPLE_API_KEY", REAL)
}

async fn origin(name: &str) -> Origin {
    Origin::builder(name).alpn(&["http/1.1"]).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_receives_the_real_credential_and_the_sandbox_never_has_it() {
    let origin = origin("api.example").await;
    let proxy = proxy().route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    let url = origin.url("/v1/messages?beta=true");
    let sent = [
        "--http1.1",
        "-H",
        "Authorization: Bearer EXAMPLE_API_KEY",
        "-H",
        "X-Other: kept",
        "-d",
        "{\"n\":1}",
    ];
    let answer = sandbox.fetch(sent.iter().copied().chain([url.as_str()])).await;

    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains(REAL), "{}", answer.body);
    let seen = origin.only_request();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.authority.as_str()),
        ("POST", "/v1/messages?beta=true", origin.authority().as_str())
    );
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {REAL}").as_str()));
    assert_eq!((seen.header("x-other"), seen.body()), (Some("kept"), "{\"n\":1}"));

    let ended = proxy.stop().await;
    assert_eq!(ended.code, Some(0));
    ended.assert_never_wrote(REAL);
    assert_json(
        &ended.only_record(),
        &json!({
            "time": "TIME",
            "level": "INFO",
            "msg": "request",
            "audit": {
                "request_id": "ID",
                "principal": "local",
                "generation": 1,
                "host": "api.example",
                "port": origin.port(),
                "scheme": "https",
                "method": "POST",
                "path": "/v1/messages",
                "sni": "api.example",
                "mode": "mitm",
                "action": "allow",
                "reason": null,
                "rule": "allowlist.rules[0]",
                "status_code": 200,
                "duration_ms": "DURATION",
                "bytes_in": 7,
                "bytes_out": answer.body.len(),
                "upstream_addr": origin.address().to_string(),
                "remote_addr": "CLIENT",
                "client_protocol": "h1",
                "upstream_protocol": "h1",
            },
            "tunnel": { "target": origin.authority() },
            "request_transforms": [{
                "name": "secrets",
                "action": "allow",
                "annotations": {
                    "swapped": [{ "secret": "EXAMPLE_API_KEY", "locations": ["header:authorization"] }],
                },
            }],
            // The origin echoes what it received.
            "response_transforms": [{ "name": "redact", "action": "allow", "annotations": { "redacted": 1 } }],
        }),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_listed_is_refused_before_its_name_is_resolved() {
    let origin = origin("other.example").await;
    let proxy = proxy().route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    let ran = sandbox.curl(["-v", "-H", "Authorization: Bearer EXAMPLE_API_KEY", &origin.url("/")]).await;

    assert_eq!(ran.status.code(), Some(56), "{ran:?}");
    assert!(ran.stderr.contains("< HTTP/1.1 403 host_not_allowed"), "{}", ran.stderr);
    assert_eq!(origin.connections(), 0);
    // T15: the question alone would carry a message out.
    assert_eq!(proxy.dns().queries(), [""; 0]);
    let ended = proxy.stop().await;
    ended.assert_never_wrote(REAL);
    let record = ended.only_record();
    assert_json(
        &record,
        &json!({
            "time": "TIME",
            "level": "WARN",
            "msg": "request",
            "audit": {
                "request_id": "ID",
                "principal": "local",
                "generation": 1,
                "host": "other.example",
                "port": origin.port(),
                "scheme": null,
                "method": "CONNECT",
                "path": "",
                "sni": null,
                "mode": "tunnel",
                "action": "reject",
                "reason": "host_not_allowed",
                "rule": null,
                "status_code": 403,
                "duration_ms": "DURATION",
                "bytes_in": 0,
                "bytes_out": record["audit"]["bytes_out"],
                "upstream_addr": null,
                "remote_addr": "CLIENT",
                "client_protocol": "h1",
                "upstream_protocol": null,
            },
            "rejected_by": "allowlist",
            "error": "WORDS",
        }),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_on_its_way_to_a_host_that_it_is_not_bound_to_is_blocked() {
    let origin = origin("mirror.example").await;
    let proxy = proxy().route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    let answer =
        sandbox.fetch(["-H", "Authorization: Bearer EXAMPLE_API_KEY", &origin.url("/v1/messages")]).await;

    assert_eq!((answer.status, answer.reason().as_str()), (403, "placeholder_misdirected"));
    assert_eq!(origin.connections(), 0);
    assert!(!proxy.dns().was_asked_for("mirror.example"));
    let ended = proxy.stop().await;
    ended.assert_never_wrote(REAL);
    // What the sandbox was told and what the operator reads are about the same request.
    assert_eq!(answer.json()["request_id"], ended.records()[0]["audit"]["request_id"]);
    assert_json(
        &ended.only_record(),
        &json!({
            "time": "TIME",
            "level": "WARN",
            "msg": "request",
            "audit": {
                "request_id": "ID",
                "principal": "local",
                "generation": 1,
                "host": "mirror.example",
                "port": origin.port(),
                "scheme": "https",
                "method": "GET",
                "path": "/v1/messages",
                "sni": "mirror.example",
                "mode": "mitm",
                "action": "reject",
                "reason": "placeholder_misdirected",
                "rule": null,
                "status_code": 403,
                "duration_ms": "DURATION",
                "bytes_in": 0,
                "bytes_out": answer.body.len(),
                "upstream_addr": null,
                "remote_addr": "CLIENT",
                "client_protocol": answer_protocol(answer.protocol),
                "upstream_protocol": null,
            },
            "tunnel": { "target": origin.authority() },
            "rejected_by": "secrets",
            "error": "WORDS",
        }),
    );
}

fn answer_protocol(curls: &str) -> &'static str {
    if curls == "h2" { "h2" } else { "h1" }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_in_the_target_or_in_basic_credentials_is_misdirected_too() {
    let origin = origin("mirror.example").await;
    let proxy = proxy().route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    let url = |path: &str| origin.url(path);
    let attempts: [&[&str]; 4] = [
        &[&url("/?key=EXAMPLE_API_KEY")],
        &[&url("/EXAMPLE_API_KEY/file")],
        &["-u", "user:EXAMPLE_API_KEY", &url("/")],
        &["-H", "X-Any: EXAMPLE_API_KEY", &url("/")],
    ];
    for attempt in attempts {
        let answer = sandbox.fetch(attempt).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, "placeholder_misdirected"),
            "{attempt:?}"
        );
    }
    assert_eq!(origin.connections(), 0);

    // The name occurs in ordinary text: neither a part of a longer word nor a body is a placeholder.
    let about = ["-H", "X-Any: MY_EXAMPLE_API_KEY_2", "-d", "set EXAMPLE_API_KEY first", &url("/docs")];
    assert_eq!(sandbox.fetch(about).await.status, 200);
    assert_eq!(origin.only_request().body(), "set EXAMPLE_API_KEY first");
    assert_eq!(proxy.stop().await.records().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_placeholder_is_misdirected_in_a_body_too() {
    let placeholder = "kf_0123456789abcdef0123456789abcdef";
    let origin = origin("mirror.example").await;
    let proxy = proxy()
        .policy(&POLICY.replace("proxy_value: EXAMPLE_API_KEY", &format!("proxy_value: {placeholder}")));
    let proxy = proxy.route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    let body = sandbox.write("body", format!("{}{placeholder}\n", "x".repeat(300_000)));
    let url = origin.url("/");
    let ran = sandbox.curl(["--data-binary", &format!("@{}", body.display()), &url]).await;

    let ended = proxy.stop().await;
    assert_eq!(ended.only_record()["audit"]["reason"], "placeholder_misdirected", "{ran:?}");
    let arrived = origin.received().first().and_then(|seen| seen.payload.clone());
    assert!(arrived.is_none_or(|payload| !payload.complete), "the request arrived whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_on_a_connection_leaves_one_record_and_a_tunnel_without_one_leaves_its_own() {
    let origin = origin("api.example").await;
    let proxy = proxy().route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    let config: String = (1..=3)
        .map(|n| format!("url = {}\ndata = x\noutput = /dev/null\n", origin.url(&format!("/v1/{n}"))))
        .collect();
    let config = sandbox.write("requests", config);
    sandbox.curl(["-K", config.to_str().expect("a path in UTF-8")]).await.success();
    drop(keyferry_tests::tunnel::open(&proxy, &origin.authority()).await);

    let records = proxy.stop().await.records();
    let summary: Vec<Value> = records
        .iter()
        .map(|record| json!([record["audit"]["mode"], record["audit"]["method"], record["audit"]["path"]]))
        .collect();
    let expected = json!([
        ["mitm", "POST", "/v1/1"],
        ["mitm", "POST", "/v1/2"],
        ["mitm", "POST", "/v1/3"],
        ["tunnel", "CONNECT", ""]
    ]);
    assert_json(&Value::from(summary), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_allowed_where_nothing_says_so() {
    let origin = origin("api.example").await;
    for policy in ["", "transforms: []\n", "transforms: [{ name: allowlist, config: {} }]\n"] {
        let proxy = Proxy::builder(KEYFERRY).policy(policy).route(&origin).start().await;
        let ran = Sandbox::of(&proxy).curl(["-w", "%{http_connect}", &origin.url("/")]).await;
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(56), "403"), "{policy}: {ran:?}");
        assert_eq!(proxy.dns().queries(), [""; 0]);
    }
    assert_eq!(origin.connections(), 0);

    let proxy = Proxy::builder(KEYFERRY).policy("default_action: allow\n").route(&origin).start().await;
    assert_eq!(Sandbox::of(&proxy).fetch([origin.url("/")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_are_answered_on_the_admin_listener_alone() {
    let origin = origin("api.example").await;
    let proxy = proxy().route(&origin).start().await;

    assert_eq!(proxy.admin("/healthz").await.status, 200);
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    assert_eq!(proxy.admin("/anything-else").await.status, 404);
    let direct = keyferry_tests::tunnel::exchange(
        &mut keyferry_tests::tunnel::connect(&proxy).await,
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(direct.status / 100, 4, "the tunnel listener answered as the admin listener: {direct:?}");
}
