//! Bodies in both directions: streamed frame by frame, counted, and watched for progress (invariants 8 and 13).

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use keyferry_config::policy::{Reason, Refusal};

use crate::audit::{Flow, Recorder};
use crate::coding::CodingError;
use crate::guard::request::strip_response;
use crate::open::OpenExchange;
use crate::redact::{Scan, scan_fields};
use crate::session::Bound;
use crate::ticks::Ticks;
use crate::transform::misdirection::Watch;
use crate::transform::swap::BodySwap;
use crate::upstream::Lease;

/// How long a request body may stand still.
pub(crate) const REQUEST_PROGRESS: Duration = Duration::from_secs(60);
/// How long a response may stand still once its head is there: event streams are quiet for long.
pub(crate) const RESPONSE_IDLE: Duration = Duration::from_secs(3600);

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the peer broke off the body: {0}")]
    Peer(#[from] hyper::Error),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the body's chunked coding is broken")]
    Coding(#[source] hyper::Error),
    #[error("no byte of the body moved for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the body holds a placeholder that is not bound to this host")]
    Misdirected,
    #[error("a new policy no longer allows the exchange")]
    Aborted,
    #[error("the response cannot be searched for live values: {0}")]
    Unscannable(#[source] CodingError),
}

/// A request body on its way to the upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// As it arrives.
    Stream(RequestStream),
    /// Held whole and changed, or empty.
    Whole(Full<Bytes>),
}

#[derive(Debug)]
pub(crate) struct RequestStream {
    inner: Incoming,
    flow: Arc<Flow>,
    ticks: Ticks,
    watch: Option<Watch>,
    swap: Option<Box<BodySwap>>,
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self::Whole(Full::default())
    }

    /// Streams `inner`, counting into `flow`, and looks in it for generated placeholders if there is a `watch`.
    pub(crate) fn stream(inner: Incoming, flow: Arc<Flow>, watch: Option<Watch>) -> Self {
        Self::Stream(RequestStream { inner, flow, ticks: Ticks::default(), watch, swap: None })
    }

    /// Streams `inner` with its placeholders swapped.
    pub(crate) fn swapped(inner: Incoming, flow: Arc<Flow>, swap: BodySwap) -> Self {
        let swap = Some(Box::new(swap));
        Self::Stream(RequestStream { inner, flow, ticks: Ticks::default(), watch: None, swap })
    }

    /// The same body once more, unless it streams.
    pub(crate) fn again(&self) -> Option<Full<Bytes>> {
        match self {
            Self::Whole(body) => Some(body.clone()),
            Self::Stream(_) => None,
        }
    }

    /// Puts what was read of a swapped body in front of it again.
    pub(crate) fn put_back(&mut self, piece: Bytes) {
        if let Self::Stream(RequestStream { swap: Some(swap), .. }) = self {
            swap.put_back(piece);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            // A swapped body ends when its last piece has been handed on.
            Self::Stream(body) => body.swap.is_none() && body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(body) if body.swap.is_some() => SizeHint::default(),
            Self::Stream(body) => body.inner.size_hint(),
        }
    }
}

