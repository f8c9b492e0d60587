//! A connection whose client must read: one that takes no byte for long, while there are some to take, is closed (T32).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ticks::Ticks;

/// How long a write may stand still.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// Passes everything through and watches the writes.
#[derive(Debug)]
pub(crate) struct Progress<IO> {
    io: IO,
    ticks: Ticks,
}

impl<IO> Progress<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, ticks: Ticks::default() }
    }

    pub(crate) fn into_inner(self) -> IO {
        self.io
    }

    /// What a write came to; one that is pending for too long is an error.
    fn watch<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.ticks.moved();
            return polled;
        }
        loop {
            match self.ticks.poll_tick(cx) {
                Poll::Ready(quiet) if quiet >= WRITE_STALL => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the client does not read",
                    )));
                }
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Progress<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Progress<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(polled, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn t32_a_client_that_does_not_read_is_given_up_and_one_that_reads_slowly_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut ours = Progress::new(ours);
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..8 {
                tokio::time::sleep(WRITE_STALL / 2).await;
                theirs.read_exact(&mut byte).await.unwrap();
            }
            theirs
        });
        ours.write_all(b"0123456789").await.unwrap();
        let _theirs = reader.await.unwrap();
        ours.write_all(b"ab").await.unwrap();
        let stalled = ours.write_all(b"cdef").await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }
}
