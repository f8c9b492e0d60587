//! `management.listen`: tells a running proxy to read its configuration again, and asks how it does. Never without a key.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::audit::AuditStatus;
use crate::listener::{Bound, serve_operators};
use crate::reload::{ReloadError, Reloader, Status};
use crate::sync::{ManagedStatus, Standing};

#[derive(Serialize)]
struct StatusBody {
    mode: &'static str,
    generation: u64,
    applied_at: Timestamp,
    last_reload: LastReload,
    audit: AuditStatus,
}

#[derive(Serialize)]
struct ManagedBody {
    mode: &'static str,
    #[serde(flatten)]
    control: ManagedStatus,
    last_reload: LastReload,
    audit: AuditStatus,
}

#[derive(Serialize)]
struct LastReload {
    at: Timestamp,
    status: &'static str,
    error: Option<String>,
}

#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
}

#[derive(Serialize)]
struct Done {
    status: &'static str,
}

/// Serves `/v1/reload` and `/v1/status` until the listener is closed.
pub(crate) async fn serve(reloader: Reloader, bound: Bound, closed: CancellationToken) {
    let connections = reloader.plane().telemetry.metrics.connections.management.clone();
    serve_operators(bound, closed, connections, move |request| respond(reloader.clone(), request)).await;
}

async fn respond(reloader: Reloader, request: Request<Incoming>) -> Response<Full<Bytes>> {
    // First, so that a stranger learns nothing of what is there.
    if !is_authorized(&reloader, request.headers()) {
        return json(StatusCode::UNAUTHORIZED, &Error { error: "unauthorized" });
    }
    match (request.uri().path(), request.method()) {
        ("/v1/reload", &Method::POST) => match reloader.reload().await {
            Ok(_) => json(StatusCode::OK, &Done { status: "ok" }),
            Err(error @ (ReloadError::Document(_) | ReloadError::Start(_))) => {
                json(StatusCode::UNPROCESSABLE_ENTITY, &Error { error: &error.to_string() })
            }
        },
        ("/v1/status", &Method::GET) => match reloader.standing() {
            None => json(StatusCode::OK, &status(&reloader)),
            Some(standing) => json(StatusCode::OK, &managed_status(&reloader, standing)),
        },
        ("/v1/sync", method) if let Some(standing) = reloader.standing() => match *method {
            Method::POST => {
                standing.poke();
                json(StatusCode::ACCEPTED, &Done { status: "accepted" })
            }
            _ => not_allowed("POST"),
        },
        ("/v1/reload", _) => not_allowed("POST"),
        ("/v1/status", _) => not_allowed("GET"),
        _ => json(
            StatusCode::NOT_FOUND,
            &Error {
                error: "there is POST /v1/reload, GET /v1/status, and POST /v1/sync where the policy comes from a control service",
            },
        ),
    }
}

fn is_authorized(reloader: &Reloader, headers: &HeaderMap) -> bool {
    let Some(key) = reloader.management_key() else { return false };
    let shown =
        headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked("bearer ".len()));
    shown.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.ct_eq(key.expose().as_bytes()))
    })
}

fn status(reloader: &Reloader) -> StatusBody {
    let status = reloader.status();
    StatusBody {
        mode: "standalone",
        generation: status.generation,
        applied_at: timestamp(status.applied),
        last_reload: last_reload(&status),
        audit: reloader.audit(),
    }
}

fn managed_status(reloader: &Reloader, standing: &Standing) -> ManagedBody {
    ManagedBody {
        mode: "managed",
        control: standing.status(),
        last_reload: last_reload(&reloader.status()),
        audit: reloader.audit(),
    }
}

fn last_reload(status: &Status) -> LastReload {
    LastReload {
        at: timestamp(status.last_attempt),
        status: if status.last_error.is_none() { "ok" } else { "failed" },
        error: status.last_error.clone(),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

fn not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &Error { error: "method not allowed" });
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
