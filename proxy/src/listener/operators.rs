//! Listeners for operators: plain HTTP/1.1, a handful of requests a minute.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio_util::sync::CancellationToken;

use super::Bound;

/// How long a head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting pauses when the process is out of descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Answers every request with `respond` until the listener is closed; its connections are counted.
pub(crate) async fn serve_operators<F>(
    bound: Bound,
    closed: CancellationToken,
    connections: IntCounter,
    respond: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            continue;
        };
        connections.inc();
        let respond = respond.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(request);
                async { Ok::<_, Infallible>(response.await) }
            });
            // A monitor that breaks off is not worth a line.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        });
    }
}
