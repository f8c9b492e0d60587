//! What is known about one request, gathered as it runs.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant, SystemTime};

use futures_util::task::AtomicWaker;
use http::Method;
use keyferry_config::policy::{Destination, Foreign, Host, Location, Policy, Reason, Refusal, RuleName};
use keyferry_contract::audit::{
    Action, Annotations, Audit, Message, Record, RequestId, SecretUse, TransformTrace, Tunnel,
};
use smallvec::SmallVec;

use super::Permit;
use crate::data_plane::Protocol;
use crate::open::OpenExchange;
use crate::telemetry::Telemetry;
use crate::trace::{Begun, Trace, TraceId};

/// Everything that a record says, in the form in which it is cheap to gather; the writer makes the record of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: RequestId,
    pub(crate) began: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) message: Message,
    pub(crate) action: Action,
    pub(crate) principal: Arc<str>,
    pub(crate) sandbox: Option<Arc<str>>,
    pub(crate) generation: u64,
    pub(crate) target: Target,
    /// None where it could not be read.
    pub(crate) method: Option<Method>,
    /// Path and query as sent; the query is not written.
    pub(crate) path: Option<http::uri::PathAndQuery>,
    pub(crate) mode: Mode,
    pub(crate) sni: Option<Arc<str>>,
    pub(crate) reason: Option<Reason>,
    pub(crate) error: Option<Cow<'static, str>>,
    pub(crate) rule: Option<RuleName>,
    pub(crate) warned: bool,
    pub(crate) status: Option<u16>,
    pub(crate) retried: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) upstream: Option<(SocketAddr, Protocol)>,
    /// None where a sandbox came through a socket of its own.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) client_protocol: Option<Protocol>,
    pub(crate) tunnel: Option<Arc<str>>,
    pub(crate) secrets: SmallVec<[SecretTrace; 1]>,
    /// Credentials of the client's own, where a secret is bound.
    pub(crate) foreign: Option<Arc<Foreign>>,
    /// How often a value was taken out of the response.
    pub(crate) redacted: u64,
    pub(crate) trace_id: Option<TraceId>,
}

/// What a request was for, as far as it could be read.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Unknown,
    Tunnel(Host, u16),
    Destination(Arc<Destination>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Mitm,
    Plain,
    Tunnel,
}

/// What a secret did to a request.
#[derive(Debug, Clone)]
pub(crate) struct SecretTrace {
    pub(crate) secret: Arc<str>,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Swapped(SmallVec<[Location; 1]>),
    Injected(Location),
    Unavailable,
}

/// Makes the ids of one process: unique without asking the kernel for each.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    counter: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self { process: uuid::Uuid::now_v7().as_u64_pair().0, counter: AtomicU64::new(1) }
    }

    pub(crate) fn next(&self) -> RequestId {
        RequestId { process: self.process, number: self.counter.fetch_add(1, Ordering::Relaxed) }
    }
}

/// A request body, seen where it is read.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    bytes: AtomicU64,
    broken: AtomicBool,
    ended: AtomicBool,
    cut: AtomicBool,
    waker: AtomicWaker,
    swapped: Mutex<SmallVec<[u32; 1]>>,
}

impl Flow {
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The values of these secrets went into it so far.
    pub(crate) fn swapped(&self, secrets: &[u32]) {
        let mut swapped = self.swapped.lock().unwrap_or_else(PoisonError::into_inner);
        let known = swapped.len();
        swapped.extend_from_slice(&secrets[known..]);
    }

    /// Whether the value of this secret went into it.
    pub(crate) fn holds(&self, secret: u32) -> bool {
        self.swapped.lock().unwrap_or_else(PoisonError::into_inner).contains(&secret)
    }

    /// All of it has been read.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The exchange is over: what is not read yet is not sent any more.
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Whether no more of it is sent; if it still is, whoever waits for the client hears when that changes.
    pub(crate) fn poll_cut(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.is_cut()
    }

    /// The client went away in the middle of it.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

/// Writes the record of one request when it is dropped, however the request ends.
#[derive(Debug)]
pub(crate) struct Recorder {
    entry: Option<(Entry, Permit)>,
    started: Instant,
    request_body: Option<Arc<Flow>>,
    open: Option<Arc<OpenExchange>>,
    policy: Option<Arc<Policy>>,
    finished: bool,
    telemetry: Arc<Telemetry>,
    under_way: bool,
    trace: Option<Box<Trace>>,
}

impl Recorder {
    pub(crate) fn new(entry: Entry, permit: Permit, telemetry: Arc<Telemetry>) -> Self {
        Self {
            entry: Some((entry, permit)),
            telemetry,
            under_way: false,
            trace: None,
            started: Instant::now(),
            request_body: None,
            open: None,
            policy: None,
            finished: false,
        }
    }

    pub(crate) fn entry(&mut self) -> &mut Entry {
        &mut self.entry.as_mut().expect("only drop takes the entry").0
    }

    /// When its request arrived.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// It belongs to this trace.
    pub(crate) fn traced(&mut self, begun: Begun) {
        self.entry().trace_id = begun.id;
        self.trace = begun.trace;
    }

