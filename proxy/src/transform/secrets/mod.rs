//! Puts real values where the plan says, and only there: no other byte of the request changes.

mod body;
mod head;

use std::sync::Arc;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use keyferry_config::document::OnUnavailable;
use keyferry_config::policy::{Placement, Plan, Reason, Refusal};
use keyferry_source::SecretValue;
use smallvec::SmallVec;

use crate::audit::{Outcome, Recorder, SecretTrace};
use crate::body::RequestBody;
use crate::data_plane::Generation;
use crate::session::Bound;

pub(crate) use body::actions;

/// The values that one request needs, by number. `None`: unavailable, and the entry lets the request pass without.
type Values = SmallVec<[(u32, Option<Arc<SecretValue>>); 2]>;

/// The request as it leaves.
pub(crate) async fn apply(
    plan: &Plan,
    bound: &Bound,
    mut parts: Parts,
    mut target: PathAndQuery,
    body: &mut Option<Incoming>,
    recorder: &mut Recorder,
) -> Result<(Parts, RequestBody), Refusal> {
    if !plan.changes_nothing() {
        head::apply(plan, &bound.generation, &mut parts, &mut target, recorder).await?;
    }
    parts.uri = Uri::from(target);
    let body = body::apply(plan, bound, &mut parts.headers, body, recorder).await?;
    Ok((parts, body))
}

/// The head of the same request with the values that are current by now. Its body is not touched.
pub(crate) async fn apply_again(
    plan: &Plan,
    bound: &Bound,
    mut parts: Parts,
    mut target: PathAndQuery,
    recorder: &mut Recorder,
) -> Result<Parts, Refusal> {
    // What the record said of the first attempt is told once more by the second.
    recorder.entry().secrets.clear();
    head::apply(plan, &bound.generation, &mut parts, &mut target, recorder).await?;
    parts.uri = Uri::from(target);
    Ok(parts)
}

/// The value of a secret; an error if it cannot be had and the entry does not let requests pass without (invariant 6).
async fn value(
    number: u32,
    generation: &Generation,
    recorder: &mut Recorder,
) -> Result<Option<Arc<SecretValue>>, Refusal> {
    let handle = &generation.secrets[number as usize];
    let error = match handle.current() {
        Some(value) => return Ok(Some(value)),
        None => match Box::pin(handle.value()).await {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        },
    };
    let secret = generation.policy.secret(number);
    tracing::warn!(secret = &**secret.name(), %error, "a secret is unavailable");
    let traces = &mut recorder.entry().secrets;
    // A long WebSocket asks again and again.
    let known =
        |trace: &SecretTrace| trace.secret == *secret.name() && matches!(trace.outcome, Outcome::Unavailable);
    if !traces.iter().any(known) {
        traces.push(SecretTrace { secret: Arc::clone(secret.name()), outcome: Outcome::Unavailable });
    }
    match secret.on_unavailable() {
        OnUnavailable::Pass => Ok(None),
        OnUnavailable::Deny => Err(Refusal::new(
            Reason::SecretUnavailable,
            format!("the value for {} cannot be had, and this request needs it", shown(number, generation)),
        )),
    }
}

/// A secret as its user knows it: by its placeholder, or the place that it is set in. Where the value comes from is the operator's.
fn shown(secret: u32, generation: &Generation) -> String {
    let policy = &generation.policy;
    match policy.secret(secret).placement() {
        Placement::Replace(replace) => {
            format!("the placeholder {}", policy.placeholders().text(replace.placeholder))
        }
        Placement::Header(name, _) => format!("header {name}"),
        Placement::Query(name, _) => format!("query parameter {name}"),
    }
}
