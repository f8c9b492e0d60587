//! The HTTP API: from a request to the handler that the table of routes names, and back.

mod access;
mod api_keys;
mod attempts;
mod auth;
mod call;
mod change_log;
mod egress;
mod error;
mod grants;
mod health;
mod openapi;
mod principals;
mod proxies;
mod proxy_sync;
mod roles;
mod route;
mod sandboxes;
mod secrets;
mod upsert;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::header;
use keyferry_store::Store;

pub(crate) use auth::Door;
pub use openapi::document as openapi_document;

use crate::Clock;
use crate::Settings;
use crate::server::Arrival;
use crate::sync::Hub;
use attempts::Attempts;
use call::Call;
use error::ApiError;
use route::{Route, table};

/// What all requests share.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    attempts: Attempts,
}

impl App {
    pub(crate) fn new(store: Store, hub: Arc<Hub>, clock: Clock, settings: Settings) -> Self {
        Self { store, hub, clock, settings, attempts: Attempts::default() }
    }
}

/// The longest body that is read.
const LONGEST_BODY: usize = 1024 * 1024;
/// How long it may take, where no listener says otherwise (T32).
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The whole API, behind one door.
pub(crate) fn router(app: &Arc<App>, door: Door) -> Router {
    let mut router = Router::new();
    let mut paths: Vec<(&str, MethodRouter)> = Vec::new();
    for route in table() {
        let app = Arc::clone(app);
        let handler = move |path: Result<RawPathParams, RawPathParamsRejection>, request: Request| {
            let app = Arc::clone(&app);
            async move { serve(app, door, route, path, request).await.unwrap_or_else(IntoResponse::into_response) }
        };
        let filter = MethodFilter::try_from(route.method.clone()).expect("a method of the table");
        let method = on(filter, handler);
        match paths.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, methods)) => *methods = std::mem::take(methods).merge(method),
            None => paths.push((&route.path, method)),
        }
    }
    for (path, methods) in paths {
        router = router.route(path, methods);
    }
    router
        .fallback(async || ApiError::NotFound.into_response())
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed.into_response())
}

async fn serve(
    app: Arc<App>,
    door: Door,
    route: &'static Route,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    // Who may not call learns nothing else, not even whether the body was right.
    let arrival = head.extensions.get::<Arrival>();
    let caller = match auth::admit(&app, door, route.admits, &head.headers).await {
        Err(refused @ (ApiError::NoOperator | ApiError::NoProxy)) => {
            if let Some(peer) = arrival.and_then(|arrival| arrival.peer) {
                tokio::time::sleep(app.attempts.failed(peer, std::time::Instant::now())).await;
            }
            return Err(refused);
        }
        admitted => admitted?,
    };
    let within = arrival.map_or(BODY_WITHIN, |arrival| arrival.body);
    let body =
        tokio::time::timeout(within, read(body, &head.headers)).await.map_err(|_| ApiError::TooSlow)??;
    let path = path.map_err(|_| ApiError::NotFound)?;
    // No name holds a NUL, and PostgreSQL could not compare with one.
    if path.iter().any(|(_, value)| value.contains('\0')) {
        return Err(ApiError::NotFound);
    }
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let query = query(head.uri.query().unwrap_or_default())?;
    let call = Call { app, route, caller, path, query, headers: head.headers, body };
    Ok((route.handler)(call).await?.into_response())
}

async fn read(body: Body, headers: &http::HeaderMap) -> Result<Bytes, ApiError> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > LONGEST_BODY) {
        return Err(ApiError::TooLong);
    }
    axum::body::to_bytes(body, LONGEST_BODY).await.map_err(|_| ApiError::TooLong)
}

/// Names and values, decoded. No value holds a NUL, which PostgreSQL could not compare with.
fn query(text: &str) -> Result<Vec<(String, String)>, ApiError> {
    const MALFORMED: ApiError = ApiError::Malformed("the query cannot be read");
    let decode = |part: &str| {
        let part = part.replace('+', " ");
        let text = percent_encoding::percent_decode_str(&part).decode_utf8().map_err(|_| MALFORMED)?;
        if text.contains('\0') { Err(MALFORMED) } else { Ok(text.into_owned()) }
    };
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key)?, decode(value)?);
        // Which of two would count is for nobody to guess.
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(ApiError::Malformed("a parameter stands in the query twice"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}
