//! What is open right now, so that a new policy reaches it: exchanges that it would refuse are aborted, tunnels that it would not grant are
//! closed (invariant 11, T67).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use keyferry_config::document::Source;
use keyferry_config::policy::{
    Destination, Host, Plan, Policy, Reason, Refusal, RequestHead, Scope, TunnelVerdict, Verdict,
};
use smallvec::SmallVec;

use crate::identity::Sandbox;
use crate::signal::Signal;

/// All tunnels, and all connections on which requests in cleartext arrive.
#[derive(Debug, Default)]
pub(crate) struct OpenTunnels {
    next: AtomicU64,
    tunnels: Mutex<HashMap<u64, Weak<OpenTunnel>>>,
}

/// One of them, with the exchanges in it.
#[derive(Debug)]
pub(crate) struct OpenTunnel {
    /// The CONNECT's target; a connection without one carries requests to anywhere.
    target: Option<(Host, u16)>,
    /// Whose it is, where a sandbox proved it.
    sandbox: Option<Arc<Sandbox>>,
    closed: Signal,
    exchanges: Mutex<Vec<Weak<OpenExchange>>>,
}

/// One exchange that has been allowed: what a new policy needs to decide it again. Header values are not kept: what they carried is in
/// `secrets`, and a placeholder that a new policy adds has left already.
#[derive(Debug)]
pub(crate) struct OpenExchange {
    destination: Arc<Destination>,
    method: Method,
    target: PathAndQuery,
    secrets: SmallVec<[Arc<Source>; 1]>,
    aborted: Signal,
    /// Keeps the tunnel in the table while something is open in it.
    _within: Arc<OpenTunnel>,
}

impl OpenTunnels {
    /// Enters a tunnel, or with no target a connection that carries requests in cleartext.
    pub(crate) fn register(
        &self,
        target: Option<(Host, u16)>,
        sandbox: Option<Arc<Sandbox>>,
    ) -> Arc<OpenTunnel> {
        let tunnel = Arc::new(OpenTunnel {
            target,
            sandbox,
            closed: Signal::default(),
            exchanges: Mutex::new(Vec::new()),
        });
        let mut tunnels = lock(&self.tunnels);
        // The dead are swept when the table would grow, so that each is looked at a bounded number of times.
        if tunnels.len() == tunnels.capacity() {
            tunnels.retain(|_, tunnel| tunnel.strong_count() > 0);
        }
        tunnels.insert(self.next.fetch_add(1, Ordering::Relaxed), Arc::downgrade(&tunnel));
        tunnel
    }

    /// Judges everything again that is open. Returns how many tunnels were closed and exchanges aborted.
    pub(crate) fn judge_again(&self, policy: &Arc<Policy>) -> (usize, usize) {
        let tunnels: Vec<_> = lock(&self.tunnels).values().filter_map(Weak::upgrade).collect();
        let mut scopes = HashMap::new();
        let (mut closed, mut aborted) = (0, 0);
        for tunnel in tunnels {
            aborted += tunnel.judge_exchanges(policy, &mut scopes);
            let refused = tunnel.target.as_ref().is_some_and(|(host, port)| {
                matches!(policy.decide_tunnel(host, *port), TunnelVerdict::Refuse(_))
            });
            if refused {
                tunnel.closed.raise();
                closed += 1;
            }
        }
        (closed, aborted)
    }

    /// Ends everything of a sandbox that has ended.
    pub(crate) fn close_of(&self, sandbox: &Arc<Sandbox>) {
        let tunnels: Vec<_> = lock(&self.tunnels).values().filter_map(Weak::upgrade).collect();
        for tunnel in tunnels {
            if tunnel.sandbox.as_ref().is_some_and(|of| Arc::ptr_eq(of, sandbox)) {
                tunnel.open_exchanges().iter().for_each(|exchange| exchange.abort());
                tunnel.closed.raise();
            }
        }
    }
}

impl OpenTunnel {
    /// Completes when the tunnel must end.
    pub(crate) async fn closed(&self) {
        self.closed.raised().await;
    }

    /// Enters an exchange that is about to leave.
    pub(crate) fn enter(
        self: &Arc<Self>,
        scope: &Scope,
        destination: &Arc<Destination>,
        method: &Method,
        target: &PathAndQuery,
        plan: &Plan,
    ) -> Arc<OpenExchange> {
        let exchange = Arc::new(OpenExchange {
            destination: Arc::clone(destination),
            method: method.clone(),
            target: target.clone(),
            secrets: plan
                .secrets()
                .map(|number| Arc::clone(scope.policy().secret(number).source()))
                .collect(),
            aborted: Signal::default(),
            _within: Arc::clone(self),
        });
        let mut exchanges = lock(&self.exchanges);
        if exchanges.len() == exchanges.capacity() {
            exchanges.retain(|exchange| exchange.strong_count() > 0);
        }
        exchanges.push(Arc::downgrade(&exchange));
        exchange
    }

    fn open_exchanges(&self) -> Vec<Arc<OpenExchange>> {
        lock(&self.exchanges).iter().filter_map(Weak::upgrade).collect()
    }

    fn judge_exchanges(&self, policy: &Arc<Policy>, scopes: &mut HashMap<Arc<Destination>, Scope>) -> usize {
        let exchanges = self.open_exchanges();
        let refused = exchanges.iter().filter(|exchange| {
            let scope = scopes
                .entry(Arc::clone(&exchange.destination))
                .or_insert_with(|| Scope::new(Arc::clone(policy), (*exchange.destination).clone()));
            !exchange.stands_under(scope)
        });
        refused.map(|exchange| exchange.abort()).count()
    }
}

impl OpenExchange {
    /// Whether it would be allowed now, with the secrets that it carried. A new value of the same source is the same secret.
    pub(crate) fn stands_under(&self, scope: &Scope) -> bool {
        let head =
            RequestHead { method: &self.method, target: self.target.as_str(), headers: &HeaderMap::new() };
        let allowed = match scope.decide(&head) {
            Verdict::Forward(_) => true,
            // Its placeholder stands in a header, which is not kept.
            Verdict::Refuse(refusal) => refusal.reason == Reason::PlaceholderMissing,
        };
        allowed && self.secrets.iter().all(|source| scope.grants(source, &head))
    }

    fn abort(&self) {
        self.aborted.raise();
    }

    /// Ready once the exchange must end.
    pub(crate) fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.aborted.poll_raised(cx)
    }

    /// Completes once the exchange must end.
    pub(crate) async fn aborted(&self) {
        self.aborted.raised().await;
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.is_raised()
    }

    /// What its record says then.
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::new(
            Reason::PolicyChanged,
            format!("a new policy no longer allows this request to {}", self.destination.host),
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
