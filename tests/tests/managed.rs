//! From a grant in the control service to a request through the proxy, with processes of the shipping binary and curl.

use std::time::{Duration, Instant};

use keyferry_tests::operator::{Operator, text};
use keyferry_tests::origin::Origin;
use keyferry_tests::pretended_control::{self, STREAM, event};
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{audit, http1, ports, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const LIVE: &str = "live-value-0123456789";
const MANAGEMENT_KEY: &str = "management-key";

/// A secret that takes the place of `PH_<name>` on its way to one host.
fn secret(control: &Operator, name: &str, value: &str, host: &str, port: u16) -> Value {
    let secret = json!({
        "name": name,
        "source": { "source_type": "control_plane", "secret": value },
        "replace_config": { "proxy_value": format!("PH_{name}") },
        "rules": [{ "host": host, "ports": [port] }],
    });
    control.put(&format!("static_secrets/{name}"), secret)
}

fn shared_proxy(control: &Operator) -> Value {
    control.post("proxies", json!({ "name": "edge", "kind": "shared", "namespaces": ["default"] }))
}

fn builder(control: &Operator, proxy: &Value, origin: &Origin) -> ProxyBuilder {
    let management = format!("management: {{ listen: \"127.0.0.1:{}\" }}\n", ports::free_port());
    Proxy::builder(KEYFERRY)
        .route(origin)
        .managed(&control.url(), &text(&proxy["token"]))
        .env("IRON_MANAGEMENT_API_KEY", MANAGEMENT_KEY)
        .policy(&management)
}

fn sandbox_of(control: &Operator, principal: &Value, more: Value) -> Value {
    let mut sandbox = json!({ "name": "box", "principal_id": principal["id"] });
    if let (Value::Object(sandbox), Value::Object(more)) = (&mut sandbox, more) {
        sandbox.extend(more);
    }
    control.post("sandboxes", sandbox)
}

/// What curl in a sandbox with this identity gets.
fn inside(proxy: &Proxy, sandbox: &Value) -> Sandbox {
    let (id, token) = (text(&sandbox["id"]), text(&sandbox["token"]));
    Sandbox::with_proxy_url(proxy, &proxy.url_as(Some((&id, &token))))
}

/// The status of a CONNECT, and the reason in its answer.
async fn connect_status(sandbox: &Sandbox, url: &str) -> String {
    sandbox.curl(["-o", "/dev/null", "-w", "%{http_connect}", url]).await.stdout
}

/// Asks again until it is so; how long that took.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    within(what, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    begun.elapsed()
}

async fn ready(proxy: &Proxy, trouble: &str) {
    until(trouble, async || String::from_utf8_lossy(&proxy.admin("/readyz").await.body).trim() == trouble)
        .await;
}

/// A tunnel of a sandbox, open and idle.
async fn open_tunnel(proxy: &Proxy, sandbox: Option<&Value>, authority: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connect");
    let shown = sandbox.map_or(String::new(), |sandbox| {
        use base64::Engine as _;
        let pair = format!("{}:{}", text(&sandbox["id"]), text(&sandbox["token"]));
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Proxy-Authorization: Basic {pair}\r\n")
    });
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{shown}\r\n");
    stream.write_all(request.as_bytes()).await.expect("send");
    let answer = within("the answer", http1::read_answer_head(&mut stream)).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    stream
}

