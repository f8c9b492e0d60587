//! WebSockets over HTTP/1.1: a tunnel only after a `101` that is the right answer to the very handshake (invariant 9, T27).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use keyferry_config::policy::{Reason, Refusal};
use tokio::io::{AsyncRead, ReadBuf};

use crate::audit::Recorder;
use crate::body::{RequestBody, ResponseBody};
use crate::data_plane::{DataPlane, Protocol};
use crate::guard::request::{lists, strip_response};
use crate::open::OpenExchange;
use crate::passthrough::writes_pass_through;
use crate::session::{Bound, Route};
use crate::upstream::{Lease, upgradeable};

/// How long a WebSocket may be silent in both directions.
const IDLE: Duration = Duration::from_secs(3600);
/// RFC 6455 section 1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client's handshake, taken out of its request.
#[derive(Debug)]
pub(crate) struct Handshake {
    client: OnUpgrade,
    key: HeaderValue,
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
    client: OnUpgrade,
    upstream: OnUpgrade,
    headers: HeaderMap,
}

impl Handshake {
    /// Reads and checks the client's side (RFC 6455 section 4.2.1).
    pub(crate) fn take(parts: &mut Parts) -> Result<Self, Refusal> {
        let malformed = |message| Refusal::new(Reason::MalformedRequest, message);
        let mut keys = parts.headers.get_all(SEC_WEBSOCKET_KEY).iter();
        let key = match (keys.next(), keys.next()) {
            (Some(key), None) => key.clone(),
            (Some(_), Some(_)) | (None, _) => {
                return Err(malformed("a WebSocket handshake needs one Sec-WebSocket-Key"));
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
        let client = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or_else(|| malformed("this connection cannot be upgraded"))?;
        Ok(Self { client, key })
    }

    /// Sends the handshake on a connection of its own and checks the answer.
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
        headers.insert(http::header::HOST, route.host_header.clone());
        let Bound { generation, scope, .. } = bound;
        let (mut sender, address) =
            upgradeable(generation.pool.connector(), &route.destination, scope.exempt_networks()).await?;
        recorder.entry().upstream = Some((address, Protocol::H1));
        let sent = tokio::time::timeout(generation.limits.response_head, sender.send_request(request)).await;
        let mut response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(Refusal::new(
                    Reason::UpstreamReset,
                    format!("the upstream did not answer the handshake: {error}"),
                ));
            }
            Err(_) => {
                return Err(Refusal::new(
                    Reason::UpstreamTimeout,
                    "the upstream did not answer the handshake in time",
                ));
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Performed::Declined(response, Lease::single(sender, address)));
        }
        if !self.is_accepted(response.headers()) {
            return Err(Refusal::new(
                Reason::UpstreamProtocol,
                "the upstream's 101 is not an answer to this WebSocket handshake",
            ));
        }
        let upstream = hyper::upgrade::on(&mut response);
        let mut headers = std::mem::take(response.headers_mut());
        strip_response(&mut headers);
        Ok(Performed::Switched(Switch { client: self.client, upstream, headers }))
    }

    /// RFC 6455 section 4.1, the client's checks.
    fn is_accepted(&self, headers: &HeaderMap) -> bool {
        let one_lists = |name, token| headers.get_all(name).iter().any(|value| lists(value, token));
        let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        one_lists(UPGRADE, "websocket")
            && one_lists(CONNECTION, "upgrade")
            && accepts.next().is_some_and(|accept| accept == accept_for(&self.key).as_str())
            && accepts.next().is_none()
    }
}

fn accept_for(key: &HeaderValue) -> String {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SUFFIX);
    STANDARD.encode(hash.finish())
}

impl Switch {
    /// The fields of the upstream's 101.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Answers 101 and relays bytes until one side ends, or both are silent for too long. The record is written at the end.
    pub(crate) fn relay(
        self,
        plane: &DataPlane,
        bound: &Bound,
        open: Arc<OpenExchange>,
        mut recorder: Recorder,
    ) -> Response<ResponseBody> {
        recorder.entry().status = Some(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        recorder.announce(&bound.generation.audit);
        let Self { client, upstream, mut headers } = self;
        let active = plane.telemetry.metrics.websocket();
        plane.drain.spawn(async move {
            let _active = active;
            let traffic = Traffic::default();
            let relayed = async {
                match tokio::try_join!(client, upstream) {
                    Ok((client, upstream)) => traffic.relay(client, upstream).await,
                    Err(error) => Some((Reason::UpstreamReset, error.to_string())),
                }
            };
            let error = tokio::select! {
                error = relayed => error,
                // The record says why by itself.
                () = open.aborted() => return,
            };
            recorder.entry().bytes_in = traffic.sent.load(Ordering::Relaxed);
            recorder.entry().bytes_out = traffic.received.load(Ordering::Relaxed);
            match error {
                Some((reason, error)) => recorder.fail(reason, error),
                None => recorder.finish(),
            }
        });
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let mut response = Response::new(ResponseBody::own("", None));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        response
    }
}

/// Bytes in both directions.
#[derive(Debug, Default)]
struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    async fn relay(&self, client: Upgraded, upstream: Upgraded) -> Option<(Reason, String)> {
        let mut client = Counted { io: TokioIo::new(client), read: &self.sent };
        let mut upstream = Counted { io: TokioIo::new(upstream), read: &self.received };
        let copied = tokio::io::copy_bidirectional(&mut client, &mut upstream);
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        tokio::select! {
            result = copied => match result {
                Ok(_) => None,
                // A peer that closes without a TLS close_notify, or resets, has ended the conversation all the same.
                Err(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe) => None,
                Err(error) => Some((Reason::UpstreamReset, format!("the WebSocket broke off: {error}"))),
            },
            () = self.silence() => Some((Reason::UpstreamTimeout, format!("the WebSocket was silent for {} s", IDLE.as_secs()))),
        }
    }

    async fn silence(&self) {
        let mut before = None;
        loop {
            let now = (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed));
            if before.replace(now) == Some(now) {
                return;
            }
            tokio::time::sleep(IDLE).await;
        }
    }
}

struct Counted<'a, IO> {
    io: IO,
    read: &'a AtomicU64,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counted<'_, IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

writes_pass_through!(Counted<'a, IO>);
