//! Upgrades: a tunnel after a verified 101, an ordinary response otherwise (T27).

use keyferry_tests::http1::read_answer_head;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::{tunnel, within};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { rules: [{ host: chat.example, paths: ["/socket", "/other"] }] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: CHAT_TOKEN }
          replace: { proxy_value: CHAT_TOKEN, match_headers: [Authorization] }
          rules: [{ host: chat.example }]
"#;

/// The key of RFC 6455 section 1.3, and the answer that proves that a server understood it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

async fn proxy(origin: &RawOrigin) -> Proxy {
    Proxy::builder(KEYFERRY).policy(POLICY).env("CHAT_TOKEN", "real").route_raw(origin).start().await
}

fn handshake(origin: &RawOrigin) -> String {
    format!(
        "GET /socket HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nAuthorization: Bearer CHAT_TOKEN\r\n\r\n",
        origin.authority()
    )
}

/// A connection on which the upgrade has been asked for.
async fn ask(proxy: &Proxy, origin: &RawOrigin) -> TlsStream<TcpStream> {
    let mut stream = tunnel::open_secure(proxy, &origin.authority()).await;
    stream.write_all(handshake(origin).as_bytes()).await.expect("send the handshake");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_verified_101_bytes_flow_both_ways_until_each_side_has_finished() {
    let origin = RawOrigin::start("chat.example", async |mut connection: RawConnection| {
        assert_eq!(connection.header("authorization"), Some("Bearer real"));
        assert_eq!(connection.header("sec-websocket-key"), Some(KEY));
        // The first bytes of the new protocol travel with the 101 itself.
        connection.send(switching(ACCEPT) + "welcome").await;
        let said = connection.receive_all().await;
        // The client's side is closed; ours is not.
        connection.send([b"you said: ".as_slice(), &said].concat()).await;
        connection.finish_sending().await;
    })
    .await;
    let proxy = proxy(&origin).await;
    let mut stream = ask(&proxy, &origin).await;

    let answer = within("the 101", read_answer_head(&mut stream)).await.expect("an answer");
    assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, Some(ACCEPT)));
    let mut welcome = [0; 7];
    within("the welcome", stream.read_exact(&mut welcome)).await.expect("the welcome");
    assert_eq!(&welcome, b"welcome");
    stream.write_all(b"\x81\x02not checked\xff").await.expect("send");
    stream.shutdown().await.expect("half-close");
    let mut rest = Vec::new();
    within("the rest", stream.read_to_end(&mut rest)).await.expect("the rest");

    assert_eq!(rest, b"you said: \x81\x02not checked\xff");
    let ended = proxy.stop().await;
    ended.assert_never_wrote("Bearer real");
    let record = ended.only_record();
    let audit = &record["audit"];
    assert_eq!(
        json!([
            audit["status_code"],
            audit["action"],
            audit["bytes_in"],
            audit["bytes_out"],
            audit["upstream_protocol"]
        ]),
        json!([101, "allow", 14, 31, "h1"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_answered_otherwise_is_an_ordinary_request() {
    let origin = RawOrigin::start("chat.example", async |mut connection: RawConnection| {
        connection.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 9\r\n\r\nnot today").await;
        connection.receive_all().await;
    })
    .await;
    let proxy = proxy(&origin).await;
    let mut stream = ask(&proxy, &origin).await;

    let answer =
        within("the answer", keyferry_tests::http1::read_answer(&mut stream)).await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (426, b"not today".as_slice()));

    // The connection goes on as HTTP, each request judged.
    let forbidden = format!("GET /admin HTTP/1.1\r\nHost: {}\r\n\r\n", origin.authority());
    let refused = tunnel::exchange(&mut stream, forbidden).await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (403, Some("path_not_allowed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_a_refused_upgrade_are_read_as_a_request_and_judged() {
    let origin = RawOrigin::start("chat.example", async |mut connection: RawConnection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno\n").await;
        let rest = connection.receive_all().await;
        assert_eq!(rest, b"", "the upstream got bytes of a tunnel that was never opened");
    })
    .await;
    let proxy = proxy(&origin).await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
    let smuggled = format!("GET /admin HTTP/1.1\r\nHost: {}\r\n\r\n", origin.authority());
    stream.write_all((handshake(&origin) + &smuggled).as_bytes()).await.expect("send both");

    let first =
        within("the first answer", keyferry_tests::http1::read_answer(&mut stream)).await.expect("an answer");
    assert_eq!((first.status, first.body.as_slice()), (200, b"no\n".as_slice()));
    // Either the second request is answered for what it is, or the connection has ended.
    if let Ok(second) = within("the second answer", keyferry_tests::http1::read_answer(&mut stream)).await {
        assert_eq!(second.status, 403);
    }
    assert!(proxy.stop().await.records().iter().all(|record| record["audit"]["status_code"] != 101));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_101_that_proves_nothing_is_not_believed() {
    let answers = [
        switching("bm90IHRoZSByaWdodCBhbnN3ZXIhIQ=="),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_owned(),
        switching(ACCEPT).replace("Upgrade: websocket", "Upgrade: h2c"),
        switching(ACCEPT).replace("Connection: Upgrade\r\n", ""),
    ];
    for fake in answers {
        let sent = fake.clone();
        let origin = RawOrigin::start("chat.example", move |mut connection: RawConnection| {
            let sent = sent.clone();
            async move {
                connection.send(sent + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
                connection.receive_all().await;
            }
        })
        .await;
        let proxy = proxy(&origin).await;
        let mut stream = ask(&proxy, &origin).await;

        let answer =
            within("the answer", keyferry_tests::http1::read_answer(&mut stream)).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (502, Some("upstream_protocol")),
            "{fake}"
        );
        assert_eq!(proxy.stop().await.only_record()["audit"]["reason"], "upstream_protocol");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_101_that_nobody_asked_for_is_a_fault_of_the_upstream() {
    let origin = RawOrigin::start("chat.example", async |mut connection: RawConnection| {
        connection.send(switching(ACCEPT) + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
        connection.receive_all().await;
    })
    .await;
    let proxy = proxy(&origin).await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;

    let request = format!("GET /other HTTP/1.1\r\nHost: {}\r\n\r\n", origin.authority());
    let answer = tunnel::exchange(&mut stream, request).await;

    assert_eq!((answer.status, answer.json()["reason"].as_str()), (502, Some("upstream_protocol")));
}