async fn is_closed(what: &str, mut tunnel: TcpStream) {
    let mut rest = Vec::new();
    let _ = within(what, tunnel.read_to_end(&mut rest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_principals_on_one_proxy_have_what_each_was_granted_and_for_as_long() {
    let origin = Origin::start("api.example").await;
    let control = Operator::start(KEYFERRY);
    let (alice, bob) = (control.put("principals/alice", json!({})), control.put("principals/bob", json!({})));
    let vendor = secret(&control, "vendor", LIVE, "api.example", origin.port());
    let proxy = builder(&control, &shared_proxy(&control), &origin).start().await;
    let (of_alice, of_bob) = (sandbox_of(&control, &alice, json!({})), sandbox_of(&control, &bob, json!({})));
    assert_eq!((&of_alice["pending"], &of_bob["pending"]), (&json!(false), &json!(false)), "{of_alice}");
    let (in_alice, in_bob) = (inside(&proxy, &of_alice), inside(&proxy, &of_bob));
    assert_eq!(connect_status(&in_alice, &origin.url("/")).await, "403");

    // Granted: it may, within a second; the other may not.
    let grant = control.grant(&alice, &vendor);
    let took = until("the grant", async || connect_status(&in_alice, &origin.url("/")).await == "200").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    let echoed = in_alice.fetch(["-H", "Authorization: Bearer PH_vendor", &origin.url("/echo")]).await;
    assert_eq!(echoed.status, 200);
    let requests = origin.received();
    let sent = requests.last().expect("a request");
    assert_eq!(sent.header("authorization"), Some(format!("Bearer {LIVE}").as_str()));
    assert_eq!(connect_status(&in_bob, &origin.url("/")).await, "403");
    // T64: nobody, and somebody else's token.
    assert_eq!(connect_status(&Sandbox::of(&proxy), &origin.url("/")).await, "407");
    let crossed = proxy.url_as(Some((&text(&of_alice["id"]), &text(&of_bob["token"]))));
    assert_eq!(connect_status(&Sandbox::with_proxy_url(&proxy, &crossed), &origin.url("/")).await, "407");

    // Revoked: what is open is closed, and the next request is refused (T67).
    let tunnel = open_tunnel(&proxy, Some(&of_alice), &origin.authority()).await;
    control.delete(&format!("grants/{grant}"));
    is_closed("the tunnel of a revoked grant", tunnel).await;
    assert_eq!(connect_status(&in_alice, &origin.url("/")).await, "403");

    let ended = proxy.stop().await;
    ended.assert_never_wrote(LIVE);
    let swapped = audit::requests(&ended.audit)
        .into_iter()
        .find(|record| record["audit"]["path"] == "/echo")
        .expect("its record");
    assert_eq!(swapped["audit"]["principal"], alice["id"]);
    assert_eq!(swapped["audit"]["sandbox"], of_alice["id"]);
    assert_eq!(
        swapped["request_transforms"][0]["annotations"]["swapped"],
        json!([{ "secret": "vendor", "locations": ["header:authorization"] }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_ends_when_it_is_deleted_and_when_its_time_is_over_also_without_control() {
    let origin = Origin::start("api.example").await;
    let mut control = Operator::start(KEYFERRY);
    let alice = control.put("principals/alice", json!({}));
    control.grant(&alice, &secret(&control, "vendor", LIVE, "api.example", origin.port()));
    let proxy = builder(&control, &shared_proxy(&control), &origin).start().await;

    let deleted = sandbox_of(&control, &alice, json!({}));
    let tunnel = open_tunnel(&proxy, Some(&deleted), &origin.authority()).await;
    control.delete(&format!("sandboxes/{}", text(&deleted["id"])));
    is_closed("the tunnel of a deleted sandbox", tunnel).await;
    assert_eq!(connect_status(&inside(&proxy, &deleted), &origin.url("/")).await, "407");

    // T65: a token is good where it belongs, and nowhere else.
    let elsewhere = sandbox_of(&control, &alice, json!({ "source_cidrs": ["10.9.8.0/24"] }));
    assert_eq!(connect_status(&inside(&proxy, &elsewhere), &origin.url("/")).await, "407");

    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4);
    let expiring = sandbox_of(&control, &alice, json!({ "expires_at": end.to_string() }));
    let tunnel = open_tunnel(&proxy, Some(&expiring), &origin.authority()).await;
    control.kill();
    is_closed("the tunnel of a sandbox whose time is over", tunnel).await;
    assert!(jiff::Timestamp::now() >= end, "not before");
    assert_eq!(connect_status(&inside(&proxy, &expiring), &origin.url("/")).await, "407");
}

#[tokio::test(flavor = "multi_thread")]
async fn t83_what_control_said_last_counts_while_it_is_away_and_not_for_ever() {
    let origin = Origin::start("api.example").await;
    let mut control = Operator::start(KEYFERRY);
    let alice = control.put("principals/alice", json!({}));
    let vendor = secret(&control, "vendor", LIVE, "api.example", origin.port());
    control.grant(&alice, &vendor);
    let told = control.post("proxies", json!({ "name": "own", "principal_id": alice["id"] }));
    let kept = tempfile::TempDir::new().expect("a folder");
    let policy_file = kept.path().join("policy.sealed");
    let keyring = control.folder().join("keyring");
    let managed = builder(&control, &told, &origin)
        .env("KEYFERRY_POLICY_FILE", &policy_file.display().to_string())
        .env("KEYFERRY_KEYRING_FILE", &keyring.display().to_string());
    let proxy = managed.clone().start().await;
    // Dedicated: whoever connects is the principal.
    assert_eq!(connect_status(&Sandbox::of(&proxy), &origin.url("/")).await, "200");
    until("the policy on disk", async || {
        policy_file.exists() && kept.path().join("policy.sealed.confirmed").exists()
    })
    .await;
    let sealed = std::fs::read(&policy_file).expect("the file");
    assert!(!sealed.windows(4).any(|part| part == b"live" || part == b"api."), "it is sealed (T46)");
    control.kill();
    proxy.stop().await;

    // Started again with control away: as before.
    let again = managed.clone().start().await;
    let sandbox = Sandbox::of(&again);
    let answer = sandbox.fetch(["-H", "X-Key: PH_vendor", &origin.url("/echo")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(origin.received().last().expect("a request").header("x-key"), Some(LIVE));
    // Operator is back, and is heard.
    control.restart();
    let other = control.put("principals/bob", json!({}));
    control.ask(
        "PATCH",
        &format!("proxies/{}", text(&told["id"])),
        Some(json!({ "data": { "principal_id": other["id"] } })),
    );
    until("the other principal", async || connect_status(&sandbox, &origin.url("/")).await == "403").await;
    again.stop().await.assert_never_wrote(LIVE);

    // Without keys nothing is kept; and what is not confirmed in time does not count.
    control.ask(
        "PATCH",
        &format!("proxies/{}", text(&told["id"])),
        Some(json!({ "data": { "principal_id": alice["id"] } })),
    );
    let brief =
        builder(&control, &told, &origin).policy("control_plane: { max_staleness: 30s }\n").start().await;
    let sandbox = Sandbox::of(&brief);
    let tunnel = open_tunnel(&brief, None, &origin.authority()).await;
    control.kill();
    is_closed("a tunnel under a stale policy", tunnel).await;
    ready(&brief, "policy_stale").await;
    let refused = sandbox.curl(["-i", "-p", &origin.url("/")]).await;
    assert!(refused.stdout.contains("503 policy_stale"), "{refused:?}");
    control.restart();
    until("the policy counts again", async || connect_status(&sandbox, &origin.url("/")).await == "200")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_a_principal_and_one_that_was_revoked_let_nothing_pass_and_say_why() {
    let origin = Origin::start("api.example").await;
    let control = Operator::start(KEYFERRY);
    let alice = control.put("principals/alice", json!({}));
    control.grant(&alice, &secret(&control, "vendor", LIVE, "api.example", origin.port()));
    let told = control.post("proxies", json!({ "name": "own" }));
    let proxy = builder(&control, &told, &origin).start().await;
    let sandbox = Sandbox::of(&proxy);
    let reason = async || {
        let said = sandbox.curl(["-s", "-i", "-p", &origin.url("/")]).await.stdout;
        said.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(reason().await, "HTTP/1.1 503 proxy_unassigned");
    control.ask(
        "PATCH",
        &format!("proxies/{}", text(&told["id"])),
        Some(json!({ "data": { "principal_id": alice["id"] } })),
    );
    until("the assignment", async || connect_status(&sandbox, &origin.url("/")).await == "200").await;

    let tunnel = open_tunnel(&proxy, None, &origin.authority()).await;
    control.delete(&format!("proxies/{}", text(&told["id"])));
    is_closed("the tunnel of a revoked proxy", tunnel).await;
    assert_eq!(reason().await, "HTTP/1.1 503 proxy_revoked");
    ready(&proxy, "proxy_revoked").await;
    proxy.stop().await.assert_never_wrote(LIVE);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_kind_without_an_engine_is_for_are_refused_and_the_status_names_it() {
    let origin = Origin::start("api.example").await;
    let control = Operator::start(KEYFERRY);
    let alice = control.put("principals/alice", json!({}));
    let aws = control.put(
        "aws_auth_secrets/cloud",
        json!({
            "access_key_id": { "source_type": "control_plane", "secret": "AKIA0123456789" },
            "secret_access_key": { "source_type": "control_plane", "secret": LIVE },
            "rules": [{ "host": "api.example", "ports": [origin.port()], "http_methods": ["POST"] }],
        }),
    );
    control.post("grants", json!({ "principal_id": alice["id"], "aws_auth_secret_id": aws["id"] }));
    control.post(
        &format!("principals/{}/egress_rules", text(&alice["id"])),
        json!({ "host": "api.example", "ports": [origin.port()], "action": "allow" }),
    );
    let told = control.post("proxies", json!({ "name": "own", "principal_id": alice["id"] }));
    let management = ports::free_port();
    let proxy = builder(&control, &told, &origin)
        .policy(&format!("management: {{ listen: \"127.0.0.1:{management}\" }}\n"))
        .start()
        .await;
    let sandbox = Sandbox::of(&proxy);
    assert_eq!(sandbox.fetch([&origin.url("/echo")]).await.status, 200);
    let refused = sandbox.fetch(["-d", "x", &origin.url("/echo")]).await;
    assert_eq!((refused.status, refused.reason()), (403, "transform_unsupported".to_owned()));

    let ask = async |method: &str, path: &str| {
        let bearer = format!("Authorization: Bearer {MANAGEMENT_KEY}");
        let url = format!("http://127.0.0.1:{management}{path}");
        Sandbox::without_proxy()
            .curl(["-H", &bearer, "-X", method, "-w", "\n%{http_code}", &url])
            .await
            .stdout
    };
    let status = ask("GET", "/v1/status").await;
    let (status, code) = status.rsplit_once('\n').expect("a status");
    assert_eq!(code, "200");
    let status: Value = serde_json::from_str(status).expect("JSON");
    assert_eq!((&status["mode"], &status["state"]), (&json!("managed"), &json!("in_force")), "{status}");
    assert_eq!(status["principal_id"], alice["id"]);
    assert_eq!(status["unsupported"][text(&alice["id"])], json!(["the transform aws_auth"]));
    assert!(ask("POST", "/v1/sync").await.ends_with("202"));
    let applied = control.ask("GET", &format!("proxies/{}", text(&told["id"])), None);
    assert_eq!(applied["data"]["applied_generation"]["number"], status["generation"]["number"], "{applied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t83_a_server_that_goes_back_is_not_followed_and_one_without_a_stream_is_asked_again() {
    let origin = Origin::start("api.example").await;
    let rules = json!([{ "host": "api.example", "ports": [origin.port()] }]);
    let told = json!({ "name": "own", "token": format!("iprx_{}", "1".repeat(64)) });
    let policy = |rules: &Value, hash: &str| {
        json!({ "type": "policy", "id": "prn_a", "config_hash": hash, "status": "assigned", "principal_id": "prn_a",
            "rules": rules, "secrets": [], "transforms": [], "postgres": [] })
    };
    let state = |rules: &Value, number: u64| {
        let begin = json!({ "type": "begin", "reach": "everything", "serves": "dedicated" });
        let commit = json!({ "type": "commit", "generation": { "epoch": "e", "number": number } });
        event(&begin) + &event(&policy(rules, &format!("sha256:{number}"))) + &event(&commit)
    };
    let stream = format!("{STREAM}{}{}", state(&json!([]), 7), state(&rules, 5));
    let liar = pretended_control::start(move |_| stream.clone()).await;
    let proxy = Proxy::builder(KEYFERRY).route(&origin).managed(&liar, &text(&told["token"])).start().await;
    proxy.wait_for_log("refused as a replay", 1).await;
    assert_eq!(connect_status(&Sandbox::of(&proxy), &origin.url("/")).await, "403");

    let payload = json!({ "config_hash": "sha256:x", "status": "assigned", "principal_id": "prn_a",
        "rules": rules, "transforms": [], "postgres": [],
        "secrets": [{ "source": { "type": "control_plane", "value": LIVE }, "inject": { "header": "X-Key" },
            "rules": [{ "host": "api.example", "ports": [origin.port()] }] }] })
    .to_string();
    let older = pretended_control::start(move |head| {
        let (status, body) = match head.starts_with("POST /api/v1/proxy/sync ") {
            true => ("200 OK", payload.as_str()),
            false => ("404 Not Found", "{}"),
        };
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
    .await;
    let proxy = Proxy::builder(KEYFERRY).route(&origin).managed(&older, &text(&told["token"])).start().await;
    assert_eq!(Sandbox::of(&proxy).fetch([&origin.url("/echo")]).await.status, 200);
    assert_eq!(origin.received().last().expect("a request").header("x-key"), Some(LIVE));
    proxy.stop().await.assert_never_wrote(LIVE);
}
