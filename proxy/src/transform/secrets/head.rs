//! Values in header fields, path and query.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};
use keyferry_config::document::Formatter;
use keyferry_config::policy::{Foreign, Placement, Plan, Reason, Refusal, decode_basic, fits_a_header};
use keyferry_source::SecretValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::{Values, shown, value};
use crate::audit::{Outcome, Recorder, SecretTrace};
use crate::data_plane::Generation;

/// Everything but RFC 3986's unreserved characters: a value never changes the structure of the target that it stands in.
const IN_TARGET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Applies the plan to the head of a request whose target is `target`.
pub(super) async fn apply(
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
        let swapped = if swap.basic {
            swap_basic(value, hits)
        } else {
            for hit in &swap.hits {
                value_of(hit.secret).map_or(Ok(()), |value| fits(value.expose(), hit.secret, generation))?;
            }
            splice(value.as_bytes(), hits).freeze()
        };
        *value = sensitive(swapped)?;
    }
    if let Some(foreign) = plan.foreign.as_ref().filter(|foreign| foreign.stripped) {
        strip(foreign, &mut parts.headers);
    }
    swap_target(plan, target, &value_of)?;
    for &number in &plan.injections {
        let Some(value) = value_of(number) else { continue };
        match generation.policy.secret(number).placement() {
            Placement::Header(name, formatter) => {
                let text = formatted(formatter.as_ref(), value);
                fits(&text, number, generation)?;
                let value = sensitive(Bytes::copy_from_slice(text.as_bytes()))?;
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

/// Takes the client's own credentials out. Values of ours beside them stay, so it comes after the swap and before the injection.
fn strip(foreign: &Foreign, headers: &mut HeaderMap) {
    for values in foreign.headers.chunk_by(|(one, _), (other, _)| one == other) {
        let name = &values[0].0;
        let is_foreign = |nth: usize| values.iter().any(|(_, foreign)| *foreign == nth);
        let all = headers.get_all(name).iter().cloned().enumerate();
        let ours: Vec<HeaderValue> =
            all.filter(|(nth, _)| !is_foreign(*nth)).map(|(_, value)| value).collect();
        headers.remove(name);
        ours.into_iter().for_each(|value| {
            headers.append(name, value);
        });
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

/// A line break in a value would split the request, and what is not ASCII means something else to each server (T52).
fn fits(value: &str, secret: u32, generation: &Generation) -> Result<(), Refusal> {
    if fits_a_header(value) {
        return Ok(());
    }
    let name = shown(secret, generation);
    tracing::warn!(
        secret = &**generation.policy.secret(secret).name(),
        "the value of a secret holds a byte that no header may hold; does its source end in a line break?"
    );
    Err(Refusal::new(
        Reason::SecretUnavailable,
        format!(
            "the value for {name} holds a byte that no header may hold; does its source end in a line break?"
        ),
    ))
}

/// A header value that HTTP libraries neither print nor index in HPACK tables.
fn sensitive(value: Bytes) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| {
        Refusal::new(Reason::SecretUnavailable, "a header would hold a byte that no header may hold")
    })?;
    value.set_sensitive(true);
    Ok(value)
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

/// Replaces ranges of `bytes`, left to right, in one copy.
fn splice<'a>(bytes: &[u8], pieces: impl Iterator<Item = (std::ops::Range<usize>, &'a [u8])>) -> BytesMut {
    let mut spliced = BytesMut::with_capacity(bytes.len() + 64);
    let mut at = 0;
    for (range, piece) in pieces {
        spliced.extend_from_slice(&bytes[at..range.start]);
        spliced.extend_from_slice(piece);
        at = range.end;
    }
    spliced.extend_from_slice(&bytes[at..]);
    spliced
}
