//! One request, from the sandbox to the upstream and back.

use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use keyferry_config::policy::{Plan, Reason, Refusal, RequestHead, Scheme, Scope, Verdict};

use crate::audit::{Flow, Recorder};
use crate::body::{RequestBody, ResponseBody, discard};
use crate::data_plane::{DataPlane, Generation, Protocol};
use crate::guard::request::{agrees, strip_hop_by_hop, strip_response, wants_websocket};
use crate::refusal;
use crate::session::{Around, Route, Session};
use crate::transform::secrets;
use crate::upstream::Lease;
use crate::websocket;

/// Carries one request out; the answer is the upstream's, or our refusal.
pub(crate) async fn exchange(
    session: &Session,
    route: &Route,
    around: Option<Around<'_>>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let mut recorder = match session.recorder(&parts, around) {
        Ok(recorder) => recorder,
        Err(refusal) => return refusal::respond_unrecorded(&refusal),
    };
    route.describe(recorder.entry());
    let is_head = parts.method == Method::HEAD;
    // hyper asks for a body that waits for `100 Continue` as soon as it is read; one that is refused must not be asked for (T35).
    let waits = parts.headers.contains_key(EXPECT);
    let mut body = Some(body);
    match carry(session, route, parts, &mut body, &mut recorder).await {
        Ok(Answer::Response(response, lease)) => {
            let (parts, body) = response.into_parts();
            let bodyless =
                is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let body = if bodyless {
                ResponseBody::none(&body, recorder, lease)
            } else {
                ResponseBody::stream(body, recorder, Arc::clone(&session.plane), lease)
            };
            Response::from_parts(parts, body)
        }
        Ok(Answer::Switched(switch)) => switch.relay(&session.plane, recorder),
        Err(refusal) => {
            if let Some(unread) = body.filter(|body| !waits && !body.is_end_stream()) {
                session.plane.drain.spawn(discard(unread));
            }
            refusal::respond(&refusal, recorder)
        }
    }
}

enum Answer {
    Response(Response<Incoming>, Lease),
    Switched(websocket::Switch),
}

async fn carry(
    session: &Session,
    route: &Route,
    mut parts: Parts,
    body: &mut Option<Incoming>,
    recorder: &mut Recorder,
) -> Result<Answer, Refusal> {
    let plane = &session.plane;
    let generation = plane.generation.load_full();
    recorder.entry().generation = generation.policy.generation();
    agrees(&parts, &route.destination, &route.host_header)?;
    let websocket = wants_websocket(&parts).then(|| websocket::Handshake::take(&mut parts)).transpose()?;
    strip_hop_by_hop(&mut parts.headers);
    // hyper answers `100 Continue` when the body is first read, which is not before the policy has decided (T35).
    parts.headers.remove(EXPECT);

    let scope = route.scope(&generation);
    let mut target = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let plan = decide(&scope, &parts, &target)?;
    recorder.entry().rule = plan.rule.clone();
    recorder.entry().warned = plan.warned;
    let body = transform(&plan, &scope, &generation, plane, &mut parts, &mut target, body, recorder).await?;
    parts.uri = Uri::from(target);

    if let Some(handshake) = websocket {
        let request = Request::from_parts(parts, RequestBody::empty());
        let switch = handshake.perform(plane, route, scope.exempt_networks(), request, recorder).await?;
        return Ok(match switch {
            websocket::Performed::Switched(switch) => Answer::Switched(switch),
            websocket::Performed::Declined(response, lease) => {
                Answer::Response(respond(response, &lease, recorder)?, lease)
            }
        });
    }
    let flow = recorder.request_flow();
    let request = Request::from_parts(parts, body);
    let sent = plane.pool.send(&route.slot, scope.exempt_networks(), request, |request, protocol| {
        adapt(request, protocol, route);
    });
    let (response, lease) = within(plane.limits.response_head, flow.as_deref(), sent).await?;
    Ok(Answer::Response(respond(response, &lease, recorder)?, lease))
}

fn decide(scope: &Scope, parts: &Parts, target: &PathAndQuery) -> Result<Plan, Refusal> {
    match scope.decide(&RequestHead {
        method: &parts.method,
        target: target.as_str(),
        headers: &parts.headers,
    }) {
        Verdict::Forward(plan) => Ok(plan),
        Verdict::Refuse(refusal) => Err(refusal),
    }
}

#[expect(clippy::too_many_arguments, reason = "the pieces of one request, borrowed each in its own way")]
async fn transform(
    plan: &Plan,
    scope: &Scope,
    generation: &Generation,
    plane: &DataPlane,
    parts: &mut Parts,
    target: &mut PathAndQuery,
    body: &mut Option<Incoming>,
    recorder: &mut Recorder,
) -> Result<RequestBody, Refusal> {
    if !plan.changes_nothing() {
        secrets::apply_to_head(plan, generation, parts, target, recorder).await?;
    }
    let limit = plane.limits.held_body;
    secrets::apply_to_body(plan, scope, generation, &mut parts.headers, body, limit, recorder).await
}

/// The request as the connection's version of HTTP has it: origin form and `Host`, or a full URI and no `Host` (RFC 9113 section 8.3.1).
fn adapt(request: &mut Request<RequestBody>, protocol: Protocol, route: &Route) {
    let target = request.uri().path_and_query().cloned();
    match protocol {
        Protocol::H1 => {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = target.map_or(Uri::from_static("/"), Uri::from);
            request.headers_mut().insert(HOST, route.host_header.clone());
            join_cookies(request);
        }
        Protocol::H2 => {
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(HOST);
            let mut uri = http::uri::Parts::default();
            uri.scheme = Some(match route.destination.scheme {
                Scheme::Https => http::uri::Scheme::HTTPS,
                Scheme::Http => http::uri::Scheme::HTTP,
            });
            uri.authority = Some(route.authority.clone());
            uri.path_and_query = target.or(Some(PathAndQuery::from_static("/")));
            // Scheme, authority and path are all there, which is all that can go wrong.
            *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        }
    }
}

/// HTTP/2 may send cookies one by one, HTTP/1 wants them in one field (RFC 9113 section 8.2.3).
fn join_cookies(request: &mut Request<RequestBody>) {
    let mut cookies = request.headers().get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(mut joined) = HeaderValue::from_bytes(&joined) {
        joined.set_sensitive(true);
        request.headers_mut().insert(COOKIE, joined);
    }
}

/// The response as the sandbox sees it.
fn respond(
    mut response: Response<Incoming>,
    lease: &Lease,
    recorder: &mut Recorder,
) -> Result<Response<Incoming>, Refusal> {
    recorder.entry().upstream = Some((lease.address(), lease.protocol()));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::new(
            Reason::UpstreamProtocol,
            "the upstream switched protocols without being asked to",
        ));
    }
    recorder.entry().status = Some(response.status().as_u16());
    strip_response(response.headers_mut());
    response.extensions_mut().remove::<OnUpgrade>();
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Waits for the head of the response, `limit` from the moment at which the request is sent or its body stands still.
async fn within<T>(
    limit: Duration,
    flow: Option<&Flow>,
    sent: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut sent = std::pin::pin!(sent);
    let mut seen = 0;
    loop {
        if let Ok(result) = tokio::time::timeout(limit, sent.as_mut()).await {
            return result;
        }
        match flow.map(Flow::bytes) {
            Some(bytes) if bytes != seen => seen = bytes,
            Some(_) | None => {
                let message = format!("the upstream sent no response within {} s", limit.as_secs_f64());
                return Err(Refusal::new(Reason::UpstreamTimeout, message));
            }
        }
    }
}
