//! Open connections by destination and principal. An HTTP/1 connection carries one request at a time and is lent out; an HTTP/2 connection is
//! shared by all.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use ipnet::IpNet;
use keyferry_config::policy::{Destination, Reason, Refusal};

use super::approach::{Approach, Phase};
use super::connect::{Connector, Fresh, Peer};
use crate::audit::Recorder;
use crate::body::{BodyError, RequestBody};
use crate::data_plane::Protocol;
use crate::telemetry::Telemetry;

/// How many idle HTTP/1 connections one key keeps.
const MAX_IDLE: usize = 256;
/// How long one is kept: below the 60 to 75 s after which common servers close it.
const IDLE_LIMIT: Duration = Duration::from_secs(50);
/// How many exchanges share one HTTP/2 connection: what most servers grant.
const MAX_STREAMS: usize = 100;
/// How long a request waits for a connection that somebody else is about to have ready.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often a request is sent again of which the upstream says that it did not look at it.
const MAX_UNPROCESSED: usize = 2;
/// How often connections are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// Connections are shared only within one key: no request of one principal is seen on a connection of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) destination: Arc<Destination>,
    pub(crate) principal: Arc<str>,
    /// The networks that rules open for this destination. A policy that opens others would not dial what was dialled for these (T14).
    pub(crate) exempt: Box<[IpNet]>,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: Connector,
    slots: Mutex<HashMap<PoolKey, Arc<Slot>>>,
}

/// The connections of one key. A tunnel looks its slot up once.
#[derive(Debug)]
pub(crate) struct Slot {
    key: PoolKey,
    open: Mutex<Open>,
    /// Held by the first connection to a destination whose protocol is not known: if it is HTTP/2, all others share it.
    first: tokio::sync::Mutex<()>,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug, Default)]
struct Open {
    known: Option<Protocol>,
    idle: Vec<IdleH1>,
    shared: Vec<SharedH2>,
}

#[derive(Debug)]
struct SharedH2 {
    sender: http2::SendRequest<RequestBody>,
    peer: Peer,
    /// One more than the exchanges that are open on it.
    users: Arc<()>,
}

#[derive(Debug)]
struct IdleH1 {
    sender: http1::SendRequest<RequestBody>,
    peer: Peer,
    since: Instant,
}

/// A connection lent for one exchange. Dropped without [`Lease::give_back`], an HTTP/1 connection is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Where it goes back to; nowhere if it was made for one exchange.
    slot: Option<Arc<Slot>>,
    sender: Sender,
    peer: Peer,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<RequestBody>),
    H2(http2::SendRequest<RequestBody>, #[expect(dead_code, reason = "counted")] Arc<()>),
}

impl Pool {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector, slots: Mutex::default() }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The connections of `key`.
    pub(crate) fn slot(&self, key: PoolKey) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        let slot = slots.entry(key).or_insert_with_key(|key| {
            Arc::new(Slot {
                key: key.clone(),
                open: Mutex::default(),
                first: tokio::sync::Mutex::default(),
                telemetry: Arc::clone(&self.connector.telemetry),
            })
        });
        Arc::clone(slot)
    }

    /// Sends one request to `slot`'s destination and waits for the head of the response. A request that did not leave because a kept
    /// connection had died is sent on another, and so is one of which the upstream says that it did not look at it; one that may have
    /// been acted upon is never repeated.
    pub(crate) async fn send(
        &self,
        slot: &Arc<Slot>,
        mut request: Request<RequestBody>,
        approach: &Approach,
        adapt: impl Fn(&mut Request<RequestBody>, &Lease),
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        let metrics = &self.connector.telemetry.metrics;
        let mut unprocessed = 0;
        loop {
            let (mut lease, kept) = match slot.kept().await {
                Some(lease) => (lease, true),
                None => Box::pin(self.fresh(slot, approach)).await?,
            };
            if kept { &metrics.pool.hits } else { &metrics.pool.misses }.inc();
            adapt(&mut request, &lease);
            let again = match lease.protocol() {
                Protocol::H1 => None,
                Protocol::H2 => again(&request),
            };
            let mut unsent = match lease.try_send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            match (unsent.take_message(), again) {
                (Some(message), _) if kept => request = message,
                (None, Some(again)) if unprocessed < MAX_UNPROCESSED && was_not_processed(unsent.error()) => {
                    unprocessed += 1;
                    request = again;
                }
                (Some(_) | None, _) => {
                    let refusal = failed(unsent.error());
                    if refusal.reason.is_upstreams() {
                        metrics.failed(Phase::Header);
                    }
                    return Err(refusal);
                }
            }
        }
    }

    /// A new connection, or, where all share one, the one that another request has made meanwhile.
    async fn fresh(&self, slot: &Arc<Slot>, approach: &Approach) -> Result<(Lease, bool), Refusal> {
        let known = lock(&slot.open).known;
        let _first = match known {
            Some(Protocol::H1) => None,
            Some(Protocol::H2) | None => {
                // Not for long: behind an upstream that is down, each would wait for the failure of the one before.
                let first = tokio::time::timeout(PATIENCE, slot.first.lock()).await.ok();
                if let Some(lease) = slot.kept().await {
                    return Ok((lease, true));
                }
                first
            }
        };
        let PoolKey { destination, exempt, .. } = &slot.key;
        let (fresh, peer) = self.connector.connect(destination, exempt, approach).await?;
        let mut open = lock(&slot.open);
        let sender = match fresh {
            Fresh::H1(sender) => {
                open.known = Some(Protocol::H1);
                Sender::H1(sender)
            }
            Fresh::H2(sender) => {
                open.known = Some(Protocol::H2);
                let users = Arc::new(());
                open.shared.push(SharedH2 { sender: sender.clone(), peer, users: Arc::clone(&users) });
                Sender::H2(sender, users)
            }
        };
        Ok((Lease { slot: Some(Arc::clone(slot)), sender, peer }, false))
    }

    /// Closes connections that nobody has used for a while, and forgets keys that nobody uses. Runs until the pool is gone.
    pub(crate) async fn sweep(pool: std::sync::Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(pool) = pool.upgrade() else { return };
            let now = Instant::now();
            lock(&pool.slots).retain(|_, slot| {
                let mut open = lock(&slot.open);
                let before = open.idle.len() + open.shared.len();
                open.idle
                    .retain(|idle| now.duration_since(idle.since) < IDLE_LIMIT && !idle.sender.is_closed());
                open.shared.retain(|shared| !shared.sender.is_closed());
                slot.evicted(before - open.idle.len() - open.shared.len());
                Arc::strong_count(slot) > 1 || !open.idle.is_empty() || !open.shared.is_empty()
            });
        }
    }

    /// Connections that could take a request at once.
    pub(crate) fn idle(&self) -> usize {
        let slots: Vec<_> = lock(&self.slots).values().cloned().collect();
        slots.iter().map(|slot| lock(&slot.open)).map(|open| open.idle.len() + open.shared.len()).sum()
    }
}

