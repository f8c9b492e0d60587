//! What the requests of one connection have in common: who sends them, and where they may go.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Response};
use keyferry_config::policy::{Destination, Host, Reason, Refusal, Scheme, Scope};
use keyferry_contract::audit::{Action, Message};
use smallvec::SmallVec;

use crate::audit::{Entry, Mode, Permit, Recorder, Target};
use crate::body::ResponseBody;
use crate::data_plane::{DataPlane, Generation, Protocol};
use crate::guard::Fault;
use crate::identity::{Peer, Sandbox};
use crate::metrics::Active;
use crate::open::OpenTunnel;
use crate::principal::Principal;
use crate::redact::{LiveRedactor, Redactor};
use crate::refusal;
use crate::retry::SpareHeads;
use crate::trace::{Context, TunnelTrace};
use crate::upstream::{PoolKey, Slot};

/// A connection, or a tunnel inside one.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) principal: Arc<Principal>,
    /// That proved who it is, if one did.
    pub(crate) sandbox: Option<Arc<Sandbox>>,
}

/// A granted CONNECT. Its own record is written only if no request came through it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) session: Session,
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) target: Arc<str>,
    pub(crate) open: Arc<OpenTunnel>,
    record: Mutex<Option<Recorder>>,
    trace: Option<TunnelTrace>,
    _active: Active,
}

/// One destination with all that is needed to send requests to it; made once per tunnel.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) destination: Arc<Destination>,
    /// The destination as `Host` has it.
    pub(crate) host_header: HeaderValue,
    /// The destination as `:authority` has it.
    pub(crate) authority: Authority,
    pub(crate) principal: Arc<Principal>,
    bound: ArcSwap<Bound>,
}

/// A route under one generation.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) generation: Arc<Generation>,
    /// What its policy says about the destination.
    pub(crate) scope: Scope,
    slot: OnceLock<Arc<Slot>>,
    redactor: Option<Arc<LiveRedactor>>,
    /// For the copies of heads that may have to be sent again.
    pub(crate) spare_heads: SpareHeads,
}

/// The tunnel around a request, as its record shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) tunnel: &'a Tunnel,
    pub(crate) sni: Option<&'a Arc<str>>,
}

impl Session {
    /// Of whoever is at the other end: nobody in particular, until it has shown who it is.
    pub(crate) fn of(plane: &Arc<DataPlane>, peer: &Peer) -> Self {
        let (remote, sandbox) = match peer {
            Peer::At(remote) => (Some(*remote), None),
            Peer::Sandbox(sandbox) => (None, Some(Arc::clone(sandbox))),
        };
        let principal = Arc::clone(sandbox.as_ref().map_or(&plane.nobody, |sandbox| &sandbox.principal));
        Self { plane: Arc::clone(plane), remote, principal, sandbox }
    }

    /// Whether the sandbox has ended: asked once more when what it opens is entered where its end would look for it.
    pub(crate) fn has_ended(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|sandbox| sandbox.is_gone())
    }

    /// A record for a request that has just arrived, or the refusal that it gets while none can be written.
    pub(crate) fn recorder(
        &self,
        generation: &Generation,
        parts: &Parts,
        around: Option<Around<'_>>,
    ) -> Result<Recorder, Refusal> {
        let mut recorder = self.begin(generation, Some(parts.method.clone()), around)?;
        recorder.entry().path = parts.uri.path_and_query().cloned();
        recorder.entry().client_protocol = Some(Protocol::of(parts.version));
        Ok(recorder)
    }

    /// The answer to bytes that must not be read as a request.
    pub(crate) fn refuse_fault(
        &self,
        fault: Fault,
        route: Option<&Route>,
        around: Option<Around<'_>>,
    ) -> Response<ResponseBody> {
        match self.begin(&self.principal.generation.load(), fault.method, around) {
            Ok(mut recorder) => {
                recorder.entry().client_protocol = Some(Protocol::H1);
                if let Some(route) = route {
                    route.describe(recorder.entry());
                }
                refusal::respond(&fault.refusal, recorder)
            }
            Err(refusal) => refusal::respond_unrecorded(&refusal),
        }
    }

    fn begin(
        &self,
        generation: &Generation,
        method: Option<Method>,
        around: Option<Around<'_>>,
    ) -> Result<Recorder, Refusal> {
        let reserved = around.and_then(|around| around.tunnel.reserved());
        let Some(permit) = reserved.or_else(|| generation.audit.reserve()) else {
            self.plane.telemetry.metrics.unrecorded(Reason::AuditFull);
            return Err(audit_full());
        };
        let mut entry = self.entry(method, Mode::Plain);
        entry.generation = generation.policy.generation();
        if let Some(around) = around {
            entry.tunnel = Some(Arc::clone(&around.tunnel.target));
            entry.sni = around.sni.cloned();
        }
        Ok(Recorder::new(entry, permit, Arc::clone(&self.plane.telemetry)))
    }

    fn entry(&self, method: Option<Method>, mode: Mode) -> Entry {
        Entry {
            id: self.plane.request_ids.next(),
            began: SystemTime::now(),
            duration: std::time::Duration::ZERO,
            message: Message::Request,
            action: Action::Allow,
            principal: Arc::clone(&self.principal.id),
            sandbox: self.sandbox.as_ref().map(|sandbox| Arc::clone(&sandbox.id)),
            generation: 0,
            target: Target::Unknown,
            method,
            path: None,
            mode,
            sni: None,
            reason: None,
            error: None,
            rule: None,
            warned: false,
            status: None,
            retried: false,
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            remote: self.remote,
            client_protocol: None,
            tunnel: None,
            secrets: SmallVec::new(),
            foreign: None,
            redacted: 0,
            trace_id: None,
        }
    }
}

