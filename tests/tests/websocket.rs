//! Upgrades: a tunnel after a verified 101, an ordinary response otherwise (T27).

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyferry_tests::http1::read_answer_head;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::{tunnel, within};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

const TOKEN: &str = "real-chat-token";
const ELSEWHERE: &str = "kf_00112233445566778899aabbccddeeff";

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { rules: [{ host: chat.example, paths: ["/socket", "/other"] }] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: CHAT_TOKEN }
          replace: { proxy_value: CHAT_TOKEN, match_headers: [Authorization], match_body: true }
          rules: [{ host: chat.example }]
        - source: { type: env, var: OTHER_TOKEN }
          replace: { proxy_value: kf_00112233445566778899aabbccddeeff }
          rules: [{ host: other.example }]
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
    let proxy =
        Proxy::builder(KEYFERRY).policy(POLICY).env("CHAT_TOKEN", TOKEN).env("OTHER_TOKEN", "other-token");
    proxy.route_raw(origin).start().await
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

/// A connection that has switched.
async fn switched(proxy: &Proxy, origin: &RawOrigin) -> TlsStream<TcpStream> {
    let mut stream = ask(proxy, origin).await;
    let answer = within("the 101", read_answer_head(&mut stream)).await.expect("an answer");
    assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, Some(ACCEPT)));
    stream
}

/// A frame of a client, masked.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    assert!(payload.len() < 126, "short ones will do");
    let masked = payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, key)| byte ^ key);
    [first, 0x80 | payload.len() as u8].into_iter().chain(MASK).chain(masked).collect()
}

/// A frame of a server.
fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short ones will do");
    [&[first, payload.len() as u8][..], payload].concat()
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// The next frame: its first byte, and its payload unmasked. None at the end of the stream.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let second = stream.read_u8().await.ok()?;
    assert!(second & 0x7f < 126, "short ones will do");
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await.ok()?;
    }
    let mut payload = vec![0; usize::from(second & 0x7f)];
    stream.read_exact(&mut payload).await.ok()?;
    payload.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Some((first, payload))
}

/// Every frame until the stream ends.
async fn read_frames(stream: &mut (impl AsyncRead + Unpin)) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = within("a frame, or the end", read_frame(stream)).await {
        frames.push(frame);
    }
    frames
}

/// An origin that switches, sends `greeting` with the 101, and tells what frames it gets.
async fn listening(greeting: Vec<u8>) -> (RawOrigin, mpsc::UnboundedReceiver<(u8, Vec<u8>)>) {
    let (sender, frames) = mpsc::unbounded_channel();
    let origin = RawOrigin::start("chat.example", move |mut connection: RawConnection| {
        let (sender, greeting) = (sender.clone(), greeting.clone());
        async move {
            connection.send([switching(ACCEPT).as_bytes(), &greeting].concat()).await;
            while let Some(frame) = read_frame(connection.stream()).await {
                // The test may have seen enough.
                let _ = sender.send(frame);
            }
            connection.finish_sending().await;
        }
    })
    .await;
    (origin, frames)
}