impl Slot {
    fn evicted(&self, count: usize) {
        self.telemetry.metrics.pool.evictions.inc_by(count as u64);
    }

    /// A kept connection that is ready for a request.
    async fn kept(self: &Arc<Self>) -> Option<Lease> {
        // By index: a connection that is not ready is passed over, and the next one tried.
        for nth in 0.. {
            let mut lease = self.take(nth)?;
            // It mostly is. If not, its last response has just ended, all its streams are in use, or the upstream is gone.
            if lease.is_ready() || Box::pin(lease.becomes_ready()).await {
                return Some(lease);
            }
            if let Sender::H1(_) = lease.sender {
                self.evicted(1);
            }
        }
        None
    }

    /// The most recently used HTTP/1 connection, or the `nth` HTTP/2 connection with room.
    fn take(self: &Arc<Self>, nth: usize) -> Option<Lease> {
        let mut open = lock(&self.open);
        let slot = Some(Arc::clone(self));
        if open.known != Some(Protocol::H2) {
            let IdleH1 { sender, peer, .. } = open.idle.pop()?;
            return Some(Lease { slot, sender: Sender::H1(sender), peer });
        }
        let before = open.shared.len();
        open.shared.retain(|shared| !shared.sender.is_closed());
        self.evicted(before - open.shared.len());
        let SharedH2 { sender, peer, users } =
            open.shared.iter().filter(|shared| Arc::strong_count(&shared.users) <= MAX_STREAMS).nth(nth)?;
        Some(Lease { slot, sender: Sender::H2(sender.clone(), Arc::clone(users)), peer: *peer })
    }
}

impl Lease {
    /// A connection that was made for one exchange, and serves no other.
    pub(crate) fn single(sender: http1::SendRequest<RequestBody>, peer: Peer) -> Self {
        Self { slot: None, sender: Sender::H1(sender), peer }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::H1(_) => Protocol::H1,
            Sender::H2(..) => Protocol::H2,
        }
    }

    fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_ready(),
            Sender::H2(sender, _) => sender.is_ready(),
        }
    }

    async fn becomes_ready(&mut self) -> bool {
        let ready = async {
            match &mut self.sender {
                Sender::H1(sender) => sender.ready().await,
                Sender::H2(sender, _) => sender.ready().await,
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.is_ok_and(|ready| ready.is_ok())
    }

    async fn try_send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<RequestBody>>> {
        match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(request).await,
            Sender::H2(sender, _) => sender.try_send_request(request).await,
        }
    }

    /// The response ended as it should: another exchange may use the connection, unless this one's request is still being sent.
    pub(crate) fn give_back(self, recorder: &Recorder) {
        let sent = recorder.end_request_body();
        let (Some(slot), Sender::H1(sender)) = (self.slot, self.sender) else { return };
        if !sent || sender.is_closed() {
            return;
        }
        let mut open = lock(&slot.open);
        if open.idle.len() < MAX_IDLE {
            open.idle.push(IdleH1 { sender, peer: self.peer, since: Instant::now() });
        } else {
            slot.evicted(1);
        }
    }
}

/// The same request once more, if its body is at hand.
fn again(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut again = Request::new(RequestBody::Whole(request.body().again()?));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether an HTTP/2 upstream says that it has done nothing about the request: its stream is beyond the last of a GOAWAY, as servers send
/// it after so many requests, or was refused (RFC 9113 sections 6.8 and 8.7).
fn was_not_processed(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

fn failed(error: &hyper::Error) -> Refusal {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(body) = inner.downcast_ref::<BodyError>() {
            return match body {
                BodyError::Refused(refusal) => refusal.clone(),
                BodyError::Misdirected => Refusal::new(Reason::PlaceholderMisdirected, body.to_string()),
                BodyError::Stalled(_) => Refusal::new(Reason::RequestTimeout, body.to_string()),
                BodyError::Aborted => Refusal::new(Reason::PolicyChanged, body.to_string()),
                BodyError::Coding(_) => Refusal::new(Reason::MalformedRequest, body.to_string()),
                BodyError::Unscannable(_) => Refusal::new(Reason::UpstreamProtocol, body.to_string()),
                BodyError::Peer(_) => Refusal::new(Reason::MalformedRequest, "the request body broke off"),
            };
        }
        cause = inner.source();
    }
    let reason = if error.is_parse() { Reason::UpstreamProtocol } else { Reason::UpstreamReset };
    Refusal::new(reason, format!("the upstream did not answer: {error}"))
}

/// A panic while a lock was held left plain data behind; the data is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
