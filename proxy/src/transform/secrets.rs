//! Puts real values where the plan says, and only there: no other byte of the request changes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use keyferry_config::document::{Formatter, OnUnavailable};
use keyferry_config::policy::{Location, Placement, Plan, Reason, Refusal, Scope, decode_basic};
use keyferry_source::SecretValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::audit::{Flow, Outcome, Recorder, SecretTrace};
use crate::body::{RequestBody, Unheld, hold, splice};
use crate::data_plane::Generation;
use crate::session::Bound;
use crate::transform::misdirection::Watch;

/// Everything but RFC 3986's unreserved characters: a value never changes the structure of the target that it stands in.
const IN_TARGET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

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
        apply_to_head(plan, &bound.generation, &mut parts, &mut target, recorder).await?;
    }
    parts.uri = Uri::from(target);
    let body = apply_to_body(plan, bound, &mut parts.headers, body, recorder).await?;
    Ok((parts, body))
}

async fn apply_to_head(
    plan: &Plan,
    generation: &Generation,
    parts: &mut Parts,
    target: &mut PathAndQuery,
    recorder: &mut Recorder,
) -> Result<(), Refusal> {
    let values = fetch(plan, generation, recorder).await?;
    let value_of = |secret: u32| {
        values.iter().find(|(number, _)| *number == secret).and_then(|(_, value)| value.as_deref())
    };
    for swap in &plan.headers {
        let hits = swap
            .hits
            .iter()
            .filter_map(|hit| Some((hit.start..hit.end, value_of(hit.secret)?.expose().as_bytes())));
        let http::header::Entry::Occupied(mut values) = parts.headers.entry(&swap.name) else { continue };
        let Some(value) = values.iter_mut().nth(swap.nth) else { continue };
        let swapped =
            if swap.basic { swap_basic(value, hits) } else { splice(value.as_bytes(), hits).freeze() };
        *value = sensitive(swapped, swap.hits.first().map(|hit| hit.secret), generation)?;
    }
    swap_target(plan, target, &value_of)?;
    for &number in &plan.injections {
        let Some(value) = value_of(number) else { continue };
        match generation.policy.secret(number).placement() {
            Placement::Header(name, formatter) => {
                let text = formatted(formatter.as_ref(), value);
                let value = sensitive(Bytes::copy_from_slice(text.as_bytes()), Some(number), generation)?;
                parts.headers.insert(name.clone(), value);
            }
            Placement::Query(name, formatter) => {
                *target = set_parameter(target, name, &formatted(formatter.as_ref(), value))?;
            }
            Placement::Replace(_) => {}
        }
    }
    record(plan, generation, &values, recorder);
    Ok(())
}

/// The body: streamed, or held and swapped where the plan looks into it. One that is refused unread stays where it is.
async fn apply_to_body(
    plan: &Plan,
    bound: &Bound,
    headers: &mut HeaderMap,
    body: &mut Option<Incoming>,
    recorder: &mut Recorder,
) -> Result<RequestBody, Refusal> {
    let Bound { generation, scope, .. } = bound;
    let limit = generation.limits.held_body;
    let Some(unread) = body.take_if(|body| !body.is_end_stream()) else {
        if headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
            // The upstream would wait for it, and take the next request for it (T25).
            return Err(Refusal::new(Reason::MalformedRequest, "the request announces a body and has none"));
        }
        return match plan.required_in_body.first() {
            Some(&secret) => Err(scope.missing_placeholder(secret)),
            None => Ok(RequestBody::empty()),
        };
    };
    if plan.body.is_empty() {
        let flow = recorder.count_request_body();
        return Ok(RequestBody::stream(unread, flow, Watch::new(scope)));
    }
    if let Err(refusal) = can_be_held(headers, unread.size_hint().lower(), limit) {
        *body = Some(unread);
        return Err(refusal);
    }
    let bytes = hold_for_swap(unread, limit, recorder.count_request_body()).await?;
    swap_body(plan, scope, generation, headers, bytes, recorder).await
}

/// Whether a body can be searched at all, judged before a byte of it is read.
fn can_be_held(headers: &HeaderMap, size: u64, limit: Option<u64>) -> Result<(), Refusal> {
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(identity) {
        return Err(Refusal::new(
            Reason::CodingNotSwappable,
            "the body has a Content-Encoding, and a secret with match_body applies to this request",
        ));
    }
    match limit {
        Some(limit) if size > limit => Err(too_large(limit)),
        Some(_) | None => Ok(()),
    }
}

