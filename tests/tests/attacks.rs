//! What a hostile client may write, beside the framing of HTTP/1: HTTP/2 fields that mean something else in HTTP/1, tunnels in
//! tunnels, addresses with more in them than an address.

use keyferry_tests::http2::{self, Outcome};
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::tunnel::{self, Hello};
use keyferry_tests::{http1, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "real-0123456789";

fn builder(origin: &Origin) -> ProxyBuilder {
    Proxy::builder(KEYFERRY).allow(&["api.example"]).route(origin).name("other.example")
}

/// An origin that speaks HTTP/1.1 alone: what arrives over HTTP/2 is written anew for it.
async fn start() -> (Origin, Proxy) {
    let origin = Origin::builder("api.example").alpn(&["http/1.1"]).start().await;
    let proxy = builder(&origin).start().await;
    (origin, proxy)
}

/// Asks over HTTP/2, on a connection of its own.
async fn over_http2(proxy: &Proxy, authority: &str, fields: &[(&str, &str)], body: Option<&str>) -> Outcome {
    let stream = tunnel::open(proxy, authority).await;
    let mut stream = tunnel::secure(proxy, stream, Hello::http2("api.example")).await.expect("a handshake");
    http2::begin(&mut stream).await;
    http2::request(&mut stream, 1, fields, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn t29_fields_of_http2_that_mean_something_in_http1_never_leave() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let good =
        [(":method", "POST"), (":scheme", "https"), (":authority", authority.as_str()), (":path", "/good")];
    assert_eq!(over_http2(&proxy, &authority, &good, Some("body")).await, Outcome::Success);

    let extra = [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("connection", "authorization"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("X-Upper", "y"),
        ("", "y"),
        ("a b", "y"),
        ("a:b", "y"),
        ("x\r\nsmuggled", "y"),
        ("x", "y\r\nsmuggled: z"),
        ("x", "y\nsmuggled: z"),
        ("x", "a\0b"),
        ("content-length", "3"),
        ("content-length", "+4"),
        ("content-length", "4, 4"),
        (":path", "/twice"),
        (":method", "GET"),
        (":unknown", "x"),
        (":status", "200"),
        (":protocol", "websocket"),
        ("host", "other.example"),
        ("host", "api.example@other.example"),
    ];
    for field in extra {
        let fields = [good.as_slice(), &[field]].concat();
        let outcome = over_http2(&proxy, &authority, &fields, Some("body")).await;
        assert_ne!(outcome, Outcome::Success, "{field:?}");
    }

    let userinfo = format!("somebody@{authority}");
    let other = format!("other.example:{}", origin.port());
    let in_place = [
        (":path", ""),
        (":path", "no-slash"),
        (":path", "*"),
        (":path", "/a b"),
        (":path", "/ HTTP/1.1\r\nsmuggled: x"),
        (":path", "https://other.example/"),
        (":path", "//other.example/\0"),
        (":method", "GET /smuggled HTTP/1.1\r\nx:"),
        (":method", "CONNECT"),
        (":method", ""),
        (":scheme", "http"),
        (":scheme", "ftp"),
        (":authority", &userinfo),
        (":authority", &other),
        (":authority", "api.example other.example"),
        (":authority", ""),
    ];
    for (name, value) in in_place {
        let fields = good.map(|(known, usual)| (known, if known == name { value } else { usual }));
        let outcome = over_http2(&proxy, &authority, &fields, Some("body")).await;
        assert_ne!(outcome, Outcome::Success, "{name} {value:?}");
    }
    for (missing, _) in good {
        let fields: Vec<_> = good.into_iter().filter(|(name, _)| *name != missing).collect();
        let outcome = over_http2(&proxy, &authority, &fields, Some("body")).await;
        assert_ne!(outcome, Outcome::Success, "without {missing}");
    }
    let behind = [good[0], good[1], good[2], ("x", "y"), good[3]];
    assert_ne!(over_http2(&proxy, &authority, &behind, Some("body")).await, Outcome::Success);

    // A body that outgrows its length is seen after its head may have left; what follows it is the end of the connection.
    let whole = origin
        .received()
        .into_iter()
        .filter(|request| request.payload.as_ref().is_none_or(|payload| payload.complete));
    let arrived: Vec<_> = whole.map(|request| request.target).collect();
    assert_eq!(arrived, ["/good"]);
    // Each came on a connection of its own, and left one record, whoever refused it.
    let asked = 1 + extra.len() + in_place.len() + good.len() + 1;
    assert_eq!(proxy.stop().await.records().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn t29_what_the_library_refuses_by_itself_leaves_a_record_like_any_other() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let good =
        [(":method", "GET"), (":scheme", "https"), (":authority", authority.as_str()), (":path", "/good")];
    let malformed = [good.as_slice(), &[("connection", "close")]].concat();
    let large = "y".repeat(70_000);
    let too_large = [good.as_slice(), &[("x", large.as_str())]].concat();

    let stream = tunnel::open(&proxy, &authority).await;
    let mut stream = tunnel::secure(&proxy, stream, Hello::http2("api.example")).await.expect("a handshake");
    http2::begin(&mut stream).await;
    let mut outcomes = Vec::new();
    for (nth, fields) in (0..).zip([good.as_slice(), &malformed, &too_large, &good]) {
        outcomes.push(http2::request(&mut stream, 2 * nth + 1, fields, None).await);
    }
    assert_eq!(outcomes, [Outcome::Success, Outcome::Reset, Outcome::Refused, Outcome::Success]);
    drop(stream);
    // A connection that breaks the protocol before it asks for anything, and one that asks and breaks off.
    for (bytes, id) in [(&b"nonsense"[..], 0), (&[0x82], 1)] {
        let stream = tunnel::open(&proxy, &authority).await;
        let mut stream =
            tunnel::secure(&proxy, stream, Hello::http2("api.example")).await.expect("a handshake");
        http2::begin(&mut stream).await;
        http2::write(&mut stream, http2::HEADERS, 0, id, bytes).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = within("the end of the connection", stream.read_to_end(&mut rest)).await;
    }

    let records = proxy.stop().await.records();
    let of_refused = |record: &&Value| record["audit"]["reason"] == "malformed_request";
    let refused: Vec<_> = records.iter().filter(of_refused).collect();
    assert_eq!((records.len(), refused.len()), (6, 4), "{records:#?}");
    for record in refused {
        let audit = &record["audit"];
        assert_eq!(
            json!([
                audit["host"],
                audit["action"],
                audit["client_protocol"],
                audit["status_code"],
                audit["method"]
            ]),
            json!(["api.example", "reject", "h2", null, ""])
        );
        assert_eq!(record["tunnel"]["target"], authority);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t33_a_list_of_fields_beyond_the_limit_ends_its_stream_over_http2_too() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let fields =
        [(":method", "GET"), (":scheme", "https"), (":authority", authority.as_str()), (":path", "/")];
    let large = "y".repeat(70_000);
    let many: Vec<_> = std::iter::repeat_n(("x", "y"), 3_000).collect();
    for extra in [[("x", large.as_str())].as_slice(), &many] {
        let fields = [fields.as_slice(), extra].concat();
        assert_ne!(over_http2(&proxy, &authority, &fields, None).await, Outcome::Success);
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(over_http2(&proxy, &authority, &fields, None).await, Outcome::Success);
    assert_eq!(proxy.stop().await.records().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn t30_a_connection_list_removes_neither_what_is_injected_nor_the_host() {
    let origin = Origin::builder("api.example").alpn(&["http/1.1"]).start().await;
    let policy = r#"
transforms:
  - { name: allowlist, config: { domains: [api.example] } }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: REAL }
          inject: { header: Authorization, formatter: "Bearer {{ .Value }}" }
          rules: [{ host: api.example }]
"#;
    let proxy = builder(&origin).policy(policy).env("REAL", REAL).start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let answer = tunnel::exchange(
        &mut stream,
        format!(
            "POST / HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer own\r\nContent-Length: 4\r\n\
             Connection: authorization, host\r\nConnection: content-length, transfer-encoding\r\n\r\nbody"
        ),
    )
    .await;
    assert_eq!(answer.status, 200);
    let seen = origin.only_request();
    assert_eq!(
        (seen.header("authorization"), seen.authority.as_str(), seen.body()),
        (Some(format!("Bearer {REAL}").as_str()), authority.as_str(), "body")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn te_is_passed_on_for_trailers_alone() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    for (sent, arrives) in
        [("trailers", Some("trailers")), ("gzip, trailers", Some("trailers")), ("gzip", None)]
    {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: TE\r\nTE: {sent}\r\n\r\n");
        assert_eq!(tunnel::exchange(&mut stream, request).await.status, 200);
        assert_eq!(origin.received().pop().expect("a request").header("te"), arrives, "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t02_an_address_holds_nothing_but_host_and_port() {
    let (origin, proxy) = start().await;
    let (authority, port) = (origin.authority(), origin.port());
    for host in [
        format!("{authority}/"),
        format!("{authority}?"),
        format!("{authority}#"),
        format!("https://{authority}"),
    ] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let answer = tunnel::exchange(&mut stream, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(answer.status, 400, "Host: {host}: {answer:?}");
        let mut stream = tunnel::connect(&proxy).await;
        let connect = format!("CONNECT {host} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        assert_eq!(tunnel::exchange(&mut stream, &connect).await.status, 400, "{connect}");
    }
    for host in [
        format!("somebody@{authority}"),
        format!("other.example@{authority}"),
        format!("{authority}@other.example"),
        format!("{authority}, other.example:{port}"),
        format!("{authority} other.example"),
        format!("api.example:{port}:{port}"),
        format!("api.example:0{port}0"),
        "api.example:".to_owned(),
        "[api.example]".to_owned(),
    ] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let answer = tunnel::exchange(&mut stream, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!([400, 421].contains(&answer.status), "Host: {host}: {answer:?}");

        // What is named to the listener itself is held to the same.
        for request in [
            format!("CONNECT {host} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        ] {
            let mut stream = tunnel::connect(&proxy).await;
            let answer = tunnel::exchange(&mut stream, &request).await;
            assert!([400, 403, 421].contains(&answer.status), "{request}: {answer:?}");
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_the_listener_itself_serves_nothing_but_connect_and_absolute_http() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    for request in [
        format!("GET https://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        format!("GET ftp://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        format!("OPTIONS * HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        format!("GET http://{authority}/ HTTP/1.1\r\nHost: other.example\r\n\r\n"),
        format!("CONNECT {authority} HTTP/1.1\r\nHost: other.example\r\n\r\n"),
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 4\r\n\r\nbody"),
        format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("CONNECT https://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        format!("GET {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
        "CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut stream = tunnel::connect(&proxy).await;
        let answer = tunnel::exchange(&mut stream, &request).await;
        assert!([400, 403, 421].contains(&answer.status), "{request}: {answer:?}");
    }
    // Nor is a target without a scheme read as a path inside a tunnel.
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let inside = format!("GET {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    assert_eq!(tunnel::exchange(&mut stream, inside).await.status, 400);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_sent_along_with_connect_wait_for_the_answer_to_it() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let refused = format!("CONNECT other.example:{} HTTP/1.1\r\nHost: other.example\r\n\r\n", origin.port());
    let connect = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let get = format!("GET http://{authority}/in-cleartext HTTP/1.1\r\nHost: {authority}\r\n\r\n");

    // Behind a refusal stands a request to the proxy; behind a grant, what the tunnel carries.
    let mut stream = tunnel::connect(&proxy).await;
    stream.write_all(format!("{refused}{connect}{connect}").as_bytes()).await.expect("send");
    let first = within("an answer", http1::read_answer(&mut stream)).await.expect("an answer");
    let second = within("an answer", http1::read_answer_head(&mut stream)).await.expect("an answer");
    // The third CONNECT is in the tunnel, where none is opened.
    let third = within("an answer", http1::read_answer(&mut stream)).await.expect("an answer");
    assert_eq!(
        [(first.status, first.reason.as_str()), (second.status, ""), (third.status, third.reason.as_str())],
        [(403, "host_not_allowed"), (200, ""), (400, "malformed_request")]
    );

    let mut stream = tunnel::connect(&proxy).await;
    stream.write_all(format!("{connect}{get}").as_bytes()).await.expect("send");
    let granted = within("an answer", http1::read_answer_head(&mut stream)).await.expect("an answer");
    let inside = within("an answer", http1::read_answer(&mut stream)).await.expect("an answer");
    // Cleartext to an origin that speaks TLS: the request is judged as what it is, and fails there.
    assert_eq!((granted.status, inside.status / 100), (200, 5), "{inside:?}");
    assert_eq!(origin.received(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_tls_and_http2_are_spoken_where_they_belong_and_nowhere_else() {
    let (origin, proxy) = start().await;
    let authority = origin.authority();
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    // TLS inside TLS, and HTTP/2 where HTTP/1.1 was agreed upon.
    for bytes in [hello.as_slice(), preface] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        assert_ended_with_400(&mut stream, bytes).await;
    }
    // HTTP/2 in the clear, inside a tunnel.
    let mut stream = tunnel::open(&proxy, &authority).await;
    assert_ended_with_400(&mut stream, preface).await;
    // HTTP/1.1 where HTTP/2 was agreed upon.
    let stream = tunnel::open(&proxy, &authority).await;
    let mut stream = tunnel::secure(&proxy, stream, Hello::http2("api.example")).await.expect("a handshake");
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes()).await.expect("send");
    let mut rest = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP/1.1"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(origin.connections(), 0);
}

async fn assert_ended_with_400<S>(stream: &mut S, bytes: &[u8])
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(bytes).await.expect("send");
    stream.flush().await.expect("send");
    // A line without an end is waited for.
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let _ = within("the end of the tunnel", stream.read_to_end(&mut rest)).await;
    let said = String::from_utf8_lossy(&rest);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t32_a_handshake_that_does_not_end_is_given_up_after_ten_seconds() {
    let (origin, proxy) = start().await;
    let mut stream = tunnel::open(&proxy, &origin.authority()).await;
    // The first bytes of a ClientHello.
    stream.write_all(b"\x16\x03\x01\x01\x00\x01").await.expect("send");
    let begun = std::time::Instant::now();
    let mut rest = Vec::new();
    let _ = within("the end of the tunnel", stream.read_to_end(&mut rest)).await;
    assert!(begun.elapsed().as_secs() >= 9, "{:?}", begun.elapsed());
    let records: Vec<Value> = proxy.stop().await.records();
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0]["audit"]["reason"], "request_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn t35_a_body_that_waits_to_be_asked_for_is_not_asked_for_where_the_policy_says_no() {
    let origin = Origin::builder("api.example").alpn(&["http/1.1"]).start().await;
    let rules =
        "transforms: [{ name: allowlist, config: { rules: [{ host: api.example, paths: [/open] }] } }]\n";
    let proxy = builder(&origin).policy(rules).start().await;
    let authority = origin.authority();
    for (path, first) in [("/open", 100), ("/closed", 403)] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        );
        assert_eq!(tunnel::exchange(&mut stream, request).await.status, first, "{path}");
    }
    assert!(origin.received().iter().all(|request| request.target == "/open"));
}
