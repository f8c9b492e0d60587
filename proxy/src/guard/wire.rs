//! A reader around each HTTP/1 connection of a sandbox: it sees every head as bytes and follows every body before hyper does.
//!
//! What it lets through is read by hyper in one way only. A head that must not be read becomes a harmless one in its place, and the
//! service that gets it answers with the fault: so a refusal takes its turn behind the answers to earlier requests, and has a record like
//! any other. A body whose coding is broken ends in an error.
//!
//! Bytes behind a CONNECT or a WebSocket handshake are held back until it is decided: they are HTTP if it was refused, and none of ours if
//! it was granted.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use super::framing::Body;
use super::head::{Fault, HeadScan};
use crate::passthrough::writes_pass_through;
use crate::ticks::Ticks;

/// From the first byte of a head to its last, and from the start of a connection to its first byte (T32).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may wait between requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How many bytes are held back behind a CONNECT or a handshake.
const MAX_HELD: usize = 16 * 1024;
/// How much is read at once into a buffer of ours.
const READ: usize = 4 * 1024;
/// Stands in for a head that must not be read. Its content is never looked at.
pub(crate) const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// The reader; writes pass through.
#[derive(Debug)]
pub(crate) struct Wire<IO> {
    io: IO,
    phase: Phase,
    scan: HeadScan,
    /// Bytes that were read and not passed on: first `ready` ones that may be, then ones that have not been judged.
    stash: BytesMut,
    ready: usize,
    control: Arc<Control>,
    deadline: Option<Pin<Box<Sleep>>>,
    ticks: Ticks,
}

#[derive(Debug)]
enum Phase {
    Head,
    Body(Body),
    /// Behind a head that may switch protocols.
    Held,
    /// Switched: not HTTP any more.
    Opaque,
    /// The stand-in is the last request; its answer closes the connection.
    Refused,
    /// Idle for too long.
    Ended,
    Broken(&'static str),
}

/// What reader and service tell each other.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Heads passed on, and requests that arrived of them: hyper delivers one for one, in order.
    heads: AtomicU64,
    requests: AtomicU64,
    /// Requests that a client has begun over HTTP/2.
    streams: AtomicU64,
    /// The fault that the request of this number stands for.
    fault: Mutex<Option<(u64, Fault)>>,
    /// The last request that was answered, and in the lowest bit whether it switched protocols.
    decision: AtomicU64,
    waker: AtomicWaker,
    answering: AtomicU32,
}

/// A request on its way through the service.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Counted from 1.
    number: u64,
    /// It only stands in for this.
    pub(crate) fault: Option<Fault>,
    /// While it is answered, the connection is not idle.
    pub(crate) answering: Answering,
}

/// Counts an answer that is under way; a connection with one is not idle.
#[derive(Debug)]
pub(crate) struct Answering(Arc<Control>);

impl Control {
    /// Called for each request that hyper delivers.
    pub(crate) fn arrive(self: &Arc<Self>) -> Arrived {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = fault.take_if(|(at, _)| *at == number).map(|(_, fault)| fault);
        self.answering.fetch_add(1, Ordering::Relaxed);
        Arrived { number, fault, answering: Answering(Arc::clone(self)) }
    }

    /// Whether the answer to the request of this number switched the connection. Requests are answered in turn.
    pub(crate) fn decide(&self, number: u64, switched: bool) {
        self.decision.store(number << 1 | u64::from(switched), Ordering::Release);
        self.waker.wake();
    }

    /// Whether the request of this number switched the connection, once that is known.
    fn decision(&self, number: u64) -> Option<bool> {
        let decision = self.decision.load(Ordering::Acquire);
        (decision >> 1 >= number).then_some(decision & 1 == 1)
    }

    /// Completes when nothing has been asked or answered for as long as a connection may idle: for HTTP/2, which has no reader of ours.
    pub(crate) async fn idle(&self) {
        let mut ticks = Ticks::default();
        let mut seen = 0;
        while poll_fn(|cx| ticks.poll_tick(cx)).await < IDLE_TIMEOUT {
            let requests = self.requests.load(Ordering::Relaxed);
            if self.is_answering() || std::mem::replace(&mut seen, requests) != requests {
                ticks.moved();
            }
        }
    }

