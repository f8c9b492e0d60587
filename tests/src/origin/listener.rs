//! Connections of an origin server.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Handler;
use super::received::Log;

/// Serves until it is dropped; its connections end with it.
pub(super) async fn serve(
    socket: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    handler: Handler,
    log: Arc<Log>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = socket.accept().await else { return };
        log.connection();
        // Small answers matter here, and tests time them.
        let _ = stream.set_nodelay(true);
        let (tls, handler) = (tls.clone(), Arc::clone(&handler));
        connections.spawn(async move {
            match tls {
                None => answer(stream, false, handler).await,
                Some(config) => {
                    // A client that refuses our certificate is what some tests are about.
                    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    answer(stream, h2, handler).await;
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, h2: bool, handler: Handler) {
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let stream = TokioIo::new(stream);
    // Errors here are the other side's: resets and vanished clients are tested on purpose.
    if h2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
    } else {
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(stream, service)
            .with_upgrades()
            .await;
    }
}
