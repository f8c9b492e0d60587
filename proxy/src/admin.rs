//! Health and readiness, on a listener that sandboxes cannot reach (T20).

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::data_plane::DataPlane;
use crate::listener::Bound;

/// Serves `/healthz` and `/readyz` until draining is over.
pub(crate) async fn serve(plane: Arc<DataPlane>, bound: Bound) {
    loop {
        let Ok((tcp, _)) = bound.listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let plane = Arc::clone(&plane);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&plane, &request);
                async { Ok::<_, Infallible>(response) }
            });
            // A monitor that breaks off is not worth a line.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        });
    }
}

fn respond(plane: &DataPlane, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "OK"),
        (&Method::GET | &Method::HEAD, "/readyz") => match trouble(plane) {
            None => (StatusCode::OK, "OK"),
            Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, trouble),
        },
        (_, "/healthz" | "/readyz") => (StatusCode::METHOD_NOT_ALLOWED, "use GET"),
        _ => (StatusCode::NOT_FOUND, "there is /healthz and /readyz"),
    };
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}

fn trouble(plane: &DataPlane) -> Option<&'static str> {
    if plane.drain.has_begun() {
        return Some("draining");
    }
    plane.audit.trouble()
}