    /// A client has begun a request over HTTP/2.
    pub(super) fn opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// So many of them do not count.
    pub(super) fn unopened(&self, count: u64) {
        self.streams.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many of them have not arrived.
    pub(crate) fn unheard(&self) -> u64 {
        self.streams.load(Ordering::Relaxed).saturating_sub(self.requests.load(Ordering::Relaxed))
    }

    /// How many heads were passed on so far.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn heads(&self) -> u64 {
        self.heads.load(Ordering::Relaxed)
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }
}

impl Arrived {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Clone for Answering {
    fn clone(&self) -> Self {
        self.0.answering.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<IO> Wire<IO> {
    /// Guards `io`. `expects_head`: the client has to send its first head in time; else the connection may idle first.
    pub(crate) fn new(io: IO, expects_head: bool) -> (Self, Arc<Control>) {
        let control = Arc::new(Control::default());
        let wire = Self {
            io,
            phase: Phase::Head,
            scan: HeadScan::default(),
            stash: BytesMut::new(),
            ready: 0,
            control: Arc::clone(&control),
            deadline: expects_head.then(|| Box::pin(tokio::time::sleep(HEAD_TIMEOUT))),
            ticks: Ticks::default(),
        };
        (wire, control)
    }

    /// The connection behind a granted CONNECT, and what was read of it.
    pub(crate) fn into_inner(self) -> (BytesMut, IO) {
        (self.stash, self.io)
    }

    /// Judges `bytes`, which follow what has been passed on. Returns how many may be; the rest is incomplete, held back, or nothing.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            match &mut self.phase {
                Phase::Head => match self.scan.scan(rest) {
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        passed += head.length;
                        self.scan = HeadScan::default();
                        self.deadline = None;
                        self.ticks.moved();
                        self.control.heads.fetch_add(1, Ordering::Relaxed);
                        self.phase = match Body::of(head.framing) {
                            Some(body) => Phase::Body(body),
                            None if head.may_switch => Phase::Held,
                            None => Phase::Head,
                        };
                    }
                    Err(fault) => {
                        self.refuse(fault);
                        break;
                    }
                },
                Phase::Body(body) => match body.follow(rest) {
                    Ok(taken) => {
                        passed += taken;
                        if body.is_over() {
                            self.phase = Phase::Head;
                        }
                    }
                    Err(broken) => {
                        self.phase = Phase::Broken(broken);
                        break;
                    }
                },
                Phase::Held | Phase::Opaque | Phase::Refused | Phase::Ended | Phase::Broken(_) => break,
            }
        }
        passed
    }

    /// The next request that hyper delivers stands for `fault`; it is the last one.
    fn refuse(&mut self, fault: Fault) {
        let number = self.control.heads.load(Ordering::Relaxed) + 1;
        *self.control.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, fault));
        self.phase = Phase::Refused;
    }

    /// Puts the stand-in behind what may be passed on; nothing else of the client's is read.
    fn stand_in(&mut self) {
        self.stash.truncate(self.ready);
        self.stash.extend_from_slice(STAND_IN);
        self.ready = self.stash.len();
        self.deadline = None;
    }

    fn judge_stash(&mut self) {
        let stash = std::mem::take(&mut self.stash);
        self.ready = self.judge(&stash);
        self.stash = stash;
        if matches!(self.phase, Phase::Refused) {
            self.stand_in();
        }
    }

    fn pass_ready(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.ready.min(buf.remaining());
        buf.put_slice(&self.stash[..length]);
        self.stash.advance(length);
        self.ready -= length;
        if self.stash.is_empty() {
            // An idle connection holds no buffer.
            self.stash = BytesMut::new();
        }
    }

    /// Time is up for the head that has begun, or for a connection without one.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.phase, Phase::Head) {
            return Poll::Pending;
        }
        if self.scan.has_begun() || self.deadline.is_some() {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(HEAD_TIMEOUT)));
            ready!(deadline.as_mut().poll(cx));
            if self.scan.has_begun() {
                let message = format!("the head did not arrive within {} s", HEAD_TIMEOUT.as_secs());
                let fault = self.scan.timed_out(message);
                self.refuse(fault);
                self.stand_in();
            } else {
                self.phase = Phase::Ended;
            }
            return Poll::Ready(());
        }
        loop {
            let quiet = ready!(self.ticks.poll_tick(cx));
            if self.control.is_answering() {
                self.ticks.moved();
            } else if quiet >= IDLE_TIMEOUT {
                self.phase = Phase::Ended;
                return Poll::Ready(());
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> Wire<IO> {
    /// Reads past a head that may switch: to hold the bytes back, and to notice when the client leaves.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.control.waker.register(cx.waker());
        // The head behind which bytes are held is the last that was passed on.
        if let Some(switched) = self.control.decision(self.control.heads.load(Ordering::Relaxed)) {
            self.phase = if switched { Phase::Opaque } else { Phase::Head };
            return Poll::Ready(Ok(true));
        }
        while self.stash.len() < MAX_HELD {
            if ready!(self.poll_read_into_stash(cx))? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        Poll::Pending
    }

    /// Reads and forgets what comes behind the last request. Ready with true when the client is gone while an earlier request is still
    /// answered; an end of file while the refusal itself is written would make hyper drop it.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut scratch = [0; 1024];
        let mut buf = ReadBuf::new(&mut scratch);
        let ended = match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
            Ok(()) => buf.filled().is_empty(),
            Err(_) => true,
        };
        let stand_in = self.control.heads.load(Ordering::Relaxed) + 1;
        let is_answered = self.control.requests.load(Ordering::Relaxed) >= stand_in;
        match ended {
            true if is_answered => Poll::Pending,
            ended => Poll::Ready(ended),
        }
    }

    fn poll_read_into_stash(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stash.reserve(READ);
        tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.stash)
    }

    /// Reads straight into hyper's buffer, which is where most heads arrive whole; what may not be passed on is taken back.
    fn poll_read_judged(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        let passed = self.judge(&buf.filled()[before..]);
        self.stash.extend_from_slice(&buf.filled()[before + passed..]);
        buf.set_filled(before + passed);
        if matches!(self.phase, Phase::Refused) {
            self.stand_in();
        }
        Poll::Ready(Ok(passed > 0 || read == 0))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        loop {
            if wire.ready > 0 {
                wire.pass_ready(buf);
                return Poll::Ready(Ok(()));
            }
            match wire.phase {
                Phase::Opaque if wire.stash.is_empty() => return Pin::new(&mut wire.io).poll_read(cx, buf),
                Phase::Opaque => wire.ready = wire.stash.len(),
                Phase::Refused => {
                    if ready!(wire.poll_refused(cx)) {
                        return Poll::Ready(Ok(()));
                    }
                }
                Phase::Ended => return Poll::Ready(Ok(())),
                Phase::Broken(how) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, how)));
                }
                Phase::Held => {
                    if !ready!(wire.poll_held(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Phase::Head | Phase::Body(_) if wire.stash.is_empty() => {
                    match wire.poll_read_judged(cx, buf) {
                        Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Ok(false)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => ready!(wire.poll_expired(cx)),
                    }
                }
                Phase::Head | Phase::Body(_) => {
                    // Behind a refused CONNECT there may be whole heads; otherwise this is the beginning of one.
                    wire.judge_stash();
                    if wire.ready > 0 || !matches!(wire.phase, Phase::Head) {
                        continue;
                    }
                    match wire.poll_read_into_stash(cx) {
                        Poll::Ready(Ok(0)) if !wire.scan.has_begun() => return Poll::Ready(Ok(())),
                        Poll::Ready(Ok(0)) => {
                            let fault = wire.scan.malformed("the connection ended in the middle of a head");
                            wire.refuse(fault);
                            wire.stand_in();
                        }
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => ready!(wire.poll_expired(cx)),
                    }
                }
            }
        }
    }
}

writes_pass_through!(Wire<IO>);
