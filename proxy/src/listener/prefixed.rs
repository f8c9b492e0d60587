//! A connection of which some bytes have been read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use crate::passthrough::writes_pass_through;

/// Reads `prefix` first, then the connection.
#[derive(Debug)]
pub(crate) struct Prefixed<IO> {
    prefix: Bytes,
    io: IO,
}

impl<IO> Prefixed<IO> {
    pub(crate) fn new(prefix: Bytes, io: IO) -> Self {
        Self { prefix, io }
    }
}

impl<IO: AsyncRead + Unpin> Prefixed<IO> {
    /// The first byte, which is read again later; none if the connection ends before it.
    pub(crate) async fn peek(&mut self) -> io::Result<Option<u8>> {
        use tokio::io::AsyncReadExt;
        if self.prefix.is_empty() {
            let mut first = bytes::BytesMut::with_capacity(2048);
            self.io.read_buf(&mut first).await?;
            self.prefix = first.freeze();
        }
        Ok(self.prefix.first().copied())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

writes_pass_through!(Prefixed<IO>);