impl RequestStream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(swap) = &mut self.swap {
                if let Some(piece) = swap.pull() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                if swap.is_over() {
                    return Poll::Ready(None);
                }
            }
            let data = match ready!(self.poll_data(cx))? {
                Some(data) => data,
                None => {
                    let Some(swap) = &mut self.swap else { return Poll::Ready(None) };
                    let finished = swap.finish();
                    self.flow.swapped(swap.replaced());
                    finished.map_err(BodyError::Refused)?;
                    continue;
                }
            };
            match &mut self.swap {
                Some(swap) => {
                    let pushed = swap.push(data);
                    self.flow.swapped(swap.replaced());
                    pushed.map_err(BodyError::Refused)?;
                }
                None => return Poll::Ready(Some(Ok(Frame::data(data)))),
            }
        }
    }

    /// The next bytes of the client's.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            return self.poll_waiting(cx);
        };
        self.ticks.moved();
        if self.flow.is_cut() {
            return Poll::Ready(Err(BodyError::Aborted));
        }
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                self.flow.add(data.len());
                if self.watch.as_mut().is_some_and(|watch| watch.sees(&data)) {
                    return Poll::Ready(Err(BodyError::Misdirected));
                }
                if self.inner.is_end_stream() {
                    self.flow.end();
                }
                Poll::Ready(Ok(Some(data)))
            }
            // Trailers end here: nobody needs a request's, and they would be one more place to hide a placeholder in (RFC 9110 section 6.5.1).
            Some(Ok(Err(_))) | None => {
                self.flow.end();
                Poll::Ready(Ok(None))
            }
            Some(Err(error)) if is_broken_coding(&error) => Poll::Ready(Err(BodyError::Coding(error))),
            Some(Err(error)) => {
                self.flow.break_off();
                Poll::Ready(Err(error.into()))
            }
        }
    }

    /// The client pauses. What an encoder holds goes on meanwhile: an empty piece makes the caller look for it.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        if let Some(swap) = &mut self.swap {
            swap.flush().map_err(BodyError::Refused)?;
            if swap.is_ready() {
                return Poll::Ready(Ok(Some(Bytes::new())));
            }
        }
        if self.flow.poll_cut(cx) {
            return Poll::Ready(Err(BodyError::Aborted));
        }
        while ready!(self.ticks.poll_tick(cx)) < REQUEST_PROGRESS {}
        Poll::Ready(Err(BodyError::Stalled(REQUEST_PROGRESS)))
    }
}

/// Whether the guard found the chunked coding broken, rather than the client gone.
fn is_broken_coding(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
}

/// Reads and forgets what a client still sends of a request that was refused: one that is cut off before it has read the answer may
/// never see it (T26). At most a megabyte and ten seconds; past that the connection, or the stream, is reset.
pub(crate) async fn discard(mut body: Incoming) {
    use http_body_util::BodyExt;
    let mut left = 1usize << 20;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // A client that takes longer has had its answer for long.
    let _ = tokio::time::timeout(Duration::from_secs(10), reading).await;
}

/// A response body on its way to the sandbox. Dropping it writes the request's record.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Our own words, and the record that is written when they are gone.
    Own(Full<Bytes>, #[expect(dead_code, reason = "held to be dropped")] Option<Box<Recorder>>),
    /// The upstream's, as they arrive.
    Stream(Box<ResponseStream>),
}

pub(crate) struct ResponseStream {
    inner: Incoming,
    recorder: Recorder,
    bound: Arc<Bound>,
    /// Given back once the body is read to its end, so that the connection serves another request.
    lease: Option<Lease>,
    ticks: Ticks,
    announced: bool,
    /// Takes live values out, where a secret is bound to the host.
    scan: Option<Box<Scan>>,
    trailers: Option<HeaderMap>,
}

impl ResponseBody {
    /// Our own words. The record is written when they are sent, or cannot be.
    pub(crate) fn own(text: impl Into<Bytes>, mut recorder: Option<Recorder>) -> Self {
        let text: Bytes = text.into();
        if let Some(recorder) = &mut recorder {
            recorder.entry().bytes_out = text.len() as u64;
            recorder.finish();
        }
        Self::Own(Full::new(text), recorder.map(Box::new))
    }

    /// The answer to HEAD, and 204 and 304: no body, whatever the upstream sends (RFC 9110 section 6.4.1).
    pub(crate) fn none(inner: &Incoming, recorder: Recorder, lease: Lease) -> Self {
        if inner.is_end_stream() {
            lease.give_back(&recorder);
        }
        Self::own("", Some(recorder))
    }

    pub(crate) fn stream(
        inner: Incoming,
        mut recorder: Recorder,
        bound: Arc<Bound>,
        lease: Lease,
        scan: Option<Box<Scan>>,
    ) -> Self {
        let mut lease = Some(lease);
        if inner.is_end_stream() {
            recorder.finish();
            lease.take().into_iter().for_each(|lease| lease.give_back(&recorder));
        }
        // A response without a body ends with its head: gRPC takes an empty frame behind it for a fault.
        let scan = scan.filter(|_| !inner.is_end_stream());
        let (ticks, announced, trailers) = (Ticks::default(), false, None);
        Self::Stream(Box::new(ResponseStream {
            inner,
            recorder,
            bound,
            lease,
            ticks,
            announced,
            scan,
            trailers,
        }))
    }
}

