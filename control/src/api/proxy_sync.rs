//! The doors for proxies: the poll, the stream, and the report of what is applied. These answers carry live values.

use std::collections::BTreeSet;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::StatusCode;
use keyferry_contract::sync::{
    Applied, Capability, Generation, Payload, Policy, Request, Response as Polled, Status, Tree,
};
use keyferry_store::{Row, sql};
use serde_json::json;

use super::call::{Answer, Call};
use super::error::{ApiError, answer_headers};
use super::proxies;
use crate::effective::assigned_hash;
use crate::id::IdOf;
use crate::rows::{json as column_json, micros, moment};
use crate::sync::{Feed, Subject};

/// `POST /api/v1/proxy/sync`: what iron-proxy asks.
pub(crate) async fn sync(call: Call) -> Result<Answer, ApiError> {
    let request: Request = if call.body.is_empty() {
        Request::default()
    } else {
        serde_json::from_slice(&call.body).map_err(|_| ApiError::Malformed("the body is no sync request"))?
    };
    let proxy =
        proxies::by_row(&mut &call.app.store, call.caller.proxy()?).await?.ok_or(ApiError::ProxyRevoked)?;
    let principal: Option<i64> = proxy.get("principal")?;
    let rendered = match principal {
        Some(principal) => {
            call.app
                .hub
                .policy(&Subject { principal, requester: None, proxy_labels: labels(&proxy)? })
                .await?
        }
        None => None,
    };
    let capabilities: BTreeSet<Capability> = request.capabilities.iter().copied().collect();
    let mut missing = Vec::new();
    let mut policy = Policy::default();
    if let Some(rendered) = &rendered {
        missing = rendered.needs.difference(&capabilities).copied().collect();
        if missing.is_empty() {
            policy = rendered.policy.clone();
        }
    }
    let status = match (&rendered, missing.is_empty()) {
        (None, _) => Status::Unassigned,
        (Some(_), true) => Status::Assigned,
        (Some(_), false) => Status::Incompatible,
    };
    let principal_id = rendered.is_some().then_some(principal).flatten().map(|row| IdOf::Principal.id(row));
    let assigned_at = proxy.get::<Option<i64>>("assigned_at")?.map(moment).transpose()?;
    let content = rendered.as_ref().filter(|_| missing.is_empty()).map(|rendered| rendered.hash.as_str());
    let config_hash = assigned_hash(content, status, principal_id.as_deref(), assigned_at);
    note(&call, &proxy, &capabilities, &missing).await?;
    let known = request.config_hash.as_deref() == Some(config_hash.as_str());
    let generation = rendered.map(|rendered| rendered.generation.clone());
    let payload =
        (!known).then(|| Payload { status, principal_id, generation, missing_capabilities: missing, policy });
    Ok(Answer::Own(revealed(&Polled { config_hash, payload }.into_tree())))
}

/// `GET /api/v1/proxy/stream`: pushed as it changes.
pub(crate) async fn stream(call: Call) -> Result<Answer, ApiError> {
    let proxy = call.caller.proxy()?;
    let found = proxies::by_row(&mut &call.app.store, proxy).await?.ok_or(ApiError::ProxyRevoked)?;
    let names = call.parameter("capabilities").unwrap_or_default().split(',');
    let named = |name: &str| serde_json::from_value(json!(name)).ok();
    let capabilities: BTreeSet<Capability> =
        names.filter(|name| !name.is_empty()).filter_map(named).collect();
    if found.get::<String>("kind")? == "shared" && !capabilities.contains(&Capability::Sandboxes) {
        let missing = [Capability::Sandboxes];
        note(&call, &found, &capabilities, &missing).await?;
        return Err(ApiError::Refused("a shared proxy must name the capability sandboxes"));
    }
    note(&call, &found, &capabilities, &[]).await?;
    let last = call.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let held = last.and_then(|id| id.parse::<Generation>().ok());
    let feed = Feed::open(std::sync::Arc::clone(&call.app), proxy, capabilities, held);
    let body = stream::unfold(feed, |mut feed| async move {
        let piece = feed.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(piece)), feed))
    });
    let headers = answer_headers("text/event-stream");
    Ok(Answer::Own((StatusCode::OK, headers, Body::from_stream(body)).into_response()))
}

/// `POST /api/v1/proxy/applied`: what a proxy enforces now.
pub(crate) async fn applied(call: Call) -> Result<Answer, ApiError> {
    let applied: Applied =
        serde_json::from_slice(&call.body).map_err(|_| ApiError::Malformed("the body is no report"))?;
    let number = i64::try_from(applied.generation.number)
        .map_err(|_| ApiError::Malformed("the generation is no number of ours"))?;
    let plain = |text: &str| text.len() <= 255 && !text.contains(char::is_control);
    let texts = [
        Some(applied.generation.epoch.as_str()),
        applied.config_hash.as_deref(),
        applied.address.as_deref(),
        applied.sandbox_sockets.as_deref(),
    ];
    if !texts.into_iter().flatten().all(plain) {
        return Err(ApiError::Malformed("the body is no report"));
    }
    let update =
        sql("UPDATE control_proxies SET applied_epoch = $2, applied_number = $3, applied_hash = $4, \
         address = COALESCE(address, $5), seen_at = $6, sandbox_sockets = $7 WHERE row = $1");
    let statement = update
        .bind(call.caller.proxy()?)
        .bind(applied.generation.epoch)
        .bind(number)
        .bind(applied.config_hash)
        .bind(applied.address)
        .bind(micros((call.app.clock)()))
        .bind(applied.sandbox_sockets);
    call.app.store.execute(statement).await?;
    Ok(Answer::Nothing)
}

/// The labels that settings may name.
pub(crate) fn labels(proxy: &Row) -> Result<Option<String>, keyferry_store::StoreError> {
    let labels: String = proxy.get("labels")?;
    Ok((labels != "{}").then_some(labels))
}

/// That a proxy asked, and what it cannot do. Written only where it is news, or a minute old.
async fn note(
    call: &Call,
    proxy: &Row,
    capabilities: &BTreeSet<Capability>,
    missing: &[Capability],
) -> Result<(), ApiError> {
    let now = micros((call.app.clock)());
    let known: Vec<Capability> = column_json(proxy, "missing")?;
    let could: BTreeSet<Capability> = column_json(proxy, "capabilities")?;
    let seen: Option<i64> = proxy.get("seen_at")?;
    if known == missing && could == *capabilities && seen.is_some_and(|seen| now - seen < 60_000_000) {
        return Ok(());
    }
    let update =
        sql("UPDATE control_proxies SET capabilities = $2, missing = $3, seen_at = $4 WHERE row = $1");
    let statement = update
        .bind(proxy.get::<i64>("row")?)
        .bind(json!(capabilities).to_string())
        .bind(json!(missing).to_string())
        .bind(now);
    call.app.store.execute(statement).await?;
    Ok(())
}

/// The one place where live values become bytes of an answer.
fn revealed(tree: &Tree) -> Response {
    (StatusCode::OK, answer_headers("application/json"), Bytes::copy_from_slice(tree.reveal().as_bytes()))
        .into_response()
}