async fn collected(frames: &mut mpsc::UnboundedReceiver<(u8, Vec<u8>)>, count: usize) -> Vec<(u8, Vec<u8>)> {
    let mut got = Vec::new();
    while got.len() < count {
        got.push(within("a frame at the origin", frames.recv()).await.expect("it is open"));
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_messages_are_swapped_and_redacted_also_across_fragments_and_the_record_says_so() {
    let greeting = [
        // The first frames of the new protocol travel with the 101 itself.
        plain(0x01, b"welcome, real-ch"),
        plain(0x89, b"alive?"),
        plain(0x80, b"at-token"),
        plain(0x82, b"\xffreal-chat-token\xff"),
    ]
    .concat();
    let (origin, mut frames) = listening(greeting).await;
    let proxy = proxy(&origin).await;
    let mut stream = switched(&proxy, &origin).await;

    let mut heard = Vec::new();
    let mut text = Vec::new();
    for _ in 0..4 {
        let (first, payload) = within("a frame", read_frame(&mut stream)).await.expect("a frame");
        heard.push(first);
        text.extend(payload);
    }
    assert_eq!(
        (heard.as_slice(), text.as_slice()),
        ([0x01, 0x89, 0x80, 0x82].as_slice(), b"welcome, alive?CHAT_TOKEN\xffCHAT_TOKEN\xff".as_slice(),)
    );
    for frame in [
        masked(0x01, b"{\"auth\":\"CHAT_"),
        masked(0x8a, b"alive?"),
        masked(0x80, b"TOKEN\"}"),
        masked(0x82, b"CHAT_TOKEN in binary"),
        masked(0x88, &close(1000, "bye")),
    ] {
        stream.write_all(&frame).await.expect("send");
        stream.flush().await.expect("send");
    }
    let got = collected(&mut frames, 5).await;
    let expected = [
        (0x01, b"{\"auth\":\"".to_vec()),
        (0x8a, b"alive?".to_vec()),
        (0x80, b"real-chat-token\"}".to_vec()),
        (0x82, b"CHAT_TOKEN in binary".to_vec()),
        (0x88, close(1000, "bye")),
    ];
    assert_eq!(got, expected);
    drop(stream);

    let ended = proxy.stop().await;
    ended.assert_never_wrote(TOKEN);
    assert!(ended.audit.contains("\"request_open\""), "{}", ended.audit);
    let record = ended.only_record();
    let audit = &record["audit"];
    assert_eq!(
        json!([
            audit["status_code"],
            audit["action"],
            audit["upstream_protocol"],
            record["response_transforms"]
        ]),
        json!([101, "allow", "h1", [{ "name": "redact", "action": "allow", "annotations": { "redacted": 2 } }]])
    );
    assert_eq!(
        record["request_transforms"][0]["annotations"]["swapped"],
        json!([{ "secret": "CHAT_TOKEN", "locations": ["header:authorization", "body"] }])
    );
    assert!(audit["bytes_in"].as_u64() > Some(60) && audit["bytes_out"].as_u64() > Some(40), "{record:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_what_breaks_the_protocol_closes_both_sides_with_its_code_and_is_recorded() {
    let from_client = [
        (plain(0x81, b"not masked"), 1002, "not masked"),
        (masked(0xf1, b"RSV"), 1002, "RSV2"),
        (masked(0xc1, b"compressed"), 1002, "RSV1"),
        (masked(0x83, b"opcode"), 1002, "reserved"),
        (masked(0x09, b"fragmented"), 1002, "fragmented"),
        (masked(0x80, b"of nothing"), 1002, "continues no message"),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002, "highest bit"),
        (vec![0x82, 0xfe, 0, 1], 1002, "shortest"),
        (masked(0x81, b"\xc3\x28"), 1007, "UTF-8"),
        (masked(0x88, &close(1005, "")), 1002, "code"),
    ];
    for (bytes, code, what) in from_client {
        let (origin, mut frames) = listening(Vec::new()).await;
        let proxy = proxy(&origin).await;
        let mut stream = switched(&proxy, &origin).await;
        stream.write_all(&bytes).await.expect("send");
        assert_eq!(read_frames(&mut stream).await, [(0x88, close(code, "websocket_violation"))], "{what}");
        assert_eq!(collected(&mut frames, 1).await, [(0x88, close(code, ""))], "{what}");
        drop(stream);
        let ended = proxy.stop().await;
        let record = ended.only_record();
        let seen = (&record["audit"]["reason"], &record["audit"]["status_code"], &record["audit"]["action"]);
        assert_eq!(seen, (&json!("websocket_violation"), &json!(101), &json!("reject")), "{record:#}");
        assert!(ended.audit.contains(what), "{what}: {}", ended.audit);
    }
    for (bytes, code) in
        [(masked(0x81, b"masked"), 1002), (plain(0x81, b"\xff"), 1007), (plain(0x88, b"\x03"), 1002)]
    {
        let (origin, mut frames) = listening(bytes).await;
        let proxy = proxy(&origin).await;
        let mut stream = switched(&proxy, &origin).await;
        assert_eq!(read_frames(&mut stream).await, [(0x88, close(code, "upstream_protocol"))]);
        assert_eq!(collected(&mut frames, 1).await, [(0x88, close(code, ""))]);
        drop(stream);
        let record = proxy.stop().await.only_record();
        assert_eq!(
            (&record["audit"]["reason"], &record["audit"]["action"]),
            (&json!("upstream_protocol"), &json!("error"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t41_a_placeholder_that_is_bound_elsewhere_closes_the_connection_before_it_leaves() {
    for first in [0x01, 0x02] {
        let (origin, mut frames) = listening(Vec::new()).await;
        let proxy = proxy(&origin).await;
        let mut stream = switched(&proxy, &origin).await;
        let (begin, end) = ELSEWHERE.as_bytes().split_at(20);
        stream.write_all(&[masked(first, begin), masked(0x80, end)].concat()).await.expect("send");

        assert_eq!(read_frames(&mut stream).await, [(0x88, close(1008, "placeholder_misdirected"))]);
        assert_eq!(collected(&mut frames, 1).await, [(0x88, close(1008, ""))]);
        drop(stream);
        let record = proxy.stop().await.only_record();
        assert_eq!(
            (&record["audit"]["reason"], &record["audit"]["action"]),
            (&json!("placeholder_misdirected"), &json!("reject"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t67_a_new_policy_closes_it_and_so_does_the_end_of_the_proxy() {
    let (origin, mut frames) = listening(Vec::new()).await;
    let proxy = proxy(&origin).await;
    let mut revoked = switched(&proxy, &origin).await;
    proxy.edit("paths: [\"/socket\", \"/other\"]", "paths: [\"/socket\"], methods: [POST]");
    proxy.signal("HUP").await;
    assert_eq!(read_frames(&mut revoked).await, [(0x88, close(1008, "policy_changed"))]);
    assert_eq!(collected(&mut frames, 1).await, [(0x88, close(1008, ""))]);
    drop(revoked);

    proxy.edit("paths: [\"/socket\"], methods: [POST]", "paths: [\"/socket\"]");
    proxy.signal("HUP").await;
    proxy.wait_for_log("a new configuration is in force", 2).await;
    let mut open = switched(&proxy, &origin).await;
    proxy.terminate().await;
    assert_eq!(read_frames(&mut open).await, [(0x88, close(1001, ""))]);
    assert_eq!(collected(&mut frames, 1).await, [(0x88, close(1001, ""))]);
    drop(open);
    let ended: Vec<_> = proxy.wait().await.records().iter().map(|r| r["audit"]["reason"].clone()).collect();
    assert_eq!(ended, [json!("policy_changed"), json!(null)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_only_known_extensions_are_offered_and_nothing_may_be_answered_that_was_not() {
    let deflate = "permessage-deflate; server_max_window_bits=10";
    let cases: [(&str, &str, &str, Option<&str>); 8] = [
        (
            "x-mystery, permessage-deflate; client_max_window_bits",
            "",
            "permessage-deflate; client_max_window_bits",
            None,
        ),
        ("permessage-deflate; server_max_window_bits=10", deflate, deflate, None),
        ("", "permessage-deflate", "", Some("was not offered")),
        ("x-mystery", "x-mystery", "", Some("was not offered")),
        (deflate, "permessage-deflate; server_max_window_bits=11", deflate, Some("was not offered")),
        (
            deflate,
            "permessage-deflate; server_max_window_bits=10, x-mystery",
            deflate,
            Some("was not offered"),
        ),
        ("permessage-deflate; surprise=1", "", "", None),
        (deflate, "permessage-deflate; =", deflate, Some("cannot be read")),
    ];
    for (offer, answer, goes_on, fault) in cases {
        let (sender, mut offered) = mpsc::unbounded_channel();
        let answered = format!("Sec-WebSocket-Extensions: {answer}\r\n\r\n");
        let origin = RawOrigin::start("chat.example", move |mut connection: RawConnection| {
            let offer = connection.header("sec-websocket-extensions").unwrap_or_default().to_owned();
            sender.send(offer).expect("the test listens");
            let head = switching(ACCEPT).replace("\r\n\r\n", "\r\n");
            let answered =
                if answered.starts_with("Sec-WebSocket-Extensions: \r") { "\r\n" } else { &answered }
                    .to_owned();
            async move {
                connection.send(head + &answered).await;
                connection.receive_all().await;
            }
        })
        .await;
        let proxy = proxy(&origin).await;
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        let asked =
            handshake(&origin).replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"));
        stream.write_all(asked.as_bytes()).await.expect("send the handshake");
        let read = async {
            match fault {
                Some(_) => keyferry_tests::http1::read_answer(&mut stream).await,
                None => read_answer_head(&mut stream).await,
            }
        };
        let got = within("the answer", read).await.expect("an answer");
        assert_eq!(offered.recv().await.as_deref(), Some(goes_on), "{offer}");
        match fault {
            None => {
                let echoed = got.header("sec-websocket-extensions").unwrap_or_default();
                assert_eq!((got.status, echoed), (101, answer), "{offer}");
            }
            Some(what) => {
                let body = got.json();
                assert_eq!(
                    (got.status, body["reason"].as_str()),
                    (502, Some("upstream_protocol")),
                    "{offer}"
                );
                assert!(body["message"].as_str().is_some_and(|message| message.contains(what)), "{body:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subprotocol_is_one_of_those_that_were_offered() {
    for (answer, status) in [("chat.v2", 101), ("chat.v3", 502), ("chat.v1, chat.v2", 502), ("CHAT.V2", 502)]
    {
        let origin = RawOrigin::start("chat.example", move |mut connection: RawConnection| async move {
            assert_eq!(connection.header("sec-websocket-protocol"), Some("chat.v1, chat.v2"));
            let head = switching(ACCEPT)
                .replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {answer}\r\n\r\n"));
            connection.send(head).await;
            connection.receive_all().await;
        })
        .await;
        let proxy = proxy(&origin).await;
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        let asked =
            handshake(&origin).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat.v1, chat.v2\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.expect("send the handshake");
        let got = within("the answer", read_answer_head(&mut stream)).await.expect("an answer");
        assert_eq!(got.status, status, "{answer}");
    }
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

/// An HTTP/2 connection in a tunnel.
async fn http2(proxy: &Proxy, origin: &RawOrigin) -> http2::SendRequest<Empty<Bytes>> {
    let tunnel = tunnel::open(proxy, &origin.authority()).await;
    let tls = tunnel::secure(proxy, tunnel, tunnel::Hello::http2(origin.name())).await.expect("a handshake");
    let (sender, mut connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.expect("HTTP/2");
    let advertised = async {
        while !connection.is_extended_connect_protocol_enabled() {
            let _ = tokio::time::timeout(Duration::from_millis(5), &mut connection).await;
        }
    };
    within("SETTINGS_ENABLE_CONNECT_PROTOCOL", advertised).await;
    tokio::spawn(connection);
    sender
}

/// An extended CONNECT (RFC 8441 section 4).
fn extended(origin: &RawOrigin, path: &str, protocol: &'static str) -> Request<Empty<Bytes>> {
    Request::connect(origin.url(path))
        .version(Version::HTTP_2)
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("authorization", "Bearer CHAT_TOKEN")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Empty::new())
        .expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn t39_a_websocket_over_http2_is_a_verified_upgrade_upstream() {
    let origin = RawOrigin::start("chat.example", |mut connection: RawConnection| async move {
        assert!(connection.head().starts_with("GET /socket HTTP/1.1\r\n"), "{}", connection.head());
        assert_eq!(connection.header("authorization"), Some("Bearer real-chat-token"));
        assert_eq!(connection.header("cookie"), Some("a=1; b=2"));
        assert_eq!(
            (connection.header("upgrade"), connection.header("connection")),
            (Some("websocket"), Some("Upgrade"))
        );
        let accept = accept_for(connection.header("sec-websocket-key").expect("a key of the proxy's"));
        let protocol = "\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        connection.send(switching(&accept).replace("\r\n\r\n", protocol)).await;
        assert_eq!(read_frame(connection.stream()).await, Some((0x81, b"real-chat-token".to_vec())));
        connection.send([plain(0x81, b"real-chat-token"), plain(0x88, &close(1000, ""))].concat()).await;
        assert_eq!(read_frame(connection.stream()).await, Some((0x88, close(1000, ""))));
        connection.finish_sending().await;
    })
    .await;
    let proxy = proxy(&origin).await;
    let mut sender = http2(&proxy, &origin).await;

    let response = within("the answer", sender.send_request(extended(&origin, "/socket", "websocket"))).await;
    let mut response = response.expect("an answer");
    let field =
        |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(
        (response.status().as_u16(), field("sec-websocket-protocol"), field("sec-websocket-accept")),
        (200, Some("chat".to_owned()), None)
    );
    let upgraded = hyper::upgrade::on(&mut response).await.expect("a stream");
    let mut stream = TokioIo::new(upgraded);
    stream.write_all(&masked(0x81, b"CHAT_TOKEN")).await.expect("send");
    stream.flush().await.expect("send");
    assert_eq!(within("the echo", read_frame(&mut stream)).await, Some((0x81, b"CHAT_TOKEN".to_vec())));
    assert_eq!(within("the end", read_frame(&mut stream)).await, Some((0x88, close(1000, ""))));
    stream.write_all(&masked(0x88, &close(1000, ""))).await.expect("send");
    assert_eq!(within("the end of the stream", read_frame(&mut stream)).await, None);
    drop(stream);

    let record = proxy.stop().await.only_record();
    let audit = &record["audit"];
    assert_eq!(
        json!([
            audit["method"],
            audit["status_code"],
            audit["action"],
            audit["client_protocol"],
            audit["upstream_protocol"]
        ]),
        json!(["GET", 200, "allow", "h2", "h1"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t39_what_is_no_websocket_is_no_stream() {
    let cases = [
        // Over HTTP/2 a 2xx would mean that it had switched.
        ("/socket", "websocket", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502, "upstream_protocol"),
        ("/socket", "websocket", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", 426, ""),
        ("/admin", "websocket", "", 403, "path_not_allowed"),
        ("/socket", "connect-udp", "", 400, "malformed_request"),
    ];
    for (path, protocol, answer, status, reason) in cases {
        let origin = RawOrigin::start("chat.example", move |mut connection: RawConnection| async move {
            connection.send(answer).await;
            connection.receive_all().await;
        })
        .await;
        let proxy = proxy(&origin).await;
        let mut sender = http2(&proxy, &origin).await;
        let response = within("the answer", sender.send_request(extended(&origin, path, protocol))).await;
        let response = response.expect("an answer");
        assert_eq!(response.status().as_u16(), status, "{path} {protocol}");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        assert_eq!(body["reason"].as_str().unwrap_or_default(), reason, "{path} {protocol}");
        if protocol != "websocket" {
            assert!(body["message"].as_str().is_some_and(|message| message.contains(protocol)), "{body:#}");
        }
        assert_eq!(origin.connections(), usize::from(!answer.is_empty()));
        drop(sender);
        let record = proxy.stop().await.only_record();
        assert_eq!(record["audit"]["status_code"], status);
    }
}

/// RFC 6455 section 1.3.
fn accept_for(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}
