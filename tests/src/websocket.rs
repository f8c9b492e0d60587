//! WebSockets on both sides of the proxy, frame by frame (RFC 6455): what a client and an origin say that keep to the protocol, and a
//! proxy between them.

use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use crate::http1::read_answer_head;
use crate::proxy::{Proxy, ProxyBuilder};
use crate::raw_origin::{RawConnection, RawOrigin};
use crate::{tunnel, within};

/// The value of the placeholder `CHAT_TOKEN`, which is bound to `chat.example`.
pub const TOKEN: &str = "real-chat-token";

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

/// The key of RFC 6455 section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer that proves that a server understood it.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An origin's answer that it switches.
pub fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A proxy that swaps and redacts in what goes to `chat.example`.
pub fn builder(binary: impl AsRef<Path>) -> ProxyBuilder {
    Proxy::builder(binary).policy(POLICY).env("CHAT_TOKEN", TOKEN).env("OTHER_TOKEN", "other-token")
}

/// The same, running, with the way to an origin.
pub async fn proxy(binary: impl AsRef<Path>, origin: &RawOrigin) -> Proxy {
    builder(binary).route_raw(origin).start().await
}

/// What a client asks for.
pub fn handshake(authority: &str) -> String {
    format!(
        "GET /socket HTTP/1.1\r\nHost: {authority}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nAuthorization: Bearer CHAT_TOKEN\r\n\r\n"
    )
}

/// A connection on which the upgrade has been asked for.
///
/// # Panics
/// When it cannot be sent.
pub async fn ask(proxy: &Proxy, origin: &RawOrigin) -> TlsStream<TcpStream> {
    let mut stream = tunnel::open_secure(proxy, &origin.authority()).await;
    stream.write_all(handshake(&origin.authority()).as_bytes()).await.expect("send the handshake");
    stream
}

/// A connection that has switched.
///
/// # Panics
/// When it has not.
pub async fn switched(proxy: &Proxy, origin: &RawOrigin) -> TlsStream<TcpStream> {
    let mut stream = ask(proxy, origin).await;
    let answer = within("the 101", read_answer_head(&mut stream)).await.expect("an answer");
    assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, Some(ACCEPT)));
    stream
}

/// A frame of a client, masked.
///
/// # Panics
/// When it is a long one.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    assert!(payload.len() < 126, "short ones will do");
    let masked = payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, key)| byte ^ key);
    [first, 0x80 | payload.len() as u8].into_iter().chain(MASK).chain(masked).collect()
}

/// A frame of a server.
///
/// # Panics
/// When it is a long one.
pub fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short ones will do");
    [&[first, payload.len() as u8][..], payload].concat()
}

/// The payload of a close frame.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// The next frame: its first byte, and its payload unmasked. None at the end of the stream.
///
/// # Panics
/// When it is a long one.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
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
pub async fn read_frames(stream: &mut (impl AsyncRead + Unpin)) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = within("a frame, or the end", read_frame(stream)).await {
        frames.push(frame);
    }
    frames
}

/// An origin that switches, sends `greeting` with the 101, and tells what frames it gets.
pub async fn listening(greeting: Vec<u8>) -> (RawOrigin, mpsc::UnboundedReceiver<(u8, Vec<u8>)>) {
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

/// So many frames that the origin got.
///
/// # Panics
/// When they do not come.
pub async fn collected(
    frames: &mut mpsc::UnboundedReceiver<(u8, Vec<u8>)>,
    count: usize,
) -> Vec<(u8, Vec<u8>)> {
    let mut got = Vec::new();
    while got.len() < count {
        got.push(within("a frame at the origin", frames.recv()).await.expect("it is open"));
    }
    got
}
