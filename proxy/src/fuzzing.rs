//! The parsers of hostile bytes, for the targets of `fuzz/` and nobody else: built with the feature `fuzzing` alone.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use keyferry_config::policy::{Host, Reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroizing;

use crate::guard::{STAND_IN, Wire};
use crate::redact::Redactor;
use crate::stream::{Caps, Decision, Patterns, Pieces, Replacer};
use crate::tls::{LeafCache, client_hello};

/// What the guard made of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// What it let through, without the harmless head that stands in for a refused one.
    pub passed: Vec<u8>,
    /// For each head that it let through, how much had been let through with it. Where bytes arrive one by one, that is the head's end.
    pub heads: Vec<usize>,
    /// Why it refused the head behind `passed`.
    pub refused: Option<Reason>,
    /// A body's coding is broken.
    pub broken: bool,
}

/// Lets `pieces` arrive at the guard one after the other. `switched`: every CONNECT and handshake is granted, else none is.
///
/// # Panics
/// When the guard waits though there is nothing to wait for.
pub fn guard<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, switched: bool) -> Guarded {
    let (mut wire, control) = Wire::new(Scripted::new(pieces), false);
    control.decide(u64::MAX >> 1, switched);
    let mut guarded = Guarded { passed: Vec::new(), heads: Vec::new(), refused: None, broken: false };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut buf = ReadBuf::new(&mut buffer);
        match at_once(|cx| Pin::new(&mut wire).poll_read(cx, &mut buf)) {
            Ok(()) if buf.filled().is_empty() => break,
            Ok(()) => guarded.passed.extend_from_slice(buf.filled()),
            Err(_) => {
                guarded.broken = true;
                break;
            }
        }
        guarded.heads.resize(control.heads() as usize, guarded.passed.len());
    }
    guarded.heads.resize(control.heads() as usize, guarded.passed.len());
    for _ in 0..=guarded.heads.len() {
        let fault = control.arrive().fault;
        guarded.refused = guarded.refused.or(fault.map(|fault| fault.refusal.reason));
    }
    if guarded.refused.is_some() {
        assert!(guarded.passed.ends_with(STAND_IN), "a refused head has its stand-in");
        guarded.passed.truncate(guarded.passed.len() - STAND_IN.len());
    }
    guarded
}

/// How the start of a TLS handshake ended. None finishes: the client says nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeted {
    /// Why it was refused.
    pub reason: Reason,
    /// The server name that was read.
    pub sni: Option<String>,
    /// What the client was sent.
    pub sent: Vec<u8>,
}

/// Lets `pieces` arrive as the beginning of a handshake in a tunnel to `host`.
///
/// # Panics
/// When a handshake finishes.
pub async fn greet<'p>(
    leafs: &LeafCache,
    host: &Host,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Greeted {
    let mut io = Scripted::new(pieces);
    match client_hello::accept(leafs, host, &mut io).await {
        Ok(_) => panic!("a handshake finished without the client's keys"),
        Err(failed) => Greeted { reason: failed.refusal.reason, sni: failed.sni, sent: io.written },
    }
}

/// Streams `pieces` and replaces each of `texts`, or leaves it where it has no replacement.
pub fn replace<'p>(
    texts: &[(Vec<u8>, Option<Vec<u8>>)],
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Vec<u8> {
    let patterns = Patterns::new(texts.iter().map(|(text, _)| Zeroizing::new(text.clone())));
    let mut replacer = Replacer::new(Arc::new(patterns), Caps::NONE);
    let decide = |number: u32| match &texts[number as usize].1 {
        Some(with) => Decision::Replace(with),
        None => Decision::Leave,
    };
    let mut out = Pieces::new();
    for piece in pieces {
        replacer.push(Bytes::copy_from_slice(piece), decide, &mut out).expect("there are no caps");
    }
    replacer.finish(decide, &mut out).expect("there are no caps");
    out.into_iter().flatten().collect()
}

/// Streams `pieces` through a redactor of values, each with its label.
pub fn redact<'p>(values: &[(String, String)], pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<u8> {
    let redactor =
        Arc::new(Redactor::of(values.iter().map(|(label, value)| (label.clone(), value.as_str()))));
    let mut stream = redactor.stream();
    let mut out = Pieces::new();
    for piece in pieces {
        stream.push(Bytes::copy_from_slice(piece), &mut out);
    }
    stream.finish(&mut out);
    out.into_iter().flatten().collect()
}

/// What became of one direction of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// The frames that went on.
    pub frames: Vec<u8>,
    /// The code of the close frame that both sides get for it, where it broke the protocol.
    pub stopped: Option<u16>,
}

/// Lets `pieces` arrive from a client, whose messages nobody reads, or from a server, in whose messages `value` becomes `label`; with
/// permessage-deflate, if it was agreed on.
pub fn websocket<'p>(
    value: Option<(&str, &str)>,
    deflate: bool,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Relayed {
    let redactor = value.map(|(label, value)| Redactor::of([(label.to_owned(), value)].into_iter()));
    crate::websocket::fuzzing::relay(redactor.map(Arc::new), deflate, pieces)
}

/// Polls what never has to wait.
fn at_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing is left to wait for"),
    }
}

/// A client that says one piece after the other, then closes.
struct Scripted {
    pieces: VecDeque<Bytes>,
    written: Vec<u8>,
}

impl Scripted {
    fn new<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).map(Bytes::copy_from_slice);
        Self { pieces: pieces.collect(), written: Vec::new() }
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.pieces.front_mut() {
            let length = piece.len().min(buf.remaining());
            buf.put_slice(&piece[..length]);
            piece.advance(length);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
