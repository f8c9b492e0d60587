//! The handshake: what a client asks for, what goes on of it, and whether the upstream's answer is one to it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use keyferry_config::policy::{Plan, Reason, Refusal};

use super::extension::{Deflate, Offer, chosen, offered, take_offers};
use super::socket::Socket;
use crate::audit::Recorder;
use crate::body::{RequestBody, ResponseBody};
use crate::data_plane::{DataPlane, Protocol};
use crate::guard::Answering;
use crate::guard::request::{lists, strip_response};
use crate::open::OpenExchange;
use crate::session::{Bound, Route};
use crate::upstream::{Approach, Lease, Phase, upgradeable};

/// RFC 6455 section 1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How much of a name that a peer chose is repeated.
const NAME_SHOWN: usize = 32;

/// A client's handshake, taken out of its request.
#[derive(Debug)]
pub(crate) struct Handshake {
    client: Client,
    key: HeaderValue,
    offers: Vec<Offer>,
}

/// The side that asked.
#[derive(Debug)]
struct Client {
    upgrade: OnUpgrade,
    /// By extended CONNECT, not by an upgrade.
    extended: bool,
    /// Its HTTP/2 connection is not idle.
    open: Option<Answering>,
}

/// What the upstream made of it.
pub(crate) enum Performed {
    /// It switched.
    Switched(Switch),
    /// It answered like to any other request.
    Declined(Response<Incoming>, Lease),
}

/// Both sides have agreed to switch.
#[derive(Debug)]
pub(crate) struct Switch {
    client: Client,
    upstream: OnUpgrade,
    headers: HeaderMap,
    deflate: Option<Deflate>,
}

/// Turns an extended CONNECT (RFC 8441 section 4) into the GET that it is over HTTP/1.1, which is what policy judges. Answers whether
/// it was one. Plain CONNECT stays what it is.
pub(crate) fn extended_connect(parts: &mut Parts) -> Result<bool, Refusal> {
    let Some(protocol) = parts.extensions.remove::<hyper::ext::Protocol>() else { return Ok(false) };
    if parts.method != Method::CONNECT || !protocol.as_str().eq_ignore_ascii_case("websocket") {
        let name: String = protocol.as_str().chars().take(NAME_SHOWN).collect();
        return Err(malformed(format!(
            "{} with :protocol {name:?} is not carried: CONNECT with `websocket` is",
            parts.method
        )));
    }
    parts.method = Method::GET;
    Ok(true)
}

