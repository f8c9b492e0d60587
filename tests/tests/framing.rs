//! Bytes that parsers read in more than one way, on the listener itself and inside a tunnel: each is refused before the
//! upstream sees any of it, and each leaves one record.

use keyferry_tests::http1;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::{tunnel, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

async fn start() -> (Origin, Proxy) {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    (origin, proxy)
}

/// The record of the only request that was not let through.
fn reason(records: &[serde_json::Value]) -> &str {
    let refused: Vec<_> = records.iter().filter(|record| record["audit"]["action"] == "reject").collect();
    assert_eq!(refused.len(), 1, "{records:#?}");
    refused[0]["audit"]["reason"].as_str().expect("a reason")
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_framing_that_two_parsers_read_in_two_ways_never_leaves() {
    let fields = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "ambiguous_request"),
        ("Content-Length: 5\r\nContent-Length: 5", "ambiguous_request"),
        ("Content-Length: 5\r\nContent-Length: 6", "ambiguous_request"),
        ("Content-Length: +5", "malformed_request"),
        ("Content-Length: 5, 5", "malformed_request"),
        ("Transfer-Encoding: gzip, chunked", "ambiguous_request"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "ambiguous_request"),
        ("Transfer-Encoding : chunked", "malformed_request"),
        ("X: y\r\n folded: z", "malformed_request"),
        ("X: y\nTransfer-Encoding: chunked", "malformed_request"),
        ("X: a\0b", "malformed_request"),
    ];
    for (fields, expected) in fields {
        let (origin, proxy) = start().await;
        let authority = origin.authority();
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let smuggled = format!(
            "POST / HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        );
        let answer = tunnel::exchange(&mut stream, smuggled).await;
        assert_eq!((answer.status, answer.reason.as_str()), (400, expected), "{fields:?}");
        let mut rest = Vec::new();
        let _ = within("the end of the connection", stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{fields:?}: {}", String::from_utf8_lossy(&rest));

        assert_eq!(origin.received(), [], "{fields:?}");
        assert_eq!(reason(&proxy.stop().await.records()), expected, "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_broken_chunk_ends_the_request_and_the_connection() {
    for chunks in
        ["5\nhello\n0\n\n", "5\r\nhello!\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "fffffffffffffffff\r\n"]
    {
        let (origin, proxy) = start().await;
        let authority = origin.authority();
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let head = format!("POST /up HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let behind = format!("GET /smuggled HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.write_all(format!("{head}{chunks}{behind}").as_bytes()).await.expect("send");
        let mut answer = Vec::new();
        let _ = within("the end of the connection", stream.read_to_end(&mut answer)).await;

        // The upstream may have seen the head, and must never see the body's end or what stands behind it.
        assert!(origin.received().iter().all(|request| request.target == "/up"), "{chunks:?}");
        let records = proxy.stop().await.records();
        assert_eq!(records.len(), 1, "{chunks:?}: {records:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t25_requests_in_one_write_are_each_judged_and_answered_in_turn() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let pipelined = format!(
        "POST /1 HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 3\r\n\r\none\
         POST /2 HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: other.example\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: {authority}\r\nBad Name: x\r\n\r\n"
    );
    stream.write_all(pipelined.as_bytes()).await.expect("send");
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(within("an answer", http1::read_answer(&mut stream)).await.expect("an answer").status);
    }
    assert_eq!(statuses, [200, 200, 421, 400]);

    let seen: Vec<_> =
        origin.received().iter().map(|seen| (seen.target.clone(), seen.body().to_owned())).collect();
    assert_eq!(seen, [("/1".to_owned(), "one".to_owned()), ("/2".to_owned(), "two".to_owned())]);
    assert_eq!(proxy.stop().await.records().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_arrives_byte_by_byte_is_a_head() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    for byte in format!("POST /x HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 2\r\n\r\nab").bytes() {
        stream.write_all(&[byte]).await.expect("send");
        stream.flush().await.expect("send");
    }
    let answer = within("the answer", http1::read_answer(&mut stream)).await.expect("an answer");
    assert_eq!((answer.status, origin.only_request().body()), (200, "ab"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t33_heads_beyond_the_limits_are_refused_by_name_and_recorded() {
    for (head, status, expected) in [
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(17_000)), 414, "target_too_long"),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n", "y".repeat(70_000)), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(101)), 431, "head_too_large"),
    ] {
        let (origin, proxy) = start().await;
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        let answer =
            tunnel::exchange(&mut stream, format!("{head}Host: {}\r\n\r\n", origin.authority())).await;
        assert_eq!((answer.status, answer.reason.as_str()), (status, expected));
        assert_eq!((origin.connections(), reason(&proxy.stop().await.records())), (0, expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t32_a_head_that_does_not_end_is_answered_after_ten_seconds() {
    let (origin, proxy) = start().await;
    let mut inside = tunnel::open_secure(&proxy, &origin.authority()).await;
    inside.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.expect("send");
    inside.flush().await.expect("send");
    let mut outside = tunnel::connect(&proxy).await;
    outside.write_all(b"CONNECT api.exam").await.expect("send");

    let inside = within("the answer", http1::read_answer(&mut inside)).await.expect("an answer");
    let outside = within("the answer", http1::read_answer(&mut outside)).await.expect("an answer");
    for answer in [inside, outside] {
        assert_eq!((answer.status, answer.reason.as_str()), (408, "request_timeout"));
    }
    assert_eq!((origin.connections(), proxy.stop().await.records().len()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_inside_a_tunnel_is_not_opened() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let answer =
        tunnel::exchange(&mut stream, format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"))
            .await;
    assert_eq!((answer.status, answer.reason.as_str()), (400, "malformed_request"));
    // The connection is HTTP still: what stands behind a refused CONNECT is a request.
    let next =
        tunnel::exchange(&mut stream, format!("GET /next HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
    assert_eq!((next.status, origin.only_request().target), (200, "/next".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_bytes_sent_before_the_upgrade_is_decided_are_not_a_request_of_the_upstreams() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let handshake = format!(
        "GET /status/200 HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let behind = "GET /smuggled HTTP/1.1\r\nHost: other.example\r\n\r\n";
    let answer = tunnel::exchange(&mut stream, format!("{handshake}{behind}")).await;
    assert_eq!(answer.status, 200);
    // The upgrade was declined, so the bytes behind it are a request, and are judged as one.
    let second = within("the answer", http1::read_answer(&mut stream)).await.expect("an answer");
    assert_eq!((second.status, second.reason.as_str()), (421, "destination_mismatch"));
    assert_eq!(origin.received().len(), 1);
}