async fn hold_for_swap(body: Incoming, limit: Option<u64>, flow: Arc<Flow>) -> Result<Bytes, Refusal> {
    let held = hold(RequestBody::stream(body, flow, None), limit).await;
    held.map_err(|unheld| match unheld {
        Unheld::TooLarge => too_large(limit.unwrap_or(u64::MAX)),
        Unheld::Stalled => Refusal::new(Reason::RequestTimeout, "the request body stood still"),
        Unheld::Broken(error) => {
            Refusal::new(Reason::MalformedRequest, format!("the request body broke off: {error}"))
        }
    })
}

fn too_large(limit: u64) -> Refusal {
    let message = format!(
        "the body is larger than {limit} bytes, and a secret with match_body applies to this request"
    );
    Refusal::new(Reason::BodyTooLarge, message)
}

async fn swap_body(
    plan: &Plan,
    scope: &Scope,
    generation: &Generation,
    headers: &mut HeaderMap,
    bytes: Bytes,
    recorder: &mut Recorder,
) -> Result<RequestBody, Refusal> {
    let placeholders = generation.policy.placeholders();
    let mut hits = Vec::new();
    for found in placeholders.find_in(&bytes) {
        hits.extend(scope.resolve_in_body(&found, plan)?);
    }
    if let Some(&missing) =
        plan.required_in_body.iter().find(|&&secret| !hits.iter().any(|hit| hit.secret == secret))
    {
        return Err(scope.missing_placeholder(missing));
    }
    if hits.is_empty() {
        return Ok(whole(headers, bytes));
    }
    let mut values = Values::new();
    for hit in &hits {
        if !values.iter().any(|(number, _)| *number == hit.secret) {
            values.push((hit.secret, value(hit.secret, generation, recorder).await?));
        }
    }
    let pieces = hits.iter().filter_map(|hit| {
        let (_, value) = values.iter().find(|(number, _)| *number == hit.secret)?;
        Some((hit.start..hit.end, value.as_deref()?.expose().as_bytes()))
    });
    let swapped = splice(&bytes, pieces).freeze();
    for (number, value) in &values {
        if value.is_some() {
            trace(generation, *number, Location::Body, recorder);
        }
    }
    Ok(whole(headers, swapped))
}

/// A body that is sent whole has an exact length, however it came (invariant 8).
fn whole(headers: &mut HeaderMap, bytes: Bytes) -> RequestBody {
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONTENT_LENGTH, bytes.len().into());
    RequestBody::Whole(Full::new(bytes))
}

async fn fetch(plan: &Plan, generation: &Generation, recorder: &mut Recorder) -> Result<Values, Refusal> {
    let headers = plan.headers.iter().flat_map(|swap| &swap.hits).map(|hit| hit.secret);
    let target = plan.target.iter().map(|swap| swap.hit.secret);
    let mut values = Values::new();
    for number in headers.chain(target).chain(plan.injections.iter().copied()) {
        if !values.iter().any(|(known, _)| *known == number) {
            values.push((number, value(number, generation, recorder).await?));
        }
    }
    Ok(values)
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
        None => match handle.value().await {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        },
    };
    let secret = generation.policy.secret(number);
    tracing::warn!(secret = &**secret.name(), %error, "a secret is unavailable");
    recorder
        .entry()
        .secrets
        .push(SecretTrace { secret: Arc::clone(secret.name()), outcome: Outcome::Unavailable });
    match secret.on_unavailable() {
        OnUnavailable::Pass => Ok(None),
        OnUnavailable::Deny => Err(Refusal::new(
            Reason::SecretUnavailable,
            format!("the value for {} cannot be had, and this request needs it", shown(number, generation)),
        )),
    }
}

/// Takes the credentials of `Basic` apart and puts them together again, in the standard alphabet with padding (RFC 7617 section 2).
fn swap_basic<'v>(
    value: &HeaderValue,
    hits: impl Iterator<Item = (std::ops::Range<usize>, &'v [u8])>,
) -> Bytes {
    let (scheme, encoded) = value.as_bytes().split_at("basic ".len());
    let decoded = Zeroizing::new(decode_basic(encoded).unwrap_or_default());
    let swapped = Zeroizing::new(splice(&decoded, hits).to_vec());
    let mut value = BytesMut::from(scheme);
    value.extend_from_slice(Zeroizing::new(STANDARD.encode(&*swapped)).as_bytes());
    value.freeze()
}