impl std::fmt::Debug for ResponseStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseStream").finish_non_exhaustive()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(body, _) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body, _) => body.is_end_stream(),
            // A scanned body ends when its last piece has been handed on.
            Self::Stream(stream) => stream.inner.is_end_stream() && stream.scan.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body, _) => body.size_hint(),
            Self::Stream(stream) if stream.scan.is_some() => SizeHint::default(),
            Self::Stream(stream) => stream.inner.size_hint(),
        }
    }
}

impl ResponseStream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.recorder.open().is_some_and(OpenExchange::is_aborted) {
            return Poll::Ready(Some(Err(BodyError::Aborted)));
        }
        loop {
            if let Some(frame) = self.scanned()? {
                return Poll::Ready(frame.map(Ok));
            }
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(Some(Err(error))) => {
                    let message = format!("the upstream broke off the response body: {error}");
                    self.recorder.fail(Reason::UpstreamReset, message);
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => None,
                Poll::Pending => return self.poll_waiting(cx),
            };
            self.ticks.moved();
            if let Some(frame) = self.arrived(frame)? {
                return Poll::Ready(frame.map(Ok));
            }
        }
    }

    /// What has been scanned and may go on; `Some(None)` at the end of the body.
    #[expect(clippy::option_option, reason = "nothing yet, the end, or a frame")]
    fn scanned(&mut self) -> Result<Option<Option<Frame<Bytes>>>, BodyError> {
        let Some(scan) = &mut self.scan else { return Ok(None) };
        match scan.pull() {
            Ok(Some(piece)) => {
                self.recorder.entry().bytes_out += piece.len() as u64;
                Ok(Some(Some(Frame::data(piece))))
            }
            Ok(None) if scan.is_over() => {
                let trailers = self.trailers.take();
                if trailers.is_none() {
                    self.recorder.entry().redacted += scan.redacted();
                    self.end();
                }
                Ok(Some(trailers.map(Frame::trailers)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(self.unscannable(error)),
        }
    }

    /// Takes a frame of the upstream's, or its end. `None`: it is on its way through the scan.
    #[expect(clippy::option_option, reason = "nothing yet, the end, or a frame")]
    fn arrived(&mut self, frame: Option<Frame<Bytes>>) -> Result<Option<Option<Frame<Bytes>>>, BodyError> {
        let frame = frame.map(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                strip_response(trailers);
            }
            frame
        });
        let Some(scan) = &mut self.scan else {
            if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                self.recorder.entry().bytes_out += data.len() as u64;
            }
            if frame.is_none() || self.inner.is_end_stream() {
                self.end();
            }
            return Ok(Some(frame));
        };
        let trailers = match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                scan.push(data);
                return Ok(None);
            }
            Some(Err(trailers)) => trailers.into_trailers().ok(),
            None => None,
        };
        if let Err(error) = scan.finish() {
            return Err(self.unscannable(error));
        }
        self.trailers = trailers;
        if let Some(trailers) = &mut self.trailers {
            self.recorder.entry().redacted += scan_fields(scan.redactor(), trailers);
        }
        Ok(None)
    }

    fn unscannable(&mut self, error: CodingError) -> BodyError {
        self.recorder.fail(
            Reason::UpstreamProtocol,
            format!("the response cannot be searched for live values: {error}"),
        );
        BodyError::Unscannable(error)
    }

    fn end(&mut self) {
        self.recorder.finish();
        self.lease.take().into_iter().for_each(|lease| lease.give_back(&self.recorder));
    }

    /// The first tick makes it a long stream, which the audit log announces while it is open; a quiet hour ends it.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.recorder.open().is_some_and(|open| open.poll_aborted(cx).is_ready()) {
            return Poll::Ready(Some(Err(BodyError::Aborted)));
        }
        loop {
            let quiet = ready!(self.ticks.poll_tick(cx));
            if quiet >= RESPONSE_IDLE {
                self.recorder.fail(
                    Reason::UpstreamTimeout,
                    format!("the response stood still for {} s", quiet.as_secs()),
                );
                return Poll::Ready(Some(Err(BodyError::Stalled(quiet))));
            }
            if !std::mem::replace(&mut self.announced, true) {
                self.recorder.announce(&self.bound.generation.audit);
            }
        }
    }
}

#[cfg(test)]
mod tests;