impl Tunnel {
    /// A tunnel that was granted; `recorder` is the CONNECT's.
    pub(crate) fn new(
        session: Session,
        host: Host,
        port: u16,
        recorder: Recorder,
        client: Option<&Context>,
    ) -> Box<Self> {
        let target = format!("{host}:{port}").into();
        let trace = TunnelTrace::begin(&session.plane.telemetry, client, &target, &session.principal.id);
        let open = session.principal.open.register(Some((host.clone(), port)), session.sandbox.clone());
        let _active = session.plane.telemetry.metrics.tunnel();
        let record = Mutex::new(Some(recorder));
        Box::new(Self { session, host, port, target, open, record, trace, _active })
    }

    /// Its span, for the requests in it.
    pub(crate) fn context(&self) -> Option<&Context> {
        self.trace.as_ref().map(|trace| &trace.span.context)
    }

    /// The answer to a CONNECT that a policy no longer grants which came while it was judged.
    pub(crate) fn refuse(self: Box<Self>, refusal: &Refusal) -> Response<ResponseBody> {
        let recorder = self.record.into_inner().unwrap_or_else(PoisonError::into_inner);
        match recorder {
            Some(recorder) => refusal::respond(refusal, recorder),
            None => refusal::respond_unrecorded(refusal),
        }
    }

    /// The place in the audit queue that the CONNECT reserved, for the tunnel's first request.
    fn reserved(&self) -> Option<Permit> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).take().and_then(Recorder::into_permit)
    }

    /// The tunnel ends without a request for a reason of its own.
    pub(crate) fn fail(&self, refusal: &Refusal, sni: Option<&str>) {
        if let Some(recorder) = &mut *self.record.lock().unwrap_or_else(PoisonError::into_inner) {
            recorder.refuse(refusal);
            // The client saw the answer to its CONNECT.
            recorder.entry().status = Some(200);
            recorder.entry().sni = sni.map(Arc::from);
        }
    }
}

impl Route {
    pub(crate) fn new(destination: Destination, principal: Arc<Principal>) -> Result<Self, Refusal> {
        let text = destination.authority();
        let bad = || Refusal::new(Reason::MalformedRequest, format!("{text} is not an authority"));
        let host_header = HeaderValue::try_from(&text).map_err(|_| bad())?;
        let authority = Authority::try_from(text.as_str()).map_err(|_| bad())?;
        let destination = Arc::new(destination);
        let bound = ArcSwap::from_pointee(Bound::new(principal.generation.load_full(), &destination));
        Ok(Self { destination, host_header, authority, principal, bound })
    }

    /// The route under the generation that is in force.
    pub(crate) fn bound(&self) -> Arc<Bound> {
        let bound = self.bound.load_full();
        let current = self.principal.generation.load();
        if Arc::ptr_eq(&bound.generation, &current) {
            return bound;
        }
        let bound = Arc::new(Bound::new(Arc::clone(&current), &self.destination));
        self.bound.store(Arc::clone(&bound));
        bound
    }

    /// Writes into a record where the request goes.
    pub(crate) fn describe(&self, entry: &mut Entry) {
        entry.target = Target::Destination(Arc::clone(&self.destination));
        entry.mode = match self.destination.scheme {
            Scheme::Https => Mode::Mitm,
            Scheme::Http => Mode::Plain,
        };
    }
}

impl Bound {
    /// The connections of the route; asked for only when the policy has allowed a request.
    pub(crate) fn slot(&self, route: &Route) -> &Arc<Slot> {
        self.slot.get_or_init(|| {
            let (destination, principal) = (Arc::clone(&route.destination), Arc::clone(&route.principal.id));
            self.generation.pool.slot(PoolKey { destination, principal })
        })
    }

    /// What its responses must not hold; none where no secret is bound.
    pub(crate) async fn redactor(&self) -> Option<Arc<Redactor>> {
        Some(self.redactor.as_ref()?.current(&self.scope, &self.generation).await)
    }

    /// Whether no other generation has come into force.
    pub(crate) fn is_current(&self, route: &Route) -> bool {
        Arc::ptr_eq(&self.generation, &route.principal.generation.load())
    }

    fn new(generation: Arc<Generation>, destination: &Destination) -> Self {
        let scope = Scope::new(Arc::clone(&generation.policy), destination.clone());
        let redactor = generation.redactors.of(&scope);
        Self { generation, scope, slot: OnceLock::new(), redactor, spare_heads: SpareHeads::default() }
    }
}

pub(crate) fn audit_full() -> Refusal {
    Refusal::new(Reason::AuditFull, "the audit log cannot keep up, and no request passes unrecorded")
}