fn swap_target<'v>(
    plan: &Plan,
    target: &mut PathAndQuery,
    value_of: &impl Fn(u32) -> Option<&'v SecretValue>,
) -> Result<(), Refusal> {
    if plan.target.is_empty() {
        return Ok(());
    }
    let encoded: SmallVec<[_; 2]> = plan
        .target
        .iter()
        .filter_map(|swap| Some((swap.hit.start..swap.hit.end, encode(value_of(swap.hit.secret)?.expose()))))
        .collect();
    let pieces = encoded.iter().map(|(range, value)| (range.clone(), value.as_bytes()));
    *target = parse_target(splice(target.as_str().as_bytes(), pieces).freeze())?;
    Ok(())
}

/// Sets a query parameter: its value where it stands for the first time, at the end where it does not; further ones are removed.
fn set_parameter(target: &PathAndQuery, name: &str, value: &str) -> Result<PathAndQuery, Refusal> {
    let parameter = Zeroizing::new(format!("{}={}", utf8_percent_encode(name, IN_TARGET), &*encode(value)));
    let named = |pair: &&str| percent_decode_str(pair.split('=').next().unwrap_or_default()).eq(name.bytes());
    let mut set = Zeroizing::new(String::with_capacity(target.as_str().len() + parameter.len() + 1));
    set.push_str(target.path());
    let mut separator = '?';
    let mut placed = false;
    for pair in target.query().into_iter().flat_map(|query| query.split('&')) {
        let pair = match named(&pair) {
            true if placed => continue,
            true => {
                placed = true;
                parameter.as_str()
            }
            false => pair,
        };
        set.push(separator);
        set.push_str(pair);
        separator = '&';
    }
    if !placed {
        set.push(separator);
        set.push_str(&parameter);
    }
    parse_target(Bytes::copy_from_slice(set.as_bytes()))
}

fn encode(value: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(value, IN_TARGET).to_string())
}

fn formatted(formatter: Option<&Formatter>, value: &SecretValue) -> Zeroizing<String> {
    match formatter {
        Some(formatter) => formatter.render(value.expose()),
        None => Zeroizing::new(value.expose().to_owned()),
    }
}

/// A header value that HTTP libraries neither print nor index in HPACK tables. A control byte in it would split the request (T52).
fn sensitive(value: Bytes, secret: Option<u32>, generation: &Generation) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| {
        let name = secret.map_or("a secret".to_owned(), |number| shown(number, generation));
        Refusal::new(
            Reason::SecretUnavailable,
            format!("the value for {name} holds a byte that no header may hold; does its source end in a line break?"),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
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

fn parse_target(target: Bytes) -> Result<PathAndQuery, Refusal> {
    PathAndQuery::from_maybe_shared(target).map_err(|_| {
        Refusal::new(Reason::MalformedRequest, "the request target is too long once the secret is in it")
    })
}

fn record(plan: &Plan, generation: &Generation, values: &Values, recorder: &mut Recorder) {
    for (number, _) in values.iter().filter(|(_, value)| value.is_some()) {
        let secret = generation.policy.secret(*number);
        let outcome = match secret.injected_at() {
            Some(location) => Outcome::Injected(location),
            None => Outcome::Swapped(plan.locations_of(*number).collect()),
        };
        recorder.entry().secrets.push(SecretTrace { secret: Arc::clone(secret.name()), outcome });
    }
}

fn trace(generation: &Generation, number: u32, location: Location, recorder: &mut Recorder) {
    let name = generation.policy.secret(number).name();
    let secrets = &mut recorder.entry().secrets;
    let known = secrets.iter_mut().find_map(|trace| match &mut trace.outcome {
        Outcome::Swapped(locations) if trace.secret == *name => Some(locations),
        Outcome::Swapped(_) | Outcome::Injected(_) | Outcome::Unavailable => None,
    });
    match known {
        Some(locations) => locations.push(location),
        None => {
            let outcome = Outcome::Swapped(SmallVec::from_elem(location, 1));
            secrets.push(SecretTrace { secret: Arc::clone(name), outcome });
        }
    }
}
