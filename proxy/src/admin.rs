//! Health and readiness, on a listener that sandboxes cannot reach (T20).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::data_plane::DataPlane;
use crate::listener::{Bound, serve_operators};

/// Serves `/healthz` and `/readyz` until the listener is closed.
pub(crate) async fn serve(plane: Arc<DataPlane>, bound: Bound, closed: CancellationToken) {
    serve_operators(bound, closed, move |request: Request<Incoming>| {
        let response = respond(&plane, &request);
        async { response }
    })
    .await;
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
    if let Some(trouble) = plane.control.as_ref().and_then(|control| control.trouble()) {
        return Some(trouble);
    }
    plane.nobody.generation.load().audit.trouble()
}