impl Handshake {
    /// Reads and checks the client's side (RFC 6455 section 4.2.1, RFC 8441 section 5).
    pub(crate) fn take(parts: &mut Parts, extended: bool) -> Result<Self, Refusal> {
        let key = if extended {
            parts.headers.remove(SEC_WEBSOCKET_KEY);
            own_key()
        } else {
            let mut keys = parts.headers.get_all(SEC_WEBSOCKET_KEY).iter();
            match (keys.next(), keys.next()) {
                (Some(key), None) => key.clone(),
                (Some(_), Some(_)) | (None, _) => {
                    return Err(malformed("a WebSocket handshake needs one Sec-WebSocket-Key"));
                }
            }
        };
        if parts.headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(malformed("a WebSocket handshake needs Sec-WebSocket-Version: 13"));
        }
        if parts.headers.contains_key(TRANSFER_ENCODING)
            || parts.headers.remove(CONTENT_LENGTH).is_some_and(|length| length != "0")
        {
            return Err(malformed("a WebSocket handshake has no body"));
        }
        let offers = take_offers(&mut parts.headers).map_err(malformed)?;
        let upgrade = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or_else(|| malformed("this connection cannot be upgraded"))?;
        let open = parts.extensions.remove::<Answering>();
        Ok(Self { client: Client { upgrade, extended, open }, key, offers })
    }

    /// Sends the handshake, which is complete but for what belongs to a connection, on one of its own and checks the answer.
    pub(crate) async fn perform(
        self,
        route: &Route,
        bound: &Bound,
        mut request: Request<RequestBody>,
        recorder: &mut Recorder,
    ) -> Result<Performed, Refusal> {
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        headers.extend(offered(&self.offers).map(|offers| (SEC_WEBSOCKET_EXTENSIONS, offers)));
        let protocols: Vec<_> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
        let Bound { generation, scope, .. } = bound;
        let (connector, approach) = (generation.pool.connector(), Approach::new());
        let (mut sender, peer) =
            upgradeable(connector, &route.destination, scope.exempt_networks(), &approach).await?;
        connector.mark.put(request.headers_mut(), peer);
        recorder.entry().upstream = Some((peer.address, Protocol::H1));
        let sent = tokio::time::timeout(generation.limits.response_head, sender.send_request(request)).await;
        let failed = |reason, message: String| {
            recorder.telemetry().metrics.failed(Phase::Header);
            Refusal::new(reason, message)
        };
        let mut response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let message = format!("the upstream did not answer the handshake: {error}");
                return Err(failed(Reason::UpstreamReset, message));
            }
            Err(_) => {
                let message = "the upstream did not answer the handshake in time".to_owned();
                return Err(failed(Reason::UpstreamTimeout, message));
            }
        };
        recorder.answered(&approach);
        let protocol = |message| Refusal::new(Reason::UpstreamProtocol, message);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if self.client.extended && response.status().is_success() {
                // To an extended CONNECT that would mean that it had switched (T39).
                let message =
                    format!("the upstream answered the handshake with {}, not 101", response.status());
                return Err(protocol(message));
            }
            return Ok(Performed::Declined(response, Lease::single(sender, peer)));
        }
        let deflate = self.agreed(response.headers(), &protocols).map_err(|what| {
            protocol(format!("the upstream's 101 is not an answer to this WebSocket handshake: {what}"))
        })?;
        let upstream = hyper::upgrade::on(&mut response);
        let mut headers = std::mem::take(response.headers_mut());
        strip_response(&mut headers);
        // Nothing that follows has a length (RFC 9110 section 8.6), and over HTTP/2 the answer is a 200.
        headers.remove(CONTENT_LENGTH);
        if let Ok(deflate) = deflate.map(|deflate| HeaderValue::try_from(deflate.to_string())).transpose() {
            headers.remove(SEC_WEBSOCKET_EXTENSIONS);
            headers.extend(deflate.map(|deflate| (SEC_WEBSOCKET_EXTENSIONS, deflate)));
        }
        Ok(Performed::Switched(Switch { client: self.client, upstream, headers, deflate }))
    }

    /// RFC 6455 section 4.1, the client's checks: an error says which one failed.
    fn agreed(&self, headers: &HeaderMap, protocols: &[HeaderValue]) -> Result<Option<Deflate>, String> {
        let one_lists = |name, token| headers.get_all(name).iter().any(|value| lists(value, token));
        if !one_lists(UPGRADE, "websocket") || !one_lists(CONNECTION, "upgrade") {
            return Err("it does not upgrade the connection to websocket".to_owned());
        }
        let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        if accepts.next().is_none_or(|accept| accept != accept_for(&self.key).as_str())
            || accepts.next().is_some()
        {
            return Err("its Sec-WebSocket-Accept does not prove that it read the key".to_owned());
        }
        let mut spoken = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        if let Some(protocol) = spoken.next() {
            let was_offered = protocol.to_str().is_ok_and(|protocol| {
                protocols.iter().any(|offer| {
                    offer.to_str().is_ok_and(|offer| offer.split(',').any(|one| one.trim() == protocol))
                })
            });
            if !was_offered || spoken.next().is_some() {
                return Err("it speaks a subprotocol that was not offered".to_owned());
            }
        }
        chosen(headers, &self.offers)
    }
}

impl Switch {
    /// The fields of the upstream's 101.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Answers that the connection has switched, and carries messages until it ends. The record is written then.
    pub(crate) fn relay(
        self,
        plane: &Arc<DataPlane>,
        bound: Arc<Bound>,
        open: Arc<OpenExchange>,
        plan: Plan,
        mut recorder: Recorder,
    ) -> Response<ResponseBody> {
        let Self { client, upstream, mut headers, deflate } = self;
        let mut response = Response::new(ResponseBody::own("", None));
        if client.extended {
            // The proof is HTTP/1.1's (RFC 8441 section 5).
            headers.remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        *response.headers_mut() = headers;
        recorder.entry().status = Some(response.status().as_u16());
        recorder.announce(&bound.generation.audit);
        let socket = Socket { plane: Arc::clone(plane), bound, open, plan, deflate, recorder };
        let active = plane.telemetry.metrics.websocket();
        plane.drain.spawn(async move {
            socket.run(client.upgrade, upstream).await;
            drop((client.open, active));
        });
        response
    }
}

fn accept_for(key: &HeaderValue) -> String {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SUFFIX);
    STANDARD.encode(hash.finish())
}

/// The key of a handshake whose client has none (RFC 6455 section 4.1).
fn own_key() -> HeaderValue {
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).expect("the system has randomness");
    HeaderValue::try_from(STANDARD.encode(nonce)).expect("base64 is text")
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::MalformedRequest, message)
}
