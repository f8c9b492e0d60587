//! Writing HTTP/2 frame by frame (RFC 9113), for what no HTTP library would send.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The type of a body's frame.
pub const DATA: u8 = 0;
/// The type of a head's first frame.
pub const HEADERS: u8 = 1;
/// The type of a stream's early end.
pub const RST_STREAM: u8 = 3;
/// The type of the first frame.
pub const SETTINGS: u8 = 4;
/// The type of a connection's last frame.
pub const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// The flag of a stream's last frame.
pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
/// The flag of a head's last frame.
pub const END_HEADERS: u8 = 4;
/// As large as a peer must accept (section 4.2).
const LARGEST: usize = 16 * 1024;

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with 200.
    Success,
    /// An answer with another status.
    Refused,
    /// RST_STREAM; the connection goes on.
    Reset,
    /// The connection ended.
    Closed,
}

/// Begins a connection.
///
/// # Panics
/// When it breaks.
pub async fn begin(stream: &mut (impl AsyncWrite + Unpin)) {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("send the preface");
    write(stream, SETTINGS, 0, 0, &[]).await;
}

/// Sends one request with these fields, byte for byte, and a body if there is one; says what became of it. `id` is odd and grows.
pub async fn request(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    id: u32,
    fields: &[(&str, &str)],
    body: Option<&str>,
) -> Outcome {
    let block = block(fields);
    let end = if body.is_none() { END_STREAM } else { 0 };
    let mut pieces = block.chunks(LARGEST).peekable();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        write(stream, kind, if kind == HEADERS { end | last } else { last }, id, piece).await;
        kind = CONTINUATION;
    }
    if let Some(body) = body {
        write(stream, DATA, END_STREAM, id, body.as_bytes()).await;
    }
    crate::within("what becomes of a stream", outcome(stream, id)).await
}

async fn outcome(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), id: u32) -> Outcome {
    loop {
        let Some((kind, flags, stream_id, payload)) = read(stream).await else { return Outcome::Closed };
        match (kind, stream_id == id) {
            (GOAWAY, _) => return Outcome::Closed,
            (RST_STREAM, true) => return Outcome::Reset,
            // `:status: 200` is one byte (RFC 7541 appendix A), and the encoder that we talk with uses it. A size update may stand before.
            (HEADERS, true) => {
                let fields = payload.iter().skip_while(|byte| **byte & 0xe0 == 0x20);
                return if fields.clone().next() == Some(&0x88) {
                    Outcome::Success
                } else {
                    Outcome::Refused
                };
            }
            (SETTINGS, _) if flags & ACK == 0 => write(stream, SETTINGS, ACK, 0, &[]).await,
            _ => {}
        }
    }
}

/// A head as HPACK writes it.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// A field that is not indexed, without Huffman coding (RFC 7541 section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(&mut bytes, text.len());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// Sends one frame. That the other side is gone is seen where its answer is read.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend_from_slice(payload);
    let _ = stream.write_all(&frame).await;
    let _ = stream.flush().await;
}

/// The next frame: type, flags, stream and payload; none at the end.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes(id), payload))
}
