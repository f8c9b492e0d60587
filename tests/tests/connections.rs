//! What one request does to a connection must not reach another request: on pooled connections to upstreams, and behind
//! requests that might have changed the protocol.

use std::time::Duration;

use keyferry_tests::http1;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{tunnel, within};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

fn upgrade(authority: &str, fields: &str) -> String {
    format!(
        "GET /socket HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_a_handshake_with_a_body_is_refused_before_an_upstream_waits_for_it() {
    let origin = Origin::builder("api.example").alpn(&["http/1.1"]).start().await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    let authority = origin.authority();
    for fields in ["Content-Length: 99\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let answer = tunnel::exchange(&mut stream, upgrade(&authority, fields)).await;
        assert_eq!((answer.status, answer.reason.as_str()), (400, "malformed_request"), "{fields}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_upgrade_leaves_its_connection_to_nobody() {
    let origin = RawOrigin::start("api.example", async |mut connection: RawConnection| {
        connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").await;
        // A second request on this connection would be answered with what no test expects.
        if connection.receive().await.is_some() {
            connection.send(b"HTTP/1.1 500 Reused\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route_raw(&origin).start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    assert_eq!(tunnel::exchange(&mut stream, upgrade(&authority, "")).await.status, 404);
    let plain = format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    assert_eq!(tunnel::exchange(&mut stream, plain).await.status, 404);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_does_not_lend_a_busy_connection_to_the_next_request() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let origin = RawOrigin::start("api.example", move |mut connection: RawConnection| {
        let ended = ended.clone();
        async move {
            // Answers before the body has come.
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await;
            let _ = ended.send(connection.receive_all().await);
        }
    })
    .await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route_raw(&origin).start().await;
    let authority = origin.authority();
    let mut slow = tunnel::open_secure(&proxy, &authority).await;
    let request =
        format!("POST /slow HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 1000000\r\n\r\n0123456789");
    assert_eq!(tunnel::exchange(&mut slow, request).await.body, b"early");
    // The exchange is over, so its connection is, and nothing that the client still sends goes out on it.
    let rest = tokio::time::timeout(Duration::from_secs(10), ends.recv()).await.expect("the connection ends");
    let _ = slow.write_all(b"more of the body").await;
    assert!(!rest.expect("an end").windows(4).any(|bytes| bytes == b"more"));

    let sandbox = Sandbox::of(&proxy);
    let next = tokio::time::timeout(Duration::from_secs(20), sandbox.fetch([origin.url("/next")])).await;
    assert_eq!(next.expect("the next request does not wait for the slow one").status, 200);
    assert_eq!(origin.connections(), 2);
}

/// A masked ping without content, to a reader of HTTP a malformed head; and the answer to it.
const PING: &[u8] = &[0x89, 0x80, 1, 2, 3, 4];
const PONG: &[u8] = &[0x8a, 0];

#[tokio::test(flavor = "multi_thread")]
async fn t27_a_pipelined_request_does_not_decide_for_the_handshake_behind_it() {
    let origin = RawOrigin::start("api.example", async |mut connection: RawConnection| {
        if connection.header("upgrade").is_none() {
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            return;
        }
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let switching = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        connection.send(switching.as_bytes()).await;
        assert_eq!(connection.receive().await.expect("a frame"), PING);
        connection.send(PONG).await;
    })
    .await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route_raw(&origin).start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let first = format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(format!("{first}{}", upgrade(&authority, "")).as_bytes()).await.expect("send");
    assert_eq!(within("an answer", http1::read_answer(&mut stream)).await.expect("an answer").status, 200);
    let head = within("the 101", http1::read_head(&mut stream)).await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");

    stream.write_all(PING).await.expect("send");
    let mut answer = [0; 2];
    within("the frame", stream.read_exact(&mut answer)).await.expect("the frame");
    assert_eq!(answer, PONG);
    drop(stream);
    assert_eq!(proxy.wait_for_records(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_with_a_body_of_unknown_length_keeps_it() {
    for alpn in ["http/1.1", "h2"] {
        let origin = Origin::builder("api.example").alpn(&[alpn]).start().await;
        let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
        let authority = origin.authority();
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let request = format!(
            "GET /_search HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        assert_eq!(tunnel::exchange(&mut stream, request).await.status, 200);
        assert_eq!(origin.only_request().body(), "hello", "{alpn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t30_request_trailers_go_no_further() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {authority}\r\nTrailer: authorization\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    );
    assert_eq!(tunnel::exchange(&mut stream, request).await.status, 200);
    let payload = origin.only_request().payload.expect("a body");
    assert_eq!((payload.start.as_str(), payload.trailers), ("hello", vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_and_the_asterisk_are_not_forwarded() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    let authority = origin.authority();
    for (line, status, reason) in
        [("TRACE /x", 403, "method_not_allowed"), ("GET *", 400, "malformed_request")]
    {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let answer =
            tunnel::exchange(&mut stream, format!("{line} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
        assert_eq!((answer.status, answer.reason.as_str()), (status, reason), "{line}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_response_with_two_framings_is_not_passed_on() {
    for fields in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n");
        let origin = RawOrigin::start("api.example", move |mut connection: RawConnection| {
            let answer = answer.clone();
            async move {
                connection.send(answer.as_bytes()).await;
                let _ = connection.receive_all().await;
            }
        })
        .await;
        let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route_raw(&origin).start().await;
        let answer = Sandbox::of(&proxy).fetch([origin.url("/")]).await;
        assert_eq!((answer.status, answer.reason().as_str()), (502, "upstream_protocol"), "{fields}");
        let record = proxy.stop().await.only_record();
        assert_eq!(
            json!([record["audit"]["action"], record["audit"]["reason"]]),
            json!(["error", "upstream_protocol"])
        );
    }
}
