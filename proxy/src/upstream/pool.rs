//! Open connections by destination and principal. An HTTP/1 connection carries one request at a time and is lent out; an HTTP/2 connection is
//! shared by all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use ipnet::IpNet;
use keyferry_config::policy::{Destination, Reason, Refusal};

use super::connect::{Connector, Fresh};
use crate::body::{BodyError, RequestBody};
use crate::data_plane::Protocol;

/// How many idle HTTP/1 connections one key keeps.
const MAX_IDLE: usize = 256;
/// How long one is kept: below the 60 to 75 s after which common servers close it.
const IDLE_LIMIT: Duration = Duration::from_secs(50);
/// How often connections are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// Connections are shared only within one key: no request of one principal is seen on a connection of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) destination: Arc<Destination>,
    pub(crate) principal: Arc<str>,
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
}

#[derive(Debug, Default)]
struct Open {
    known: Option<Protocol>,
    idle: Vec<IdleH1>,
    shared: Option<(http2::SendRequest<RequestBody>, SocketAddr)>,
}

#[derive(Debug)]
struct IdleH1 {
    sender: http1::SendRequest<RequestBody>,
    address: SocketAddr,
    since: Instant,
}

/// A connection lent for one exchange. Dropped without [`Lease::give_back`], an HTTP/1 connection is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    slot: Arc<Slot>,
    sender: Sender,
    address: SocketAddr,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<RequestBody>),
    H2(http2::SendRequest<RequestBody>),
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
            Arc::new(Slot { key: key.clone(), open: Mutex::default(), first: tokio::sync::Mutex::default() })
        });
        Arc::clone(slot)
    }

    /// Sends one request to `slot`'s destination and waits for the head of the response. A request that did not leave because a kept
    /// connection had died is sent on another; one that may have left is never repeated.
    pub(crate) async fn send(
        &self,
        slot: &Arc<Slot>,
        exempt: &[IpNet],
        mut request: Request<RequestBody>,
        adapt: impl Fn(&mut Request<RequestBody>, Protocol),
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        loop {
            let (mut lease, kept) = match slot.kept().await {
                Some(lease) => (lease, true),
                None => self.fresh(slot, exempt).await?,
            };
            adapt(&mut request, lease.protocol());
            let mut unsent = match lease.try_send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            match unsent.take_message() {
                Some(message) if kept => request = message,
                Some(_) | None => return Err(failed(unsent.error())),
            }
        }
    }

    /// A new connection, or, where all share one, the one that another request has made meanwhile.
    async fn fresh(&self, slot: &Arc<Slot>, exempt: &[IpNet]) -> Result<(Lease, bool), Refusal> {
        let known = lock(&slot.open).known;
        let _first = match known {
            Some(Protocol::H1) => None,
            Some(Protocol::H2) | None => {
                let first = slot.first.lock().await;
                if let Some(lease) = slot.kept().await {
                    return Ok((lease, true));
                }
                Some(first)
            }
        };
        let (fresh, address) = self.connector.connect(&slot.key.destination, exempt).await?;
        let mut open = lock(&slot.open);
        let sender = match fresh {
            Fresh::H1(sender) => {
                open.known = Some(Protocol::H1);
                Sender::H1(sender)
            }
            Fresh::H2(sender) => {
                open.known = Some(Protocol::H2);
                open.shared = Some((sender.clone(), address));
                Sender::H2(sender)
            }
        };
        Ok((Lease { slot: Arc::clone(slot), sender, address }, false))
    }

    /// Closes connections that nobody has used for a while, and forgets keys that nobody uses. Runs until the pool is gone.
    pub(crate) async fn sweep(pool: std::sync::Weak<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(pool) = pool.upgrade() else { return };
            let now = Instant::now();
            lock(&pool.slots).retain(|_, slot| {
                let mut open = lock(&slot.open);
                open.idle
                    .retain(|idle| now.duration_since(idle.since) < IDLE_LIMIT && !idle.sender.is_closed());
                open.shared.take_if(|(sender, _)| sender.is_closed());
                Arc::strong_count(slot) > 1 || !open.idle.is_empty() || open.shared.is_some()
            });
        }
    }
}

impl Slot {
    /// A kept connection that is ready for a request.
    async fn kept(self: &Arc<Self>) -> Option<Lease> {
        loop {
            let (sender, address) = {
                let mut open = lock(&self.open);
                open.shared.take_if(|(sender, _)| sender.is_closed());
                if let Some((sender, address)) = &open.shared {
                    (Sender::H2(sender.clone()), *address)
                } else {
                    let idle = open.idle.pop()?;
                    (Sender::H1(idle.sender), idle.address)
                }
            };
            let mut lease = Lease { slot: Arc::clone(self), sender, address };
            let ready = match &mut lease.sender {
                Sender::H1(sender) => sender.ready().await,
                Sender::H2(sender) => sender.ready().await,
            };
            if ready.is_ok() {
                return Some(lease);
            }
        }
    }
}

impl Lease {
    /// An HTTP/1 connection that was made for one upgrade, which the upstream declined.
    pub(crate) fn new(
        slot: &Arc<Slot>,
        sender: http1::SendRequest<RequestBody>,
        address: SocketAddr,
    ) -> Self {
        Self { slot: Arc::clone(slot), sender: Sender::H1(sender), address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::H1(_) => Protocol::H1,
            Sender::H2(_) => Protocol::H2,
        }
    }

    async fn try_send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<RequestBody>>> {
        match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(request).await,
            Sender::H2(sender) => sender.try_send_request(request).await,
        }
    }

    /// The exchange ended as it should: another may use the connection.
    pub(crate) fn give_back(self) {
        let Sender::H1(sender) = self.sender else { return };
        if sender.is_closed() {
            return;
        }
        let mut open = lock(&self.slot.open);
        if open.idle.len() < MAX_IDLE {
            open.idle.push(IdleH1 { sender, address: self.address, since: Instant::now() });
        }
    }
}

fn failed(error: &hyper::Error) -> Refusal {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(body) = inner.downcast_ref::<BodyError>() {
            return match body {
                BodyError::Misdirected => Refusal::new(Reason::PlaceholderMisdirected, body.to_string()),
                BodyError::Stalled(_) => Refusal::new(Reason::RequestTimeout, body.to_string()),
                BodyError::Aborted => Refusal::new(Reason::PolicyChanged, body.to_string()),
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
