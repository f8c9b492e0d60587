//! What a hostile or hacked upstream may answer: no more of the proxy's memory than its limits say, no answer to another's request, and
//! no value back by a way that nobody thought of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyferry_tests::authority::{Authority, Validity};
use keyferry_tests::http1::{self, Answer};
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::{http2, tunnel, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "real-value-0123456789";

const POLICY: &str = r#"
transforms:
  - { name: allowlist, config: { domains: [api.example] } }
  - name: secrets
    config:
      secrets:
        - { source: { type: env, var: REAL }, replace: { proxy_value: API_KEY }, rules: [{ host: api.example }] }
"#;

fn proxy(origin: &RawOrigin) -> ProxyBuilder {
    Proxy::builder(KEYFERRY).policy(POLICY).env("REAL", REAL).route_raw(origin)
}

fn get(origin: &RawOrigin, fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", origin.authority())
}

/// Answers every request of a connection with these bytes.
async fn answering(answer: impl AsRef<[u8]> + Send + Sync + Clone + 'static) -> RawOrigin {
    RawOrigin::start("api.example", move |mut connection: RawConnection| {
        let answer = answer.clone();
        async move {
            connection.send(answer.as_ref()).await;
            while connection.receive().await.is_some() {
                connection.send(answer.as_ref()).await;
            }
        }
    })
    .await
}

async fn ask(proxy: &Proxy, origin: &RawOrigin, fields: &str) -> Answer {
    let mut stream = tunnel::open_secure(proxy, &origin.authority()).await;
    tunnel::exchange(&mut stream, get(origin, fields)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn t43_the_words_behind_a_status_are_the_proxys_own() {
    let origin = answering(format!("HTTP/1.1 404 no {REAL} here\r\nContent-Length: 0\r\n\r\n")).await;
    let proxy = proxy(&origin).start().await;
    let answer = ask(&proxy, &origin, "Authorization: Bearer API_KEY\r\n").await;
    assert_eq!((answer.status, answer.reason.as_str()), (404, "Not Found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t44_a_part_that_nobody_asked_for_is_searched_like_the_whole() {
    let body = format!("before {REAL} after");
    let answer = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-{}/1000\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n{body}",
        body.len() - 1,
        body.len()
    );
    let origin = answering(answer).await;
    let proxy = proxy(&origin).start().await;
    let answer = ask(&proxy, &origin, "Range: bytes=0-10\r\nAuthorization: Bearer API_KEY\r\n").await;
    assert_eq!(String::from_utf8_lossy(&answer.body), "before API_KEY after");
    assert_eq!((answer.header("content-length"), answer.header("accept-ranges")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn t44_codings_that_cannot_be_undone_are_not_passed_on() {
    for coding in [
        "gzip, gzip",
        "gzip\r\nContent-Encoding: br",
        "compress",
        "aes128gcm",
        "gzip;q=1",
        "gzip, identity, br",
    ] {
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 4\r\n\r\nabcd");
        let origin = answering(answer).await;
        let proxy = proxy(&origin).start().await;
        let answer = ask(&proxy, &origin, "").await;
        assert_eq!((answer.status, answer.reason.as_str()), (502, "upstream_protocol"), "{coding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t78_heads_of_answers_have_limits() {
    let field = format!("X: {}\r\n", "y".repeat(1000));
    for head in [field.repeat(1000), "X: y\r\n".repeat(100_000), format!("X: {}", "y".repeat(2_000_000))] {
        let origin = answering(format!("HTTP/1.1 200 OK\r\n{head}\r\nContent-Length: 0\r\n\r\n")).await;
        let proxy = proxy(&origin).start().await;
        let answer = ask(&proxy, &origin, "").await;
        assert_eq!((answer.status, answer.reason.as_str()), (502, "upstream_protocol"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t78_a_flood_of_interim_answers_ends_with_the_wait_for_an_answer() {
    let origin = RawOrigin::start("api.example", async |mut connection: RawConnection| {
        let flood = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(100);
        // Ends when the proxy has hung up, and then nobody reads what is sent.
        for _ in 0..600 {
            connection.send(&flood).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let proxy = proxy(&origin).option("upstream_response_header_timeout: 1s").start().await;
    let before = proxy.peak_memory();
    let answer = ask(&proxy, &origin, "").await;
    assert_eq!((answer.status, answer.reason.as_str()), (504, "upstream_timeout"));
    assert!(proxy.peak_memory() - before < 32 << 20, "{} bytes more", proxy.peak_memory() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interim_answer_is_not_the_answer() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n";
    let origin = answering(format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")).await;
    let proxy = proxy(&origin).start().await;
    let answer = ask(&proxy, &origin, "").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"body".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_an_answer_that_comes_before_its_request_answers_nobody() {
    // A second answer behind the first would be read as that of whoever has the connection next.
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst";
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let origin = RawOrigin::start("api.example", move |mut connection: RawConnection| async move {
        connection.send(format!("{first}{forged}")).await;
        connection.receive_all().await;
    })
    .await;
    let proxy = proxy(&origin).start().await;
    for _ in 0..5 {
        assert_eq!(ask(&proxy, &origin, "").await.body, b"first");
        // Whether the second has arrived when the connection is given back is a matter of time; here it has.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(origin.connections(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_a_body_where_none_may_be_answers_nobody() {
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for (method, status, fields) in [
        ("HEAD", "200 OK", "Content-Length: 44\r\n"),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked\r\n"),
        ("GET", "204 No Content", "Content-Length: 44\r\n"),
        ("GET", "204 No Content", "Transfer-Encoding: chunked\r\n"),
        ("GET", "304 Not Modified", "Content-Length: 44\r\n"),
        ("GET", "304 Not Modified", ""),
    ] {
        let origin = RawOrigin::start("api.example", move |mut connection: RawConnection| async move {
            loop {
                connection.send(format!("HTTP/1.1 {status}\r\n{fields}\r\n{forged}")).await;
                if connection.receive().await.is_none() {
                    return;
                }
            }
        })
        .await;
        let proxy = proxy(&origin).start().await;
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        for _ in 0..5 {
            let request = get(&origin, "").replacen("GET", method, 1);
            stream.write_all(request.as_bytes()).await.expect("send");
            let answer = within("the answer", http1::read_answer_head(&mut stream)).await.expect("an answer");
            assert_eq!(answer.status.to_string(), status[..3], "{method} {fields:?}");
            if status.starts_with("204") {
                // A client that went by it would wait (RFC 9110 section 8.6).
                assert_eq!(
                    (answer.header("content-length"), answer.header("transfer-encoding")),
                    (None, None)
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_length_that_is_told_twice_is_passed_on_once() {
    let origin = answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello").await;
    let unsearched = POLICY.replace("[{ host: api.example }]", "[{ host: other.example }]");
    let proxy = proxy(&origin).policy(&unsearched).start().await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
    stream.write_all(get(&origin, "").as_bytes()).await.expect("send");
    let head = within("the answer", http1::read_head(&mut stream)).await.expect("a head");
    assert_eq!(head.to_ascii_lowercase().matches("content-length").count(), 1, "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_lengths_that_cannot_be_are_faults_of_the_upstream() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: -1",
        "Content-Length: 5, 6",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
    ] {
        let origin = answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        let proxy = proxy(&origin).start().await;
        let answer = ask(&proxy, &origin, "").await;
        assert_eq!((answer.status, answer.reason.as_str()), (502, "upstream_protocol"), "{fields}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_broken_chunks_of_an_answer_end_it_in_the_open() {
    for chunks in ["5\r\nhelloX", "zz\r\nhello\r\n", "fffffffffffffffff\r\nhello", "5\r\nhel"] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        let origin = RawOrigin::start("api.example", move |mut connection: RawConnection| async move {
            connection.send(format!("{head}{chunks}")).await;
            connection.finish_sending().await;
            connection.receive_all().await;
        })
        .await;
        let proxy = proxy(&origin).start().await;
        let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
        stream.write_all(get(&origin, "").as_bytes()).await.expect("send");
        let mut all = Vec::new();
        let _ = within("the end of the connection", stream.read_to_end(&mut all)).await;
        let said = String::from_utf8_lossy(&all);
        // The last chunk would say that the body is whole.
        assert!(!said.ends_with("0\r\n\r\n"), "{chunks:?}: {said}");
        assert_eq!(proxy.stop().await.only_record()["audit"]["action"], "error", "{chunks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t30_an_answer_has_no_say_in_the_connection_with_the_client() {
    let origin = answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic realm=\"give me your password\"\r\nProxy-Status: keyferry; error=x\r\n\
         Upgrade: h2c\r\nAlt-Svc: h3=\":443\"\r\nX-End: kept\r\n\r\nok",
    )
    .await;
    let proxy = proxy(&origin).start().await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
    let answer = tunnel::exchange(&mut stream, get(&origin, "")).await;
    for name in
        ["connection", "x-hop", "keep-alive", "proxy-authenticate", "proxy-status", "upgrade", "alt-svc"]
    {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-end"), Some("kept"));
    // The upstream closed its connection; the client's goes on.
    stream.write_all(get(&origin, "").as_bytes()).await.expect("send");
    let next = within("the answer", http1::read_answer(&mut stream)).await.expect("an answer");
    assert_eq!((next.status, origin.connections()), (200, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_cannot_ask_for_the_proxys_password() {
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
    let origin = answering(answer).await;
    let proxy = proxy(&origin).start().await;
    let answer = ask(&proxy, &origin, "").await;
    assert_eq!(answer.header("proxy-authenticate"), None);
}

/// An upstream that speaks HTTP/2 frame by frame: `script` gets the number of the connection, and the connection once a request is there.
async fn over_http2<F>(
    script: impl Fn(usize, TlsStream<TcpStream>) -> F + Send + Sync + 'static,
) -> (ProxyBuilder, String)
where
    F: Future<Output = ()> + Send + 'static,
{
    let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind the upstream");
    let port = socket.local_addr().expect("its address").port();
    let tls = Authority::trusted().issue("api.example", Validity::Current).server_config(&["h2"]);
    let script = Arc::new(script);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(tls);
        for number in 0.. {
            let Ok((stream, _)) = socket.accept().await else { return };
            let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut preface = [0; 24];
                if stream.read_exact(&mut preface).await.is_err() {
                    return;
                }
                http2::write(&mut stream, http2::SETTINGS, 0, 0, &[]).await;
                while let Some((kind, ..)) = http2::read(&mut stream).await {
                    if kind == http2::HEADERS {
                        return script(number, stream).await;
                    }
                }
            });
        }
    });
    let proxy = Proxy::builder(KEYFERRY).policy(POLICY).env("REAL", REAL).name("api.example").port(port);
    (proxy, format!("api.example:{port}"))
}

async fn head(stream: &mut TlsStream<TcpStream>, fields: &[(&str, &str)], flags: u8) {
    let block = http2::block(fields);
    http2::write(stream, http2::HEADERS, flags | http2::END_HEADERS, 1, &block).await;
}

async fn ask_at(proxy: &Proxy, authority: &str) -> Answer {
    let mut stream = tunnel::open_secure(proxy, authority).await;
    tunnel::exchange(&mut stream, format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await
}

/// "No error": streams up to `last` are still answered (RFC 9113 section 6.8).
async fn go_away(stream: &mut TlsStream<TcpStream>, last: u32) {
    http2::write(stream, http2::GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_upstream_that_goes_away_finishes_what_it_answers_and_gets_nothing_more() {
    let (proxy, authority) = over_http2(async |number, mut stream| {
        head(&mut stream, &[(":status", "200")], 0).await;
        http2::write(&mut stream, http2::DATA, 0, 1, b"half and ").await;
        go_away(&mut stream, 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        http2::write(&mut stream, http2::DATA, http2::END_STREAM, 1, format!("half of {number}").as_bytes())
            .await;
        while http2::read(&mut stream).await.is_some() {}
    })
    .await;
    let proxy = proxy.start().await;
    for number in 0..3 {
        let answer = ask_at(&proxy, &authority).await;
        assert_eq!(String::from_utf8_lossy(&answer.body), format!("half and half of {number}"));
    }
    assert_eq!(proxy.stop().await.records().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_upstream_that_goes_away_without_an_answer_is_a_failure_with_one_record() {
    for resets in [false, true] {
        let (proxy, authority) = over_http2(move |_, mut stream| async move {
            if resets {
                http2::write(&mut stream, http2::RST_STREAM, 0, 1, &[0, 0, 0, 2]).await;
            } else {
                go_away(&mut stream, 1).await;
                let _ = stream.shutdown().await;
            }
            while http2::read(&mut stream).await.is_some() {}
        })
        .await;
        let proxy = proxy.start().await;
        let answer = ask_at(&proxy, &authority).await;
        assert_eq!((answer.status, answer.reason.as_str()), (502, "upstream_reset"), "{resets}");
        assert_eq!(proxy.stop().await.only_record()["audit"]["reason"], "upstream_reset", "{resets}");
    }
}

/// An upstream that does not look at its first `unseen` requests, as servers say after so many on one connection; and how often it was
/// asked.
async fn overlooking(unseen: usize, resets: bool) -> (ProxyBuilder, String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let (proxy, authority) = over_http2(move |_, mut stream| {
        let counter = Arc::clone(&counter);
        async move {
            // The head of the first request has been read.
            let mut next = Some((http2::HEADERS, 0, 1, Vec::new()));
            while let Some((kind, _, id, _)) = next {
                if kind == http2::HEADERS && counter.fetch_add(1, Ordering::SeqCst) >= unseen {
                    let block = http2::block(&[(":status", "204")]);
                    let flags = http2::END_HEADERS | http2::END_STREAM;
                    http2::write(&mut stream, http2::HEADERS, flags, id, &block).await;
                } else if kind == http2::HEADERS && resets {
                    const REFUSED_STREAM: u32 = 7;
                    http2::write(&mut stream, http2::RST_STREAM, 0, id, &REFUSED_STREAM.to_be_bytes()).await;
                } else if kind == http2::HEADERS {
                    go_away(&mut stream, id - 1).await;
                }
                next = http2::read(&mut stream).await;
            }
        }
    })
    .await;
    (proxy, authority, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_http2_upstream_did_not_look_at_is_sent_again_if_its_body_is_at_hand() {
    const STREAMED: &str = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (unseen, rest, asked_in_all, status) in
        [(1, "\r\n", 2, 204), (2, "\r\n", 3, 204), (3, "\r\n", 3, 502), (1, STREAMED, 1, 502)]
    {
        for resets in [false, true] {
            let (proxy, authority, asked) = overlooking(unseen, resets).await;
            let proxy = proxy.start().await;
            let mut stream = tunnel::open_secure(&proxy, &authority).await;
            let request = format!("POST / HTTP/1.1\r\nHost: {authority}\r\n{rest}");
            stream.write_all(request.as_bytes()).await.expect("send");
            let answer = within("the answer", http1::read_answer_head(&mut stream)).await.expect("an answer");
            let shown = format!("{unseen} times, by RST_STREAM: {resets}, {rest:?}");
            assert_eq!((answer.status, asked.load(Ordering::SeqCst)), (status, asked_in_all), "{shown}");
            drop(stream);
            let record = proxy.stop().await.only_record();
            assert_eq!(record["audit"]["status_code"], status, "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t29_heads_of_an_http2_upstream_that_mean_something_in_http1_are_not_passed_on() {
    for fields in [
        [(":status", "200"), ("x", "y\r\nset-cookie: z")].as_slice(),
        &[(":status", "200"), ("x\r\ny", "z")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "20")],
        &[(":status", "200"), (":status", "200")],
        &[(":status", "101")],
        &[("x", "y")],
    ] {
        let fields: Vec<(String, String)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let shown = format!("{fields:?}");
        let (proxy, authority) = over_http2(move |_, mut stream| {
            let fields = fields.clone();
            async move {
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                head(&mut stream, &fields, http2::END_STREAM).await;
                while http2::read(&mut stream).await.is_some() {}
            }
        })
        .await;
        let proxy = proxy.start().await;
        let answer = ask_at(&proxy, &authority).await;
        assert_eq!(answer.status, 502, "{shown}: {answer:?}");
        assert_eq!((answer.header("set-cookie"), answer.header("x")), (None, None), "{shown}");
    }
}
