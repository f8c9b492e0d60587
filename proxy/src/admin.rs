//! Health, readiness and metrics, on a listener that sandboxes cannot reach (T20).

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::data_plane::DataPlane;
use crate::listener::{Bound, serve_operators};
use crate::metrics;
use crate::reload::Reloader;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves `/healthz`, `/readyz` and `/metrics` until the listener is closed.
pub(crate) async fn serve(reloader: Reloader, bound: Bound, closed: CancellationToken) {
    let connections = reloader.plane().telemetry.metrics.connections.metrics.clone();
    serve_operators(bound, closed, connections, move |request: Request<Incoming>| {
        let response = respond(&reloader, &request);
        async { response }
    })
    .await;
}

fn respond(reloader: &Reloader, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return answer(StatusCode::NOT_FOUND, PLAIN, "there is /healthz, /readyz and /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "use GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => match metrics::scrape(reloader.plane(), &reloader.status()) {
            Ok(page) => answer(StatusCode::OK, metrics::CONTENT_TYPE, page),
            Err(error) => {
                let text = format!("the metrics cannot be written: {error}\n");
                answer(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text)
            }
        },
        "/readyz" => match trouble(reloader.plane()) {
            None => answer(StatusCode::OK, PLAIN, "OK\n"),
            Some(trouble) => answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{trouble}\n")),
        },
        _ => answer(StatusCode::OK, PLAIN, "OK\n"),
    }
}

fn answer(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn trouble(plane: &DataPlane) -> Option<&'static str> {
    if plane.drain.has_begun() {
        return Some("draining");
    }
    if let Some(trouble) = plane.control.as_ref().and_then(|control| control.trouble()) {
        return Some(trouble);
    }
    plane.nobody.generation.load().audit.trouble()
}
