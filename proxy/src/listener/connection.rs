//! HTTP on a connection of a sandbox, with its limits, until it ends or is drained.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::prefixed::Prefixed;
use super::progress::Progress;
use crate::body::{BodyError, ResponseBody};
use crate::data_plane::DataPlane;
use crate::guard::{Answering, Control, Fault, Wire};

/// From the end of the TLS handshake to the first byte of HTTP/2.
const PREFACE: Duration = Duration::from_secs(10);
/// How often an HTTP/2 connection is asked whether its client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// hyper's buffer: larger than any head that the guard lets through.
const MAX_BUFFER: usize = 256 * 1024;
/// The largest list of header fields over HTTP/2, in bytes as RFC 9113 section 6.5.2 counts them.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 256;
/// What one HTTP/2 stream, and all of them together, may have in flight.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What arrives on a connection: a request, or something that must not be read as one.
pub(crate) type Arrival = Result<Request<Incoming>, Fault>;

/// Serves HTTP/1.1 behind a guard, which may turn into a tunnel or a WebSocket. `expects_head`: the first head must come in time.
/// Once `ending` completes, it ends as soon as it is idle.
pub(crate) async fn serve_h1<IO, F>(
    io: IO,
    expects_head: bool,
    ending: impl Future<Output = ()>,
    serve: impl Fn(Arrival) -> F,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<ResponseBody>>,
{
    let (wire, control) = Wire::new(Progress::new(io), expects_head);
    let service = service_fn(|request: Request<Incoming>| {
        let mut arrived = control.arrive();
        let control = &control;
        let connect = request.method() == Method::CONNECT;
        let response = serve(match arrived.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(request),
        });
        // Boxed: hyper has room for a request's future in each connection, an idle one too.
        Box::pin(async move {
            let response = response.await;
            let status = response.status();
            let switched = status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success());
            control.decide(arrived.number(), switched);
            Ok::<_, Infallible>(response.map(|inner| Answer { inner, _answering: arrived.answering }))
        })
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The guard keeps time: hyper's timer would be set and dropped with each request.
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Serves HTTP/2. A client that says nothing at first, or for long while nothing is open, is sent away.
pub(crate) async fn serve_h2<IO, F>(
    plane: &Arc<DataPlane>,
    io: IO,
    serve: impl Fn(Arrival) -> F,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    let mut io = Prefixed::new(Bytes::new(), io);
    if !matches!(tokio::time::timeout(PREFACE, io.peek()).await, Ok(Ok(Some(_)))) {
        return Ok(());
    }
    let control = Arc::new(Control::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        let arrived = control.arrive();
        if request.method() == Method::CONNECT {
            // A WebSocket has no body that would keep the connection from idling.
            request.extensions_mut().insert(arrived.answering.clone());
        }
        let response = serve(Ok(request));
        async move {
            let response = response.await;
            Ok::<_, Infallible>(response.map(|inner| Answer { inner, _answering: arrived.answering }))
        }
    });
    let connection = http2::Builder::new(Streams(Arc::clone(plane)))
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .keep_alive_interval(KEEP_ALIVE)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(Progress::new(io)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = plane.drain.begun() => {}
        () = control.idle() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Runs the streams of an HTTP/2 connection as tasks that draining waits for: each has a record to write.
#[derive(Clone)]
struct Streams(Arc<DataPlane>);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.drain.spawn(stream);
    }
}

/// A response body; while it lives, its connection is not idle.
struct Answer {
    inner: ResponseBody,
    _answering: Answering,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
