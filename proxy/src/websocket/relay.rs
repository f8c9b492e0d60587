//! Both directions of an open WebSocket, until one side ends or must be told to.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use keyferry_config::policy::{Reason, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::direction::{Direction, Stop};
use crate::audit::Flow;
use crate::ticks::Ticks;

/// How long a WebSocket may be silent in both directions.
const IDLE: Duration = Duration::from_secs(3600);
/// The same once one side has said its last.
const CLOSING: Duration = Duration::from_secs(60);
/// How long a side is given to take what is left for it, and then to end.
const FAREWELL: Duration = Duration::from_secs(2);
/// How old values may become while messages move.
const FRESH: Duration = Duration::from_secs(1);
/// The room for one read: a little at first, and more while it is filled.
const LEAST_READ: usize = 2 << 10;
const MOST_READ: usize = 64 << 10;

/// An open WebSocket.
pub(super) struct Relay<C, U> {
    client: C,
    upstream: U,
    out: Way,
    back: Way,
    ticks: Ticks,
    refreshed: Instant,
    flow: Arc<Flow>,
}

/// What ends a relay, or interrupts it.
#[derive(Debug)]
pub(super) enum Event {
    /// Messages move, and the values that are looked for have become old.
    Stale,
    /// It has ended by itself.
    Over,
    /// It must end.
    Stop(Stop),
}

struct Way {
    direction: Direction,
    room: usize,
    /// Written and not flushed.
    unflushed: bool,
    /// The sender's bytes have ended.
    ended: bool,
    /// The receiver has been told so.
    told: bool,
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// `out` from the client, `back` to it. The client's bytes are counted in `flow`.
    pub(super) fn new(client: C, upstream: U, out: Direction, back: Direction, flow: Arc<Flow>) -> Self {
        let (out, back) = (Way::new(out), Way::new(back));
        Self { client, upstream, out, back, ticks: Ticks::default(), refreshed: Instant::now(), flow }
    }

    /// Relays until something happens; bytes to the client are added to `written`. After [`Event::Stale`] it may be called again.
    pub(super) async fn run(&mut self, written: &mut u64) -> Event {
        poll_fn(|cx| self.poll(cx, written)).await
    }

    /// From the client.
    pub(super) fn out(&mut self) -> &mut Direction {
        &mut self.out.direction
    }

    /// To the client.
    pub(super) fn back(&mut self) -> &mut Direction {
        &mut self.back.direction
    }

    /// Ends both sides. Those that have not closed it themselves are told with which code; the client also hears why.
    pub(super) async fn close(mut self, told: Option<(u16, &str)>, written: &mut u64) {
        if let Some((code, reason)) = told {
            self.out.direction.close(code, "");
            self.back.direction.close(code, reason);
        }
        let left = self.back.direction.out.len();
        // Who does not listen is not waited for.
        let (_, _) = tokio::join!(
            timeout(FAREWELL, farewell(&mut self.client, &mut self.back.direction.out)),
            timeout(FAREWELL, farewell(&mut self.upstream, &mut self.out.direction.out)),
        );
        *written += (left - self.back.direction.out.len()) as u64;
    }

    fn poll(&mut self, cx: &mut Context<'_>, written: &mut u64) -> Poll<Event> {
        let Self { client, upstream, out, back, ticks, refreshed, flow } = self;
        let mut stale = || {
            let is_stale = refreshed.elapsed() >= FRESH;
            if is_stale {
                *refreshed = Instant::now();
            }
            is_stale
        };
        let mut moved = |read: usize, _: usize| {
            flow.add(read);
            ticks.moved();
        };
        let sent = out.poll(client, upstream, cx, &mut moved, &mut stale);
        if let Some(tally) = out.direction.tally() {
            flow.swapped(&tally.swapped);
        }
        if let Poll::Ready(Progress::Event(event)) = sent {
            return Poll::Ready(event);
        }
        let mut moved = |_: usize, sent: usize| {
            *written += sent as u64;
            ticks.moved();
        };
        let received = back.poll(upstream, client, cx, &mut moved, &mut stale);
        if let Poll::Ready(Progress::Event(event)) = received {
            return Poll::Ready(event);
        }
        let finished = usize::from(sent.is_ready()) + usize::from(received.is_ready());
        if finished == 2 {
            return Poll::Ready(Event::Over);
        }
        let limit = if finished == 0 { IDLE } else { CLOSING };
        loop {
            let quiet = ready!(ticks.poll_tick(cx));
            if !quiet.is_zero() {
                out.release();
                back.release();
            }
            if quiet >= limit {
                let message = format!("the WebSocket was silent for {} s", quiet.as_secs());
                let refusal = Refusal::new(Reason::UpstreamTimeout, message);
                return Poll::Ready(Event::Stop(Stop { code: 1001, refusal }));
            }
        }
    }
}