    /// Its span, where it will be told.
    pub(crate) fn trace(&mut self) -> Option<&mut Trace> {
        self.trace.as_deref_mut()
    }

    /// It is a request that goes somewhere, and counts as active until it ends; a CONNECT does not.
    pub(crate) fn under_way(&mut self) {
        if !std::mem::replace(&mut self.under_way, true) {
            self.telemetry.metrics.requests_active.inc();
        }
    }

    /// It was allowed by `policy`: from here on a new one may end it.
    pub(crate) fn open_as(&mut self, open: Arc<OpenExchange>, policy: &Arc<Policy>) {
        self.open = Some(open);
        self.policy = Some(Arc::clone(policy));
    }

    /// The exchange, if it was allowed.
    pub(crate) fn open(&self) -> Option<&OpenExchange> {
        self.open.as_deref()
    }

    /// Counts the request body from here on.
    pub(crate) fn count_request_body(&mut self) -> Arc<Flow> {
        Arc::clone(self.request_body.get_or_insert_default())
    }

    /// What counts the request body, if anything does.
    pub(crate) fn request_flow(&self) -> Option<Arc<Flow>> {
        self.request_body.clone()
    }

    /// Whether the request body was sent to its end; if not, no more of it is.
    pub(crate) fn end_request_body(&self) -> bool {
        let Some(flow) = &self.request_body else { return true };
        let ended = flow.ended.load(Ordering::Relaxed);
        if !ended {
            flow.cut();
        }
        ended
    }

    /// The request is refused, or failed: the record says why.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        let entry = self.entry();
        entry.action = if refusal.reason.is_policy() { Action::Reject } else { Action::Error };
        entry.reason = Some(refusal.reason);
        entry.error = Some(Cow::Owned(refusal.message.clone()));
        if refusal.rule.is_some() {
            entry.rule.clone_from(&refusal.rule);
        }
        entry.status = Some(refusal.reason.status());
    }

    /// It failed after the response had begun.
    pub(crate) fn fail(&mut self, reason: Reason, error: impl Into<Cow<'static, str>>) {
        let entry = self.entry();
        entry.action = Action::Error;
        entry.reason = Some(reason);
        entry.error = Some(error.into());
        self.finished = true;
    }

    /// The response went out whole; without this the record says that the client went away.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Gives the place in the queue away; nothing is recorded.
    pub(crate) fn into_permit(mut self) -> Option<Permit> {
        self.entry.take().map(|(_, permit)| permit)
    }

    /// Says that a long exchange has begun, if the queue has room; its record follows when it ends.
    pub(crate) fn announce(&mut self, audit: &super::Audit) {
        let elapsed = self.started.elapsed();
        let mut open = self.entry().clone();
        open.message = Message::RequestOpen;
        open.duration = elapsed;
        match audit.reserve() {
            Some(permit) => permit.send(open),
            None => self.telemetry.metrics.audit_dropped.inc(),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.under_way {
            self.telemetry.metrics.requests_active.dec();
        }
        let Some((mut entry, permit)) = self.entry.take() else { return };
        entry.duration = self.started.elapsed();
        if let Some(flow) = &self.request_body {
            entry.bytes_in += flow.bytes();
            if let Some(policy) = &self.policy {
                for &secret in flow.swapped.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    entry.swapped_in_body(policy.secret(secret).name());
                }
            }
        }
        let broken = self.request_body.as_ref().is_some_and(|flow| flow.broken.load(Ordering::Relaxed));
        let ended = self.open.as_ref().filter(|open| !self.finished && open.is_aborted());
        if let Some(open) = ended {
            let Refusal { reason, message, .. } = open.refusal();
            (entry.action, entry.reason) = (Action::Reject, Some(reason));
            entry.error = Some(Cow::Owned(message));
        } else if broken || (!self.finished && entry.action == Action::Allow) {
            entry.action = Action::ClientCancel;
        }
        if std::thread::panicking() {
            entry.action = Action::Error;
            entry.error = Some(Cow::Borrowed("the proxy failed on this request"));
        }
        if broken && ended.is_none() {
            // Whatever was answered, nobody read it.
            (entry.reason, entry.status) = (None, None);
        }
        self.telemetry.ended(&entry, self.trace.take());
        permit.send(entry);
    }
}

impl Entry {
    fn swapped_in_body(&mut self, secret: &Arc<str>) {
        let known = self.secrets.iter_mut().find_map(|trace| match &mut trace.outcome {
            Outcome::Swapped(locations) if trace.secret == *secret => Some(locations),
            Outcome::Swapped(_) | Outcome::Injected(_) | Outcome::Unavailable => None,
        });
        match known {
            Some(locations) => locations.push(Location::Body),
            None => {
                let outcome = Outcome::Swapped(SmallVec::from_elem(Location::Body, 1));
                self.secrets.push(SecretTrace { secret: Arc::clone(secret), outcome });
            }
        }
    }

