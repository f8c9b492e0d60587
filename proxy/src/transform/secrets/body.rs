//! Values in bodies. A body that is searched is sent with an exact length where it fits the limit, and streams beyond it (invariant 8).

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use keyferry_config::policy::{Found, Plan, Reason, Refusal, Scope};

use super::value;
use crate::audit::Recorder;
use crate::body::{BodyError, RequestBody};
use crate::coding::Coding;
use crate::data_plane::Generation;
use crate::session::Bound;
use crate::transform::misdirection::Watch;
use crate::transform::swap::{Action, BodySwap, Swaps};

/// How much is held where there is no limit: more would be memory that a sandbox decides on.
const HELD_WITHOUT_LIMIT: u64 = 1 << 20;

/// The body as it leaves. One that is refused unread stays where it is.
pub(super) async fn apply(
    plan: &Plan,
    bound: &Bound,
    headers: &mut HeaderMap,
    body: &mut Option<Incoming>,
    recorder: &mut Recorder,
) -> Result<RequestBody, Refusal> {
    let Bound { generation, scope, .. } = bound;
    if body.as_ref().is_none_or(|body| body.is_end_stream()) {
        return without_body(plan, scope, headers);
    }
    let swap = match plan.body.is_empty() {
        true => None,
        false => Some(Box::pin(swap_for(plan, scope, generation, headers, recorder)).await?),
    };
    let Some(unread) = body.take() else { return Ok(RequestBody::empty()) };
    let flow = recorder.count_request_body();
    let Some(swap) = swap else { return Ok(RequestBody::stream(unread, flow, Watch::new(scope))) };
    let limit = generation.limits.held_body.unwrap_or(HELD_WITHOUT_LIMIT);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
    match Box::pin(hold(RequestBody::swapped(unread, flow, swap), limit)).await? {
        Held::Whole(bytes) => {
            headers.insert(CONTENT_LENGTH, bytes.len().into());
            Ok(RequestBody::Whole(Full::new(bytes)))
        }
        Held::Begun(body) => Ok(body),
    }
}

fn without_body(plan: &Plan, scope: &Scope, headers: &HeaderMap) -> Result<RequestBody, Refusal> {
    if headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        // The upstream would wait for it, and take the next request for it (T25).
        return Err(Refusal::new(Reason::MalformedRequest, "the request announces a body and has none"));
    }
    match plan.required_in_body.first() {
        Some(&secret) => Err(scope.missing_placeholder(secret)),
        None => Ok(RequestBody::empty()),
    }
}

/// What the body is searched for, with the values at hand. A value that cannot be had refuses the request only if the body holds its
/// placeholder (invariant 6).
async fn swap_for(
    plan: &Plan,
    scope: &Scope,
    generation: &Generation,
    headers: &HeaderMap,
    recorder: &mut Recorder,
) -> Result<BodySwap, Refusal> {
    let coding = Coding::of(headers).map_err(|error| {
        let message = format!(
            "a secret with match_body applies to this request, and its body cannot be searched: {error}"
        );
        Refusal::new(Reason::CodingNotSwappable, message)
    })?;
    let actions = actions(plan, scope, generation, recorder).await;
    let required = plan.required_in_body.iter().map(|&secret| (secret, scope.missing_placeholder(secret)));
    Ok(BodySwap::new(Swaps::new(&generation.policy, actions), required.collect(), coding))
}

/// What becomes of each placeholder in a body, or a message, of the request that `plan` is for.
pub(crate) async fn actions(
    plan: &Plan,
    scope: &Scope,
    generation: &Generation,
    recorder: &mut Recorder,
) -> Vec<Action> {
    let placeholders = generation.policy.placeholders();
    let mut actions = Vec::new();
    for (placeholder, _) in (0..).zip(placeholders.texts()) {
        let found = Found { placeholder, start: 0, end: 0, whole: false };
        actions.push(match scope.resolve_in_body(&found, plan) {
            Ok(None) => Action::Leave,
            Err(refusal) => Action::Refuse(refusal),
            Ok(Some(hit)) => match value(hit.secret, generation, recorder).await {
                Ok(Some(value)) => Action::Replace(hit.secret, value),
                Ok(None) => Action::Leave,
                Err(refusal) => Action::Refuse(refusal),
            },
        });
    }
    actions
}

enum Held {
    Whole(Bytes),
    /// More than the limit: the beginning is put back.
    Begun(RequestBody),
}

async fn hold(mut body: RequestBody, limit: u64) -> Result<Held, Refusal> {
    let mut held = BytesMut::new();
    while held.len() as u64 <= limit {
        match body.frame().await {
            None => return Ok(Held::Whole(held.freeze())),
            Some(Ok(frame)) => held.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Err(refused(error)),
        }
    }
    body.put_back(held.freeze());
    Ok(Held::Begun(body))
}

fn refused(error: BodyError) -> Refusal {
    match error {
        BodyError::Refused(refusal) => refusal,
        BodyError::Stalled(_) => Refusal::new(Reason::RequestTimeout, "the request body stood still"),
        error => Refusal::new(Reason::MalformedRequest, format!("the request body broke off: {error}")),
    }
}
