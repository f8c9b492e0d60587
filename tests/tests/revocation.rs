//! What a managed proxy has open when a permission ends, and how it hears of the end.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyferry_tests::authority::{Authority, Validity};
use keyferry_tests::control::{Control, prepared};
use keyferry_tests::operator::{Operator, text};
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{http1, ports, tunnel, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const LIVE: &str = "live-value-0123456789";
const MANAGEMENT_KEY: &str = "management-key";
/// RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Takes the place of `PLACEHOLDER` on its way to one host.
fn secret(host: &str, port: u16) -> Value {
    json!({
        "source": { "source_type": "control_plane", "secret": LIVE },
        "replace_config": { "proxy_value": "PLACEHOLDER" },
        "rules": [{ "host": host, "ports": [port] }],
    })
}

/// A proxy for one principal that would not ask by itself before the test gives up: what it hears, it is told.
fn told_alone(control: &Operator, principal: &Value) -> (ProxyBuilder, u16) {
    let told = control.post("proxies", json!({ "name": "own", "principal_id": principal["id"] }));
    let management = ports::free_port();
    let builder = Proxy::builder(KEYFERRY)
        .managed(&control.url(), &text(&told["token"]))
        .env("IRON_MANAGEMENT_API_KEY", MANAGEMENT_KEY)
        .policy(&format!(
            "control_plane: {{ poll_interval: 10m }}\nmanagement: {{ listen: \"127.0.0.1:{management}\" }}\n"
        ));
    (builder, management)
}

async fn status(management: u16) -> Value {
    let bearer = format!("Authorization: Bearer {MANAGEMENT_KEY}");
    let url = format!("http://127.0.0.1:{management}/v1/status");
    let said = Sandbox::without_proxy().curl(["-sS", "-H", &bearer, &url]).await.stdout;
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"))
}

async fn connect_status(proxy: &Proxy, url: &str) -> String {
    Sandbox::of(proxy).curl(["-o", "/dev/null", "-w", "%{http_connect}", url]).await.stdout
}

/// An HTTP/2 connection in a tunnel.
async fn http2(proxy: &Proxy, origin: &Origin) -> SendRequest<Empty<Bytes>> {
    let open = tunnel::open(proxy, &origin.authority()).await;
    let stream = tunnel::secure(proxy, open, tunnel::Hello::http2(origin.name())).await.expect("TLS");
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// The body of an answer, whose first piece has come.
async fn begun(sender: &mut SendRequest<Empty<Bytes>>, url: &str, value: Option<&str>) -> Incoming {
    let mut request = Request::get(url);
    if let Some(value) = value {
        request = request.header("authorization", value);
    }
    let request = request.body(Empty::new()).expect("a request");
    let answer = within("an answer", sender.send_request(request)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    within("the first piece", body.frame()).await.expect("a piece").expect("a whole piece");
    body
}

/// Says 101 to whoever asks, and keeps the connection.
async fn chat() -> RawOrigin {
    RawOrigin::start("chat.example", |mut connection: RawConnection| async move {
        let switching = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        connection.send(switching).await;
        connection.receive_all().await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn t67_a_grant_that_is_revoked_ends_streams_of_http2_and_websockets_and_leaves_others_open() {
    let (origin, chat) = (Origin::start("api.example").await, chat().await);
    let control = Operator::start(KEYFERRY);
    let alice = control.put("principals/alice", json!({}));
    let for_api = control.put("static_secrets/api", secret("api.example", origin.port()));
    let for_chat = control.put("static_secrets/chat", secret("chat.example", chat.port()));
    // What is allowed anyway stays so.
    let rule = json!({ "host": "api.example", "ports": [origin.port()], "action": "allow" });
    control.post(&format!("principals/{}/egress_rules", text(&alice["id"])), rule);
    let (builder, management) = told_alone(&control, &alice);
    let proxy = builder.route(&origin).route_raw(&chat).start().await;
    let grants = [control.grant(&alice, &for_api), control.grant(&alice, &for_chat)];
    // Given a grant that was pushed
    within("the grant of the chat", async {
        while connect_status(&proxy, &chat.url("/")).await != "200" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(status(management).await["connected_by"], "stream");

    // And two streams of one HTTP/2 connection, of which one carries the secret, and a WebSocket that does
    let mut sender = http2(&proxy, &origin).await;
    let bearer = format!("Bearer {}", "PLACEHOLDER");
    origin.open_gate(1);
    let bare = begun(&mut sender, &origin.url("/lines/2"), None).await;
    let mut carrying = begun(&mut sender, &origin.url("/stall/body"), Some(&bearer)).await;
    let sent = origin.received();
    assert_eq!(sent[1].header("authorization"), Some(format!("Bearer {LIVE}").as_str()));
    let mut socket = tunnel::open_secure(&proxy, &chat.authority()).await;
    let handshake = format!(
        "GET /socket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nAuthorization: {bearer}\r\n\r\n",
        chat.authority()
    );
    socket.write_all(handshake.as_bytes()).await.expect("send the handshake");
    let switched = within("the 101", http1::read_answer_head(&mut socket)).await.expect("an answer");
    assert_eq!(switched.status, 101, "{switched:?}");

    // When both grants are revoked
    for grant in grants {
        control.delete(&format!("grants/{grant}"));
    }

    // Then what carried a secret ends, with a word where there is one
    let ended = within("the stream that carried the secret", carrying.frame()).await;
    assert!(matches!(ended, Some(Err(_))), "{ended:?}");
    let mut rest = Vec::new();
    let _ = within("the end of the WebSocket", socket.read_to_end(&mut rest)).await;
    let reason = b"policy_changed";
    let close = [&[0x88, 2 + reason.len() as u8][..], &1008_u16.to_be_bytes(), reason].concat();
    assert_eq!(rest, close);
    // And the other stream of the same connection goes on to its end
    origin.open_gate(1);
    let more = within("the second line", bare.collect()).await.expect("the whole body").to_bytes();
    assert_eq!(String::from_utf8_lossy(&more).trim(), r#"{"line":2}"#);
    assert_eq!(connect_status(&proxy, &chat.url("/")).await, "403");
    let status = status(management).await;
    assert_eq!(
        (&status["connected_by"], &status["state"]),
        (&json!("stream"), &json!("in_force")),
        "{status}"
    );
    proxy.stop().await.assert_never_wrote(LIVE);
}

#[tokio::test(flavor = "multi_thread")]
async fn t67_a_grant_ends_by_itself_also_while_control_is_away() {
    let origin = Origin::start("api.example").await;
    let mut control = Operator::start(KEYFERRY);
    let alice = control.put("principals/alice", json!({}));
    let vendor = control.put("static_secrets/vendor", secret("api.example", origin.port()));
    let (builder, _) = told_alone(&control, &alice);
    let proxy = builder.route(&origin).start().await;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6);
    let ending = json!({ "principal_id": alice["id"], "static_secret_id": vendor["id"], "expires_at": end.to_string() });
    control.post("grants", ending);
    within("the grant", async {
        while connect_status(&proxy, &origin.url("/")).await != "200" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut open = tunnel::open(&proxy, &origin.authority()).await;

    control.kill();

    let _ = within("the tunnel of a grant whose time is over", open.read_to_end(&mut Vec::new())).await;
    assert!(jiff::Timestamp::now() >= end, "not before");
    assert_eq!(connect_status(&proxy, &origin.url("/")).await, "403");
}

#[tokio::test(flavor = "multi_thread")]
async fn t83_from_another_machine_control_is_heard_over_tls_and_under_its_own_name_alone() {
    let origin = Origin::start("api.example").await;
    let folder = prepared(KEYFERRY);
    // The authority that `tls.upstream_ca` names vouches for it.
    Authority::trusted().issue("127.0.0.1", Validity::Current).write(folder.path());
    std::fs::write(folder.path().join("ca.pem"), Authority::trusted().pem()).expect("written");
    let tls = ["--listen", "127.0.0.1:0", "--tls-cert", "server.crt", "--tls-key", "server.key"];
    let control = Control::start(KEYFERRY, folder, &tls, &[]);
    let authority = control.folder.path().join("ca.pem");
    let control = control.over_tls(authority);
    let key = control.key.clone().expect("a key");
    let make = |path: &str, data: Value| {
        let made =
            control.curl(&key, &["--json", &json!({ "data": data }).to_string()], &format!("/api/v1/{path}"));
        made["data"].clone()
    };
    let alice = make("principals", json!({ "foreign_id": "alice" }));
    let vendor = make("static_secrets", secret("api.example", origin.port()));
    let grant = make("grants", json!({ "principal_id": alice["id"], "static_secret_id": vendor["id"] }));
    let told = make("proxies", json!({ "name": "own", "principal_id": alice["id"] }));
    let token = text(&told["token"]);
    let builder = Proxy::builder(KEYFERRY).route(&origin);

    let proxy = builder.clone().managed(&format!("https://{}", control.address), &token).start().await;
    let fetched = Sandbox::of(&proxy).fetch(["-H", "X-Key: PLACEHOLDER", &origin.url("/echo")]).await;
    assert_eq!(fetched.status, 200, "{fetched:?}");
    assert_eq!(origin.only_request().header("x-key"), Some(LIVE));
    let mut open = tunnel::open(&proxy, &origin.authority()).await;
    let path = format!("/api/v1/grants/{}", text(&grant["id"]));
    let deleted = control.curl_command(&key, &["-X", "DELETE", "--fail"], &path).output().expect("curl runs");
    assert!(deleted.status.success(), "{deleted:?}");
    let _ = within("the tunnel of a revoked grant", open.read_to_end(&mut Vec::new())).await;
    assert_eq!(connect_status(&proxy, &origin.url("/")).await, "403");

    // A name that its certificate is not for
    let port = control.address.rsplit_once(':').expect("a port").1;
    let elsewhere =
        builder.managed(&format!("https://localhost:{port}"), &token).without_policy().start().await;
    elsewhere.wait_for_log("cannot be reached: invalid peer certificate", 1).await;
    let ready = elsewhere.admin("/readyz").await;
    assert_eq!((ready.status, String::from_utf8_lossy(&ready.body).trim()), (503, "policy_not_ready"));
    elsewhere.stop().await.assert_never_wrote(&token);
}