enum Progress {
    /// All that the sender will send has gone on.
    Finished,
    Event(Event),
}

impl Way {
    fn new(direction: Direction) -> Self {
        Self { direction, room: LEAST_READ, unflushed: false, ended: false, told: false }
    }

    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        moved: &mut impl FnMut(usize, usize),
        stale: &mut impl FnMut() -> bool,
    ) -> Poll<Progress> {
        loop {
            if let Err(stop) = self.direction.advance() {
                return Poll::Ready(Progress::Event(Event::Stop(stop)));
            }
            let out = &mut self.direction.out;
            if !out.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(cx, out)) {
                    Ok(written @ 1..) => {
                        out.advance(written);
                        self.unflushed = true;
                        moved(0, written);
                        if out.is_empty() && !self.direction.searches() {
                            // What is relayed as it comes stands in the input's buffer, which is free for the next read then.
                            self.direction.out = BytesMut::new();
                        }
                    }
                    // The receiver is gone; its own end says how.
                    Ok(0) | Err(_) => return self.give_up(),
                }
                continue;
            }
            if self.unflushed {
                match ready!(Pin::new(&mut *to).poll_flush(cx)) {
                    Ok(()) => self.unflushed = false,
                    Err(_) => return self.give_up(),
                }
            }
            if self.direction.is_closed() {
                return Poll::Ready(Progress::Finished);
            }
            if self.ended {
                if !self.told {
                    // An end that cannot be told has been noticed.
                    let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.told = true;
                }
                return Poll::Ready(Progress::Finished);
            }
            match ready!(self.poll_read(from, cx)) {
                // A peer that goes without a TLS close_notify, or resets, has ended the conversation all the same.
                Ok(0) | Err(_) => self.ended = true,
                Ok(read) => {
                    moved(read, 0);
                    if self.direction.searches() && stale() {
                        return Poll::Ready(Progress::Event(Event::Stale));
                    }
                }
            }
        }
    }

    fn poll_read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let input = &mut self.direction.input;
        input.reserve(self.room);
        let room = input.capacity() - input.len();
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(from), cx, input))?;
        self.room = if read == room { (2 * self.room).min(MOST_READ) } else { self.room };
        Poll::Ready(Ok(read))
    }

    /// Gives memory back while nothing moves.
    fn release(&mut self) {
        for buffer in [&mut self.direction.input, &mut self.direction.out] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
        self.room = LEAST_READ;
    }

    /// Nothing more can be sent: what still comes has nowhere to go.
    fn give_up(&mut self) -> Poll<Progress> {
        self.direction.out = BytesMut::new();
        (self.unflushed, self.ended, self.told) = (false, true, true);
        Poll::Ready(Progress::Finished)
    }
}

/// Sends what is left and the end, then reads until the other side has ended too: closed at once, it might lose what it was sent.
async fn farewell(io: &mut (impl AsyncRead + AsyncWrite + Unpin), left: &mut BytesMut) -> io::Result<()> {
    io.write_all_buf(left).await?;
    io.flush().await?;
    io.shutdown().await?;
    let mut discarded = pin!(io.take(1 << 20));
    tokio::io::copy(&mut discarded, &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
