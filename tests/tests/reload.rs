//! A new document is in force whole or not at all, and reaches what is open.

use keyferry_tests::http1;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{audit, ports, tunnel, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const IN_FORCE: &str = "a new configuration is in force";
const REFUSED: &str = "the configuration could not be reloaded";

const POLICY: &str = "
transforms:
  - name: allowlist
    config: { domains: [api.example] }
  - name: secrets
    config:
      secrets:
        - { source: { type: file, path: key.txt }, replace: { proxy_value: API_KEY }, rules: [{ host: api.example }] }
";

async fn start(origin: &Origin) -> Proxy {
    let proxy = Proxy::builder(KEYFERRY).policy(POLICY).route(origin).start().await;
    std::fs::write(proxy.file("key.txt"), "first-value").expect("write the secret");
    proxy
}

/// Reloads by SIGHUP and waits until it is done, for the `nth` time.
async fn hang_up(proxy: &Proxy, outcome: &str, nth: usize) {
    proxy.signal("HUP").await;
    proxy.wait_for_log(outcome, nth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_policy_is_in_force_for_the_next_request_on_an_open_tunnel() {
    let origin = Origin::start("api.example").await;
    let proxy = start(&origin).await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    assert_eq!(tunnel::exchange(&mut stream, get("/admin")).await.status, 200);

    proxy.edit(
        "domains: [api.example]",
        "rules: [{ host: api.example }, { host: api.example, paths: [/admin], action: deny }]",
    );
    hang_up(&proxy, IN_FORCE, 1).await;

    let refused = tunnel::exchange(&mut stream, get("/admin")).await;
    assert_eq!((refused.status, refused.reason.as_str()), (403, "path_not_allowed"));
    assert_eq!(tunnel::exchange(&mut stream, get("/other")).await.status, 200);
    let generations: Vec<_> =
        proxy.stop().await.records().iter().map(|record| record["audit"]["generation"].clone()).collect();
    assert_eq!(generations, [json!(1), json!(2), json!(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_read_again_when_it_changes() {
    let origin = Origin::start("api.example").await;
    let proxy = start(&origin).await;
    proxy.edit("domains: [api.example]", "domains: [other.example]");
    proxy.wait_for_log(IN_FORCE, 1).await;
    let answer = Sandbox::of(&proxy).curl(["-w", "%{http_connect}", &origin.url("/")]).await;
    assert_eq!(answer.stdout, "403");
}

#[tokio::test(flavor = "multi_thread")]
async fn t82_a_document_that_is_wrong_changes_nothing_and_says_why() {
    let origin = Origin::start("api.example").await;
    let proxy = start(&origin).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address");
    for (nth, (old, new, said)) in [
        ("domains: [api.example]", "domans: [api.example]", "did you mean".to_owned()),
        ("ca_cert: ca.crt", "ca_cert: missing.crt", "missing.crt".to_owned()),
        (
            "metrics: { listen: ",
            &format!("management: {{ listen: \"{taken}\" }}\nmetrics: {{ listen: "),
            "IRON_MANAGEMENT_API_KEY".to_owned(),
        ),
        ("metrics: { listen: ", &format!("metrics: {{ listen: \"{taken}\" }} #"), taken.to_string()),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.edit(old, new);
        hang_up(&proxy, REFUSED, nth + 1).await;
        assert!(proxy.stderr().contains(&said), "{said}: {}", proxy.stderr());
        assert_eq!(Sandbox::of(&proxy).fetch([origin.url("/")]).await.status, 200, "{new}");
        proxy.edit(new, old);
    }
    assert!(!proxy.stderr().contains(IN_FORCE));
}

#[tokio::test(flavor = "multi_thread")]
async fn t67_a_tunnel_that_the_new_policy_does_not_grant_is_closed_with_what_is_open_in_it() {
    let origin = Origin::start("api.example").await;
    let proxy = start(&origin).await;
    let authority = origin.authority();
    let mut idle = tunnel::open_secure(&proxy, &authority).await;
    let mut busy = tunnel::open_secure(&proxy, &authority).await;
    origin.open_gate(1);
    let request = format!("GET /events/3 HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    busy.write_all(request.as_bytes()).await.expect("send");
    within("the head of the stream", http1::read_head(&mut busy)).await.expect("a head");

    proxy.edit("domains: [api.example]", "domains: [other.example]");
    hang_up(&proxy, IN_FORCE, 1).await;

    for stream in [&mut idle, &mut busy] {
        let mut rest = Vec::new();
        // Cut off without a TLS close: an end of the body that is not one must look like that.
        let _ = within("the end of the tunnel", stream.read_to_end(&mut rest)).await;
    }
    let mut records = proxy.stop().await.records();
    records.sort_by_key(|record| record["audit"]["method"].to_string());
    let told = |record: &Value| {
        json!([record["audit"]["method"], record["audit"]["action"], record["audit"]["reason"]])
    };
    assert_eq!(
        records.iter().map(told).collect::<Vec<_>>(),
        [json!(["CONNECT", "client_cancel", null]), json!(["GET", "reject", "policy_changed"])]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_secret_that_it_carried_is_gone_and_not_when_its_value_changes() {
    for flag in ["--http1.1", "--http2"] {
        let origin = Origin::start("api.example").await;
        let proxy = start(&origin).await;
        let sandbox = Sandbox::of(&proxy);
        let url = origin.url("/stall/body");
        let mut carrying = sandbox.start("curl", ["-sSN", flag, "-H", "X-Key: API_KEY", &url]);
        let mut bare = sandbox.start("curl", ["-sSN", flag, &url]);
        origin.wait_for_requests(2).await;
        carrying.line().await;
        bare.line().await;

        std::fs::write(proxy.file("key.txt"), "second-value").expect("write the secret");
        hang_up(&proxy, IN_FORCE, 1).await;
        assert!(proxy.stderr().contains("\"exchanges_aborted\":0"), "{}", proxy.stderr());
        assert_eq!(sandbox.fetch(["-H", "X-Key: API_KEY", &origin.url("/")]).await.status, 200);
        assert_eq!(
            origin.received().last().and_then(|seen| seen.header("x-key").map(str::to_owned)).as_deref(),
            Some("second-value")
        );

        proxy.edit("host: api.example }] }", "host: elsewhere.example }] }");
        hang_up(&proxy, IN_FORCE, 2).await;
        let ended = carrying.finish().await;
        assert!(!ended.status.success(), "{flag}: {ended:?}");
        assert!(proxy.stderr().contains("\"exchanges_aborted\":1"), "{flag}: {}", proxy.stderr());
        bare.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t56_a_placeholder_that_is_no_longer_bound_to_its_host_is_misdirected_there() {
    let origin = Origin::start("api.example").await;
    let proxy = start(&origin).await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nX-Key: API_KEY\r\n\r\n");
    assert_eq!(tunnel::exchange(&mut stream, &request).await.status, 200);

    proxy.edit("host: api.example }] }", "host: elsewhere.example }] }");
    hang_up(&proxy, IN_FORCE, 1).await;

    let refused = tunnel::exchange(&mut stream, &request).await;
    assert_eq!((refused.status, refused.reason.as_str()), (403, "placeholder_misdirected"));
    assert_eq!(origin.only_request().header("x-key"), Some("first-value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_move_and_the_audit_log_moves_with_a_reload() {
    let origin = Origin::start("api.example").await;
    let proxy = start(&origin).await;
    let before = proxy.address();
    let after = ports::free_port();
    assert_eq!(Sandbox::of(&proxy).fetch([origin.url("/before")]).await.status, 200);

    proxy.edit(&format!("tunnel_listen: \"{before}\""), &format!("tunnel_listen: \"127.0.0.1:{after}\""));
    proxy.edit("path: audit.jsonl", "path: second.jsonl");
    hang_up(&proxy, IN_FORCE, 1).await;

    assert!(tokio::net::TcpStream::connect(before).await.is_err(), "the old address is closed");
    let moved = Sandbox::with_proxy_url(&proxy, &format!("http://127.0.0.1:{after}"));
    assert_eq!(moved.fetch([origin.url("/after")]).await.status, 200);
    let second = proxy.file("second.jsonl");
    let folder = second.parent().expect("a folder").to_owned();
    proxy.terminate().await;
    let path = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).expect("an audit log");
        let records = audit::requests(&text);
        let [only] = records.as_slice() else { panic!("not one record: {text}") };
        only["audit"]["path"].clone()
    };
    proxy.wait_for_log("draining", 1).await;
    within("the second log", async {
        // What the chain begins with may be there before the record is.
        while !std::fs::read_to_string(&second)
            .is_ok_and(|text| text.contains("/after") && text.ends_with('\n'))
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!([path("audit.jsonl"), path("second.jsonl")], [json!("/before"), json!("/after")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_listener_reloads_for_those_who_have_its_key() {
    let origin = Origin::start("api.example").await;
    let port = ports::free_port();
    let policy =
        format!("management: {{ listen: \"127.0.0.1:{port}\", api_key_env: MANAGEMENT_KEY }}\n{POLICY}");
    let proxy = Proxy::builder(KEYFERRY)
        .policy(&policy)
        .env("MANAGEMENT_KEY", "let-me-in")
        .route(&origin)
        .start()
        .await;
    let ask = async |method: &str, path: &str, key: &str| {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the listener");
        let answer = tunnel::exchange(
            &mut stream,
            format!("{method} {path} HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n"),
        )
        .await;
        (answer.status, answer.json())
    };
    let unauthorized = (401, json!({ "error": "unauthorized" }));
    assert_eq!(ask("POST", "/v1/reload", "wrong").await, unauthorized);
    assert_eq!(ask("GET", "/anything", "wrong").await, unauthorized);
    assert_eq!(ask("GET", "/v1/reload", "let-me-in").await.0, 405);
    assert_eq!(ask("POST", "/v1/reload", "let-me-in").await, (200, json!({ "status": "ok" })));
    let (_, status) = ask("GET", "/v1/status", "let-me-in").await;
    assert_eq!(
        json!([status["mode"], status["generation"], status["last_reload"]["status"]]),
        json!(["standalone", 2, "ok"])
    );

    proxy.edit("domains:", "domans:");
    let (code, error) = ask("POST", "/v1/reload", "let-me-in").await;
    assert!(code == 422 && error["error"].as_str().expect("text").contains("did you mean"), "{error}");
    let (_, status) = ask("GET", "/v1/status", "let-me-in").await;
    assert_eq!(json!([status["generation"], status["last_reload"]["status"]]), json!([2, "failed"]));
}
