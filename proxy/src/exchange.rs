//! One request, from the sandbox to the upstream and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{COOKIE, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use keyferry_config::policy::{Plan, Reason, Refusal, RequestHead, Scheme, Scope, Verdict};

use crate::audit::{Flow, Recorder};
use crate::body::{RequestBody, ResponseBody, discard};
use crate::data_plane::Protocol;
use crate::guard::request::{agrees, has_one_framing, strip_hop_by_hop, strip_response, wants_websocket};
use crate::open::OpenExchange;
use crate::redact::{Scan, narrow_request, scan_fields};
use crate::refusal;
use crate::retry;
use crate::session::{Around, Bound, Route, Session};
use crate::trace;
use crate::transform::secrets;
use crate::upstream::{Approach, Lease};
use crate::websocket;

/// Carries one request out; the answer is the upstream's, or our refusal.
pub(crate) async fn exchange(
    session: &Session,
    route: &Route,
    around: Option<Around<'_>>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let bound = route.bound();
    let (mut parts, body) = request.into_parts();
    let mut recorder = match session.recorder(&bound.generation, &parts, around) {
        Ok(recorder) => recorder,
        Err(refusal) => return refusal::respond_unrecorded(&refusal),
    };
    route.describe(recorder.entry());
    recorder.under_way();
    recorder.traced(trace::begin(
        &mut parts.headers,
        bound.generation.propagate_trace,
        session.plane.telemetry.sampler(),
        around.and_then(|around| around.tunnel.context()),
        recorder.started(),
    ));
    let is_head = parts.method == Method::HEAD;
    // hyper asks for a body that waits for `100 Continue` as soon as it is read; one that is refused must not be asked for (T35).
    let waits = parts.headers.contains_key(EXPECT);
    let mut body = Some(body);
    match carry(session, route, &bound, around, parts, &mut body, &mut recorder).await {
        Ok(Answer::Response(response, lease, scan)) => {
            let (parts, body) = response.into_parts();
            let bodyless =
                is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let body = if bodyless {
                ResponseBody::none(&body, recorder, lease)
            } else {
                ResponseBody::stream(body, recorder, bound, lease, scan)
            };
            Response::from_parts(parts, body)
        }
        Ok(Answer::Switched(switched)) => {
            let Switched { switch, open, plan } = *switched;
            switch.relay(&session.plane, bound, open, plan, recorder)
        }
        Err(refusal) => {
            if let Some(unread) = body.filter(|body| !waits && !body.is_end_stream()) {
                session.plane.drain.spawn(discard(unread));
            }
            refusal::respond(&refusal, recorder)
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "a response is the common case and must not allocate")]
enum Answer {
    Response(Response<Incoming>, Lease, Option<Box<Scan>>),
    /// Boxed: rare, and large.
    Switched(Box<Switched>),
}

struct Switched {
    switch: websocket::Switch,
    open: Arc<OpenExchange>,
    plan: Plan,
}

async fn carry(
    session: &Session,
    route: &Route,
    bound: &Bound,
    around: Option<Around<'_>>,
    mut parts: Parts,
    body: &mut Option<Incoming>,
    recorder: &mut Recorder,
) -> Result<Answer, Refusal> {
    let extended = websocket::extended_connect(&mut parts)?;
    agrees(&parts, &route.destination, &route.host_header)?;
    // Before a list in `Connection` may remove the mark.
    if bound.mark().is_in(&parts.headers) {
        return Err(Refusal::new(Reason::LoopDetected, "this request has been through this proxy before"));
    }
    let websocket = match extended || wants_websocket(&parts) {
        true => {
            recorder.entry().method = Some(parts.method.clone());
            Some(Box::new(websocket::Handshake::take(&mut parts, extended)?))
        }
        false => None,
    };
    strip_hop_by_hop(&mut parts.headers);
    // hyper answers `100 Continue` when the body is first read, which is not before the policy has decided (T35).
    parts.headers.remove(EXPECT);
    if bound.scope.redacts() {
        narrow_request(&mut parts.headers);
    }

    let target = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let plan = decide(&bound.scope, &parts, &target)?;
    recorder.entry().rule = plan.rule.clone();
    recorder.entry().warned = plan.warned;
    recorder.entry().foreign.clone_from(&plan.foreign);
    if let Some(trace) = recorder.trace() {
        trace.decided = Some(Instant::now());
    }
    let tunnel = match around {
        Some(around) => Arc::clone(&around.tunnel.open),
        None => session.principal.open.register(None, session.sandbox.clone()),
    };
    let open = tunnel.enter(&bound.scope, &route.destination, &parts.method, &target, &plan);
    recorder.open_as(Arc::clone(&open), bound.scope.policy());
    // A policy that came while this one decided has judged only what was entered before.
    let stands = bound.is_current(route) || open.stands_under(&route.bound().scope);
    if !stands || session.has_ended() {
        return Err(open.refusal());
    }
    let sent = async {
        let head = retry::Head::keep(&plan, bound, &parts, &target);
        let (parts, body) = secrets::apply(&plan, bound, parts, target, body, recorder).await?;
        let second = head.and_then(|head| head.with(&body));
        let request = Request::from_parts(parts, body);
        if let Some(handshake) = websocket {
            // Boxed like every way that few requests take: the future of each request would hold room for it, and be moved with it.
            return Box::pin(shake_hands(*handshake, route, bound, (&open, &plan), request, recorder)).await;
        }
        let (mut response, mut lease) = send(route, bound, request, recorder).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(second) = second
            && let Some(request) = Box::pin(second.renewed(recorder)).await?
        {
            (response, lease) = Box::pin(send(route, bound, request, recorder)).await?;
        }
        respond(bound, response, lease, recorder).await
    };
    tokio::select! {
        answer = sent => answer,
        () = open.aborted() => Err(open.refusal()),
    }
}

fn decide(scope: &Scope, parts: &Parts, target: &PathAndQuery) -> Result<Plan, Refusal> {
    let head = RequestHead { method: &parts.method, target: target.as_str(), headers: &parts.headers };
    match scope.decide(&head) {
        Verdict::Forward(plan) => Ok(plan),
        Verdict::Refuse(refusal) => Err(refusal),
    }
}

async fn send(
    route: &Route,
    bound: &Bound,
    request: Request<RequestBody>,
    recorder: &mut Recorder,
) -> Result<(Response<Incoming>, Lease), Refusal> {
    let generation = &bound.generation;
    let slot = bound.slot(route);
    let flow = recorder.request_flow();
    let approach = Approach::new();
    let sent = generation.pool.send(slot, request, &approach, |request, lease| {
        adapt(request, lease.protocol(), route);
        bound.mark().put(request.headers_mut(), lease.peer());
    });
    let limit = generation.limits.response_head;
    let (response, lease) = match within(limit, flow.as_deref(), sent).await {
        Some(answered) => answered?,
        None => {
            let phase = approach.phase();
            recorder.telemetry().metrics.failed(phase);
            let message = format!("{} within {} s", phase.overdue(), limit.as_secs_f64());
            return Err(Refusal::new(Reason::UpstreamTimeout, message));
        }
    };
    recorder.answered(&approach);
    Ok((response, lease))
}

async fn shake_hands(
    handshake: websocket::Handshake,
    route: &Route,
    bound: &Bound,
    (open, plan): (&Arc<OpenExchange>, &Plan),
    mut request: Request<RequestBody>,
    recorder: &mut Recorder,
) -> Result<Answer, Refusal> {
    adapt(&mut request, Protocol::H1, route);
    match handshake.perform(route, bound, request, recorder).await? {
        websocket::Performed::Switched(mut switch) => {
            if let Some(redactor) = bound.redactor().await {
                recorder.entry().redacted += scan_fields(&redactor, switch.headers_mut());
            }
            Ok(Answer::Switched(Box::new(Switched { switch, open: Arc::clone(open), plan: plan.clone() })))
        }
        websocket::Performed::Declined(response, lease) => respond(bound, response, lease, recorder).await,
    }
}

/// The request as the connection's version of HTTP has it: origin form and `Host`, or a full URI and no `Host` (RFC 9113 section 8.3.1).
fn adapt(request: &mut Request<RequestBody>, protocol: Protocol, route: &Route) {
    let target = request.uri().path_and_query().cloned();
    match protocol {
        Protocol::H1 => {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = target.map_or(Uri::from_static("/"), Uri::from);
            request.headers_mut().insert(HOST, route.host_header.clone());
            let body = request.body();
            if !body.is_end_stream() && body.size_hint().exact().is_none() {
                // Without it hyper sends the body of a GET nowhere.
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
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

/// The response as the sandbox sees it: nothing that concerns one connection only, and no live value (invariant 7).
async fn respond(
    bound: &Bound,
    mut response: Response<Incoming>,
    lease: Lease,
    recorder: &mut Recorder,
) -> Result<Answer, Refusal> {
    recorder.entry().upstream = Some((lease.peer().address, lease.protocol()));
    let protocol = |message: String| Refusal::new(Reason::UpstreamProtocol, message);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(protocol("the upstream switched protocols without being asked to".to_owned()));
    }
    if !has_one_framing(response.headers()) {
        let message =
            "the response has a Content-Length beside a Transfer-Encoding, or a coding that is not `chunked`";
        return Err(protocol(message.to_owned()));
    }
    let redactor = bound.redactor().await.filter(|redactor| !redactor.is_empty());
    let scan = match &redactor {
        Some(redactor) => {
            recorder.entry().redacted += scan_fields(redactor, response.headers_mut());
            let scan = Scan::new(redactor, response.headers_mut());
            Some(scan.map(Box::new).map_err(|error| {
                protocol(format!("the response cannot be searched for live values: {error}"))
            })?)
        }
        None => None,
    };
    recorder.entry().status = Some(response.status().as_u16());
    strip_response(response.headers_mut());
    // Beside the fields stand the reason phrase, which may echo a value (T43) or look like one of our reasons, and the spelling of names.
    let beside = response.extensions_mut();
    match scan {
        Some(_) => beside.clear(),
        None => {
            beside.remove::<OnUpgrade>();
            beside.remove::<ReasonPhrase>();
        }
    }
    *response.version_mut() = Version::HTTP_11;
    Ok(Answer::Response(response, lease, scan))
}

/// Waits for the head of the response, `limit` from the moment at which the request is sent or its body stands still.
async fn within<T>(limit: Duration, flow: Option<&Flow>, sent: impl Future<Output = T>) -> Option<T> {
    let mut sent = std::pin::pin!(sent);
    let mut seen = 0;
    loop {
        if let Ok(result) = tokio::time::timeout(limit, sent.as_mut()).await {
            return Some(result);
        }
        match flow.map(Flow::bytes) {
            Some(bytes) if bytes != seen => seen = bytes,
            Some(_) | None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what `of` returns.
    fn size_of_future<F>(
        _of: impl Fn(&'static Session, &'static Route, Option<Around<'static>>, Request<Incoming>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_has_no_room_for_what_few_requests_do() {
        // It is moved with every request; a WebSocket handshake or a dial inside it would make it 40 KB.
        let size = size_of_future(exchange);
        assert!(size < 8 * 1024, "{size} bytes");
    }
}
