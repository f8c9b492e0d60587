//! Floods of HTTP/2 frames from a sandbox (T31), frame by frame on raw connections: each ends its own connection at most, costs no
//! memory worth mentioning, and leaves others served.

use std::time::Duration;

use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::tunnel::{self, Hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
/// What a flood may cost the proxy.
const MEMORY: u64 = 48 << 20;

/// Frame types and flags of RFC 9113 section 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GET / of `authority`: indexed fields of RFC 7541 appendix A, and one literal.
fn request(authority: &str) -> Vec<u8> {
    let length = u8::try_from(authority.len()).expect("a short name");
    [&[0x82, 0x87, 0x84, 0x01, length], authority.as_bytes()].concat()
}

/// A connection on which both sides have said their settings.
async fn connect(proxy: &Proxy, origin: &Origin) -> TlsStream<TcpStream> {
    let tunnel = tunnel::open(proxy, &origin.authority()).await;
    let mut stream = tunnel::secure(proxy, tunnel, Hello::http2(origin.name())).await.expect("a handshake");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("send");
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("send");
    stream
}

/// Sends `flood` and reads all the while; returns the codes of GOAWAY frames, and whether the proxy closed.
async fn flood(stream: TlsStream<TcpStream>, flood: Vec<u8>) -> Vec<u32> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        // That the other side is gone is what the test wants to see.
        let _ = writer.write_all(&flood).await;
        let _ = writer.flush().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    let mut received = Vec::new();
    let receiving = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..length]);
        }
    };
    tokio::select! {
        () = receiving => {}
        () = async { let _ = tokio::time::timeout(Duration::from_secs(60), sending).await; } => {}
    }
    go_aways(&received)
}

fn go_aways(mut bytes: &[u8]) -> Vec<u32> {
    let mut codes = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        if let (GO_AWAY, [_, _, _, _, code @ ..]) = (*kind, payload) {
            codes.push(code.first_chunk().map_or(0, |code| u32::from_be_bytes(*code)));
        }
        bytes = after;
    }
    codes
}

async fn start() -> (Origin, Proxy) {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    (origin, proxy)
}

/// Sends a flood, then holds the proxy to what it promises whatever comes.
async fn withstand(made: impl Fn(&str) -> Vec<u8>) -> (Vec<u32>, usize) {
    let (origin, proxy) = start().await;
    let stream = connect(&proxy, &origin).await;
    let before = proxy.peak_memory();
    let codes = flood(stream, made(&origin.authority())).await;
    let grown = proxy.peak_memory() - before;
    assert!(grown < MEMORY, "the flood cost {grown} bytes");
    assert_eq!(
        Sandbox::of(&proxy).fetch(["--http2", &origin.url("/")]).await.status,
        200,
        "others are served"
    );
    let upstream = origin.received().len() - 1;
    let ended = proxy.stop().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    let records = ended.records();
    let arrived = records.iter().filter(|record| record["audit"]["path"] == "/").count();
    assert!(arrived > upstream, "{upstream} requests went upstream, and {arrived} are recorded");
    let unheard = records.iter().any(|record| record["audit"]["reason"] == "malformed_request");
    assert!(unheard || codes.is_empty(), "a connection that was ended for what it sent is recorded as that");
    (codes, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_rapid_resets_end_the_connection() {
    let (codes, upstream) = withstand(|authority| {
        let head = request(authority);
        let streams = (0..20_000).map(|n| 2 * n + 1);
        streams
            .flat_map(|id| {
                let asked = frame(HEADERS, END_STREAM | END_HEADERS, id, &head);
                [asked, frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
            })
            .collect()
    })
    .await;
    assert_eq!(codes, [ENHANCE_YOUR_CALM]);
    assert!(upstream < 5000, "{upstream} requests were sent on before the flood was stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_headers_without_an_end_end_the_connection() {
    let (codes, upstream) = withstand(|authority| {
        let mut flood = frame(HEADERS, END_STREAM, 1, &request(authority));
        for _ in 0..20_000 {
            // A literal field without indexing, `x: y`.
            flood.extend(frame(CONTINUATION, 0, 1, &[0x00, 1, b'x', 1, b'y']));
        }
        flood
    })
    .await;
    assert_eq!((codes, upstream), (vec![ENHANCE_YOUR_CALM], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_settings_and_pings_are_answered_at_the_clients_own_pace() {
    for (kind, payload) in [(SETTINGS, &[0, 4, 0, 0, 255, 255][..]), (PING, &[7; 8])] {
        let (codes, upstream) = withstand(|_| frame(kind, 0, 0, payload).repeat(100_000)).await;
        assert_eq!((codes, upstream), (vec![], 0), "frames of type {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let (codes, upstream) = withstand(|authority| {
        // A field of 4,000 bytes goes into the dynamic table; each byte 0xbe of the next heads is all of it again.
        let value = vec![b'a'; 4000];
        let stored = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &value].concat();
        let mut flood = frame(HEADERS, END_STREAM | END_HEADERS, 1, &[request(authority), stored].concat());
        for id in (3..2000).step_by(2) {
            let bomb = [request(authority), vec![0xbe; 16_000]].concat();
            flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &bomb));
        }
        flood
    })
    .await;
    assert!(upstream <= 1, "{upstream} went on; GOAWAY {codes:?}");
}
