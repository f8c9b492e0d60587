//! Upgrades: a tunnel after a verified 101, an ordinary response otherwise (T27).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use keyferry_tests::exposition::Page;
use keyferry_tests::http1::{read_answer, read_answer_head};
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::websocket::{
    ACCEPT, TOKEN, ask, builder, close, collected, handshake, listening, masked, plain, proxy, read_frame,
    switching,
};
use keyferry_tests::{tunnel, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

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
        let proxy = proxy(KEYFERRY, &origin).await;
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        let asked = handshake(&origin.authority())
            .replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"));
        stream.write_all(asked.as_bytes()).await.expect("send the handshake");
        let read = async {
            match fault {
                Some(_) => read_answer(&mut stream).await,
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
        let proxy = proxy(KEYFERRY, &origin).await;
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        let asked = handshake(&origin.authority())
            .replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat.v1, chat.v2\r\n\r\n");
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
    let proxy = proxy(KEYFERRY, &origin).await;
    let mut stream = ask(&proxy, &origin).await;

    let answer = within("the answer", read_answer(&mut stream)).await.expect("an answer");
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
    let proxy = proxy(KEYFERRY, &origin).await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
    let smuggled = format!("GET /admin HTTP/1.1\r\nHost: {}\r\n\r\n", origin.authority());
    stream.write_all((handshake(&origin.authority()) + &smuggled).as_bytes()).await.expect("send both");

    let first = within("the first answer", read_answer(&mut stream)).await.expect("an answer");
    assert_eq!((first.status, first.body.as_slice()), (200, b"no\n".as_slice()));
    // Either the second request is answered for what it is, or the connection has ended.
    if let Ok(second) = within("the second answer", read_answer(&mut stream)).await {
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
        let proxy = proxy(KEYFERRY, &origin).await;
        let mut stream = ask(&proxy, &origin).await;

        let answer = within("the answer", read_answer(&mut stream)).await.expect("an answer");
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
    let proxy = proxy(KEYFERRY, &origin).await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;

    let request = format!("GET /other HTTP/1.1\r\nHost: {}\r\n\r\n", origin.authority());
    let answer = tunnel::exchange(&mut stream, request).await;

    assert_eq!((answer.status, answer.json()["reason"].as_str()), (502, Some("upstream_protocol")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_in_a_101_is_not_passed_on() {
    let origin = RawOrigin::start("chat.example", async |mut connection: RawConnection| {
        let head = switching(ACCEPT).replace("\r\n\r\n", "\r\nContent-Length: 9\r\nX-End: kept\r\n\r\n");
        connection.send([head.as_bytes(), &plain(0x81, b"hello")].concat()).await;
        connection.receive_all().await;
    })
    .await;
    let proxy = proxy(KEYFERRY, &origin).await;
    let mut stream = ask(&proxy, &origin).await;
    let answer = within("the 101", read_answer_head(&mut stream)).await.expect("an answer");
    let fields = (answer.header("content-length"), answer.header("x-end"));
    assert_eq!((answer.status, fields), (101, (None, Some("kept"))));
    assert_eq!(within("a frame", read_frame(&mut stream)).await, Some((0x81, b"hello".to_vec())));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_sent_along_with_the_handshake_arrive_behind_it() {
    let request = b"GET /admin HTTP/1.1\r\n\r\n";
    let (origin, mut frames) = listening(plain(0x81, TOKEN.as_bytes())).await;
    let proxy = proxy(KEYFERRY, &origin).await;
    let asked = handshake(&origin.authority());
    let both = [asked.as_bytes(), &masked(0x81, b"CHAT_TOKEN"), &masked(0x82, request)].concat();
    // In one write, or with the cut anywhere else than between them.
    for cut in [both.len(), asked.len() - 1, asked.len() + 1, asked.len() + 9] {
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        for piece in [&both[..cut], &both[cut..]] {
            stream.write_all(piece).await.expect("send");
            stream.flush().await.expect("send");
        }
        let answer = within("the 101", read_answer_head(&mut stream)).await.expect("an answer");
        assert_eq!(answer.status, 101, "{cut}");
        assert_eq!(within("a frame", read_frame(&mut stream)).await, Some((0x81, b"CHAT_TOKEN".to_vec())));
        let expected = [(0x81, TOKEN.as_bytes().to_vec()), (0x82, request.to_vec())];
        assert_eq!(collected(&mut frames, 2).await, expected, "{cut}");
    }
}

/// Stands between the proxy and an origin: where, and how many TLS records of the proxy's looked like data.
async fn counting_records(origin: &RawOrigin) -> (u16, Arc<AtomicUsize>) {
    let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
    let port = socket.local_addr().expect("its address").port();
    let (to, counted) = (origin.port(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&counted);
    tokio::spawn(async move {
        let (proxy, _) = socket.accept().await.expect("a connection");
        let origin = TcpStream::connect(("127.0.0.1", to)).await.expect("the origin");
        let ((mut from_proxy, mut to_proxy), (mut from_origin, mut to_origin)) =
            (proxy.into_split(), origin.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_origin, &mut to_proxy).await });
        // RFC 8446 section 5.1: a type, two bytes of version, the length.
        let mut head = [0; 5];
        while from_proxy.read_exact(&mut head).await.is_ok() {
            let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            from_proxy.read_exact(&mut record).await.expect("all of the record");
            counter.fetch_add(usize::from(head[0] == 23), Ordering::SeqCst);
            to_origin.write_all(&[&head[..], &record].concat()).await.expect("the origin listens");
        }
    });
    (port, counted)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_is_written_at_once() {
    // Some servers read it once, and take what has come for all of it.
    let (origin, _frames) = listening(Vec::new()).await;
    let (port, records) = counting_records(&origin).await;
    let proxy = builder(KEYFERRY).name(origin.name()).port(port).start().await;
    let authority = format!("{}:{port}", origin.name());
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    stream.write_all(handshake(&authority).as_bytes()).await.expect("send the handshake");
    let answer = within("the 101", read_answer_head(&mut stream)).await.expect("an answer");
    assert_eq!(answer.status, 101);
    // The last message of the TLS handshake, which looks like data, and one record with the whole head.
    assert_eq!(records.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_speaks_http2_alone_is_refused_by_what_it_lacks() {
    let origin = Origin::builder("chat.example").alpn(&["h2"]).start().await;
    let proxy = builder(KEYFERRY).route(&origin).start().await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
    let answer = tunnel::exchange(&mut stream, handshake(&origin.authority())).await;
    assert_eq!((answer.status, answer.reason.as_str()), (502, "upstream_protocol"));
    let message = answer.json()["message"].to_string();
    assert!(message.contains("chat.example speaks none of http/1.1"), "{message}");
    assert_eq!(origin.received(), []);
    assert_eq!(proxy.stop().await.only_record()["audit"]["reason"], "upstream_protocol");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phases_of_a_handshake_are_counted_like_those_of_any_request() {
    let origin = RawOrigin::start("chat.example", async |mut connection: RawConnection| {
        if connection.header("upgrade").is_some() && connection.head().starts_with("GET /socket ") {
            connection.send(switching(ACCEPT)).await;
            connection.receive_all().await;
        }
    })
    .await;
    let proxy = proxy(KEYFERRY, &origin).await;
    for (path, status) in [("/socket", 101), ("/other", 502)] {
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        let asked = handshake(&origin.authority()).replace("/socket", path);
        stream.write_all(asked.as_bytes()).await.expect("send the handshake");
        let answer = within("the answer", read_answer_head(&mut stream)).await.expect("an answer");
        assert_eq!(answer.status, status, "{path}");
    }
    let page = proxy.admin("/metrics").await;
    let page = Page::parse(&String::from_utf8_lossy(&page.body));
    for (phase, count) in [("dns", 2.0), ("connect", 2.0), ("tls", 2.0), ("header", 1.0)] {
        let series = format!("keyferry_upstream_phase_seconds_count{{phase=\"{phase}\"}}");
        assert_eq!(page.get(&series), count, "{phase}");
    }
    assert_eq!(page.get("keyferry_upstream_failures_total{phase=\"header\"}"), 1.0);
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
    let proxy = proxy(KEYFERRY, &origin).await;
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
        let proxy = proxy(KEYFERRY, &origin).await;
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
