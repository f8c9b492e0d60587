//! HTTP on a connection of a sandbox, with its limits, until it ends or is drained.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::ResponseBody;
use crate::data_plane::DataPlane;

/// How long a connection may wait for its next head.
const IDLE: Duration = Duration::from_secs(300);
/// The largest head that is read, in bytes: room for a few large cookies and tokens.
const MAX_HEAD: usize = 256 * 1024;
/// Streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 256;
/// What one HTTP/2 stream, and all of them together, may have in flight.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Serves HTTP/1.1, which may turn into a tunnel or a WebSocket.
pub(crate) async fn serve_h1<IO, F>(
    plane: &DataPlane,
    io: IO,
    serve: impl Fn(Request<Incoming>) -> F,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<ResponseBody>>,
{
    let service = service_fn(|request| {
        let response = serve(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEAD)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = plane.drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Serves HTTP/2.
pub(crate) async fn serve_h2<IO, F>(
    plane: &DataPlane,
    io: IO,
    serve: impl Fn(Request<Incoming>) -> F,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<ResponseBody>> + Send + 'static,
{
    let service = service_fn(|request| {
        let response = serve(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(IDLE)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = plane.drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