    /// The record as it is written.
    pub(crate) fn record(&self) -> Record<'_> {
        let (host, port, scheme) = match &self.target {
            Target::Unknown => (Cow::Borrowed(""), None, None),
            Target::Tunnel(host, port) => (host_text(host), Some(*port), None),
            Target::Destination(to) => {
                (host_text(&to.host), Some(to.port), Some(Cow::Borrowed(to.scheme.as_str())))
            }
        };
        let path = match &self.path {
            Some(path) => Cow::Borrowed(path.path()),
            None => Cow::Borrowed(""),
        };
        Record {
            time: self.began.try_into().unwrap_or_default(),
            level: self.action.level(),
            msg: self.message,
            audit: Audit {
                request_id: self.id,
                principal: (&*self.principal).into(),
                sandbox: self.sandbox.as_deref().map(Cow::Borrowed),
                generation: self.generation,
                host,
                port,
                scheme,
                method: self.method.as_ref().map_or("", Method::as_str).into(),
                path,
                sni: self.sni.as_deref().map(Cow::Borrowed),
                mode: self.mode.as_str().into(),
                action: self.action,
                reason: self.reason.map(|reason| reason.code().into()),
                rule: self.rule.as_ref().map(|rule| rule.as_str().into()),
                status_code: self.status,
                duration_ms: (self.duration.as_secs_f64() * 1e6).round() / 1e3,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                upstream_addr: self.upstream.map(|(address, _)| address),
                remote_addr: self.remote,
                client_protocol: self.client_protocol.map(|protocol| protocol.as_str().into()),
                upstream_protocol: self.upstream.map(|(_, protocol)| protocol.as_str().into()),
                trace_id: self.trace_id.map(|id| id.to_string().into()),
            },
            tunnel: self.tunnel.as_deref().map(|target| Tunnel { target: target.into() }),
            rejected_by: self.rejected_by().map(Cow::Borrowed),
            error: self.error.as_deref().map(Cow::Borrowed),
            retried: self.retried,
            request_transforms: self.transforms(),
            response_transforms: self.response_transforms(),
        }
    }

    /// The transform that iron-proxy would name; what the protocol refuses is nobody's.
    fn rejected_by(&self) -> Option<&'static str> {
        use Reason::{
            AddressDenied, BodyTooLarge, CodingNotSwappable, ForeignCredential, HostNotAllowed,
            MethodNotAllowed, PathNotAllowed, PlaceholderMisdirected, PlaceholderMissing, PortNotAllowed,
            SecretUnavailable, TransformUnsupported,
        };
        match self.reason? {
            HostNotAllowed | PortNotAllowed | MethodNotAllowed | PathNotAllowed | AddressDenied => {
                Some("allowlist")
            }
            PlaceholderMisdirected
            | PlaceholderMissing
            | ForeignCredential
            | SecretUnavailable
            | TransformUnsupported
            | BodyTooLarge
            | CodingNotSwappable => Some("secrets"),
            _ => None,
        }
    }

    fn response_transforms(&self) -> Vec<TransformTrace<'_>> {
        if self.redacted == 0 {
            return Vec::new();
        }
        let annotations = Annotations { redacted: Some(self.redacted), ..Annotations::default() };
        vec![TransformTrace { name: "redact".into(), action: "allow".into(), annotations }]
    }

    fn transforms(&self) -> SmallVec<[TransformTrace<'_>; 1]> {
        let mut transforms = SmallVec::new();
        if self.warned {
            transforms.push(TransformTrace {
                name: "allowlist".into(),
                action: "warn".into(),
                annotations: Annotations::default(),
            });
        }
        if self.secrets.is_empty() && self.foreign.is_none() {
            return transforms;
        }
        let mut annotations = Annotations::default();
        if let Some(foreign) = &self.foreign {
            let places = foreign.locations().collect();
            match foreign.stripped {
                true => annotations.foreign_stripped = places,
                false => annotations.foreign_passed = places,
            }
        }
        for trace in &self.secrets {
            let secret = Cow::Borrowed(&*trace.secret);
            match &trace.outcome {
                Outcome::Swapped(locations) => {
                    annotations.swapped.push(SecretUse { secret, locations: Cow::Borrowed(locations) });
                }
                Outcome::Injected(location) => {
                    let locations = Cow::Borrowed(slice::from_ref(location));
                    annotations.injected.push(SecretUse { secret, locations });
                }
                Outcome::Unavailable => annotations.secret_unavailable.push(secret),
            }
        }
        let action = if self.rejected_by() == Some("secrets") { "reject" } else { "allow" };
        transforms.push(TransformTrace { name: "secrets".into(), action: action.into(), annotations });
        transforms
    }
}

/// IPv6 without brackets: the port has a field of its own.
fn host_text(host: &Host) -> Cow<'_, str> {
    match host {
        Host::Name(name) => Cow::Borrowed(name.as_str()),
        Host::Ip(ip) => Cow::Owned(ip.to_string()),
    }
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mitm => "mitm",
            Self::Plain => "plain",
            Self::Tunnel => "tunnel",
        }
    }
}
