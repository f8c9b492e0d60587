//! What control told, put in force a state at a time: what a state leaves as it was is not touched, and costs nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keyferry_config::document::AllowedPorts;
use keyferry_config::policy::{Policy, Reason};
use keyferry_contract::sync::{Generation, Message, PolicyOf, Reach, SandboxIdentity, Serves, Transport};
use keyferry_source::{Delivered, SecretHandle, Sources};

use super::compile::{Compiled, closed, compile};
use crate::data_plane::{self, Base};
use crate::identity::{Credentials, Identity, Sandbox, Sockets, Who};
use crate::principal::{Ended, Principal};

/// Holds the state that is in force, and gathers the next one.
#[derive(Debug)]
pub(crate) struct Enforcer {
    identity: Arc<Identity>,
    nobody: Arc<Principal>,
    sources: Arc<Sources>,
    file: FileSide,
    /// How long a state counts that nobody confirms.
    pub(super) max_staleness: Duration,
    pub(super) state: Option<Generation>,
    pub(super) serves: Option<Serves>,
    pub(super) policies: HashMap<String, Held>,
    ends: BTreeSet<(Timestamp, Thing)>,
    next: Option<Next>,
    confirmed: Option<Instant>,
    pub(super) standing: Stand,
    /// Where sandboxes without a token are served, if they are.
    pub(super) sockets: Option<Sockets>,
    /// Those whose socket could not be made, to be tried again.
    without_socket: Vec<Arc<Sandbox>>,
}

/// What the proxy's own file says that concerns every principal.
#[derive(Clone, Debug)]
pub(crate) struct FileSide {
    pub(crate) base: Base,
    pub(crate) allowed_ports: Option<AllowedPorts>,
    pub(crate) credentials: Option<Credentials>,
}

/// Whether what is held counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Nothing was told yet.
    Waiting,
    InForce,
    Stale,
    Revoked,
}

/// A policy that is held, and whose it is.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) of: Arc<PolicyOf>,
    principal: Arc<Principal>,
    policy: Arc<Policy>,
    secrets: Vec<Arc<SecretHandle>>,
    delivered: HashMap<String, Arc<Delivered>>,
    pub(super) unsupported: Vec<String>,
    ends: Option<Timestamp>,
    pub(super) sandboxes: HashMap<Box<str>, Arc<Sandbox>>,
}

/// Something that ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Policy(String),
    Sandbox { policy: String, id: Box<str> },
}

/// A state that is being told.
#[derive(Debug)]
struct Next {
    reach: Reach,
    serves: Serves,
    policies: HashMap<String, (Arc<PolicyOf>, Compiled)>,
    /// Told again, and as they were.
    same: HashSet<String>,
    policies_gone: Vec<String>,
    sandboxes: HashMap<String, SandboxIdentity>,
    sandboxes_gone: Vec<String>,
}

/// What a message came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More is to come.
    More,
    /// A state is in force.
    InForce,
    /// Everything was dropped.
    Revoked,
}

/// Why a state is not put in force; the one before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnforceError {
    #[error(
        "the control service went back from the state {held} to {offered}, which is refused as a replay\nhint: after a backup was restored, start control with --new-epoch"
    )]
    Replay { held: Generation, offered: Generation },
    #[error("the control service sent {0} out of turn")]
    OutOfTurn(&'static str),
    #[error("the control service named the policy {0:?} and did not send it")]
    NoSuchPolicy(String),
    #[error("the control service sent no hash of a token for the sandbox {0:?}")]
    NoHash(String),
}

impl Enforcer {
    pub(crate) fn new(
        identity: Arc<Identity>,
        nobody: Arc<Principal>,
        sources: Arc<Sources>,
        file: FileSide,
        max_staleness: Duration,
        sockets: Option<Sockets>,
    ) -> Self {
        Self {
            identity,
            nobody,
            sources,
            file,
            max_staleness,
            state: None,
            serves: None,
            policies: HashMap::new(),
            ends: BTreeSet::new(),
            next: None,
            confirmed: None,
            standing: Stand::Waiting,
            sockets,
            without_socket: Vec::new(),
        }
    }

    /// Who everybody is before anything was told.
    pub(crate) fn nobody(base: &Base) -> Arc<Principal> {
        let policy = closed(Reason::PolicyNotReady, "the control service has sent no policy yet");
        Principal::new("unknown", generation(Arc::new(policy), Vec::new(), base))
    }

    /// Takes what was told. A state counts from its end on, and at once.
    pub(super) fn take(&mut self, message: Message, now: Timestamp) -> Result<Taken, EnforceError> {
        let out_of_turn = EnforceError::OutOfTurn(message.name());
        match message {
            Message::Begin { reach, serves } => {
                if reach == Reach::Changes && (self.state.is_none() || self.serves != Some(serves)) {
                    return Err(out_of_turn);
                }
                self.next = Some(Next {
                    reach,
                    serves,
                    policies: HashMap::new(),
                    same: HashSet::new(),
                    policies_gone: Vec::new(),
                    sandboxes: HashMap::new(),
                    sandboxes_gone: Vec::new(),
                });
            }
            Message::Policy(of) => {
                let next = self.next.as_mut().ok_or(out_of_turn)?;
                let held = self.policies.get(&of.id);
                if held
                    .is_some_and(|held| held.of.config_hash == of.config_hash && held.of.status == of.status)
                {
                    next.same.insert(of.id);
                } else {
                    let none = HashMap::new();
                    let before = held.map_or(&none, |held| &held.delivered);
                    let ports = self.file.allowed_ports.as_ref();
                    let compiled = compile(&of, ports, &self.sources, before, now);
                    next.policies.insert(of.id.clone(), (Arc::new(of), compiled));
                }
            }
            Message::PolicyGone { id } => self.next.as_mut().ok_or(out_of_turn)?.policies_gone.push(id),
            Message::Sandbox(told) => {
                self.next.as_mut().ok_or(out_of_turn)?.sandboxes.insert(told.id.clone(), told);
            }
            Message::SandboxGone { id } => self.next.as_mut().ok_or(out_of_turn)?.sandboxes_gone.push(id),
            Message::Commit { generation } => {
                let next = self.next.take();
                if let Some(held) = self.state.as_ref().filter(|held| !held.may_become(&generation)) {
                    return Err(EnforceError::Replay { held: held.clone(), offered: generation });
                }
                match next {
                    Some(next) => self.commit(next, &generation)?,
                    None if self.state.is_none() => return Err(out_of_turn),
                    None => {}
                }
                self.state = Some(generation);
                self.confirm(Duration::ZERO);
                return Ok(Taken::InForce);
            }
            Message::Revoked => {
                self.revoke();
                return Ok(Taken::Revoked);
            }
        }
        Ok(Taken::More)
    }

    /// What was begun is not going to be finished.
    pub(super) fn abandon(&mut self) {
        self.next = None;
    }

    fn commit(&mut self, mut next: Next, generation: &Generation) -> Result<(), EnforceError> {
        let everything = next.reach == Reach::Everything;
        if everything {
            let named = |id: &String| next.policies.contains_key(id) || next.same.contains(id);
            next.policies_gone = self.policies.keys().filter(|id| !named(id)).cloned().collect();
        }
        let sandboxes = self.admitted(&next)?;
        let mut named = next.policies.keys().chain(&next.same).cloned();
        let (only, more) = (named.next(), named.next());
        if next.serves == Serves::Dedicated && (only.is_none() || more.is_some() || !everything) {
            return Err(EnforceError::OutOfTurn("a state that is not one policy"));
        }

        // Nothing can fail from here on. Nobody is told apart until all of it stands.
        let identity = Arc::clone(&self.identity);
        let mut who = identity.change();
        let (mut changed, mut ended): (Vec<Arc<Principal>>, Vec<Arc<Sandbox>>) = (Vec::new(), Vec::new());
        for (id, (of, compiled)) in next.policies {
            changed.push(self.hold(id, of, compiled, generation.number));
        }
        if self.serves != Some(next.serves) || !matches!(*who, Who::Sandboxes(_)) {
            *who = match (next.serves, only.and_then(|id| self.policies.get(&id))) {
                (Serves::Dedicated, Some(held)) => {
                    Who::One(Arc::clone(&held.principal), self.file.credentials.clone())
                }
                (Serves::Dedicated | Serves::Shared, _) => Who::Sandboxes(HashMap::new()),
            };
        }
        self.serves = Some(next.serves);
        let mut none = HashMap::new();
        let known = match &mut *who {
            Who::Sandboxes(known) => known,
            Who::One(..) => &mut none,
        };
        for id in next.policies_gone {
            let Some(held) = self.policies.remove(&id) else { continue };
            held.ends.map(|end| self.ends.remove(&(end, Thing::Policy(id))));
            held.sandboxes.keys().for_each(|id| drop(known.remove(id)));
            ended.extend(held.sandboxes.into_values());
            let gone = closed(Reason::PolicyNotReady, "the principal is not served by this proxy any more");
            held.principal.put(self::generation(
                Arc::new(gone.numbered(generation.number)),
                Vec::new(),
                &self.file.base,
            ));
            changed.push(held.principal);
        }
        if everything {
            let named = |id: &str| next.sandboxes.contains_key(id);
            next.sandboxes_gone = known.keys().map(|id| id.to_string()).filter(|id| !named(id)).collect();
        }
        let replaced = sandboxes.iter().map(|sandbox| sandbox.id.to_string());
        for id in next.sandboxes_gone.into_iter().chain(replaced) {
            if let Some(sandbox) = known.remove(id.as_str()) {
                self.forget(&sandbox);
                ended.push(sandbox);
            }
        }
        for sandbox in &sandboxes {
            let Some(held) = self.policies.get_mut(&sandbox.told.policy) else { continue };
            held.sandboxes.insert((*sandbox.id).into(), Arc::clone(sandbox));
            if let Some(end) = sandbox.told.not_after {
                self.ends.insert((end, thing(sandbox)));
            }
            known.insert((*sandbox.id).into(), Arc::clone(sandbox));
        }
        drop(who);

        ended.iter().for_each(Sandbox::end);
        // Only now: one that takes the place of another has its socket in the same place.
        self.open_sockets(sandboxes);
        if everything && let Some(sockets) = &self.sockets {
            let of = |id: &str| self.policies.values().any(|held| held.sandboxes.contains_key(id));
            sockets.remove_others(of);
        }
        report(changed.iter().map(|principal| principal.judge_again()));
        self.sources.retain_used();
        Ok(())
    }

    /// Makes the sockets of those that prove who they are by one.
    fn open_sockets(&mut self, sandboxes: Vec<Arc<Sandbox>>) {
        let Some(sockets) = &self.sockets else { return };
        for sandbox in sandboxes {
            if sandbox.told.transport == Transport::Unix
                && !sandbox.is_gone()
                && let Err(error) = sockets.open(&sandbox)
            {
                tracing::error!(%error, sandbox = &*sandbox.id, "a sandbox has no socket for now");
                self.without_socket.push(sandbox);
            }
        }
    }

    /// The end of the proxy: nothing listens any more. The directories stay for the next start, because sandboxes that go on have them
    /// mounted.
    pub(crate) fn close_sockets(&self) {
        let sandboxes = self.policies.values().flat_map(|held| held.sandboxes.values());
        sandboxes.filter_map(|sandbox| sandbox.socket().take()).for_each(|socket| socket.close());
    }

    /// The sandboxes of a state that are not as they were. They refer to principals that are there or come with it.
    fn admitted(&mut self, next: &Next) -> Result<Vec<Arc<Sandbox>>, EnforceError> {
        let mut admitted = Vec::new();
        for told in next.sandboxes.values() {
            let held = self.policies.get(&told.policy).filter(|_| !next.policies_gone.contains(&told.policy));
            if held
                .is_some_and(|held| held.sandboxes.get(told.id.as_str()).is_some_and(|it| *it.told == *told))
            {
                continue;
            }
            let principal = match held {
                Some(held) => Arc::clone(&held.principal),
                None if next.policies.contains_key(&told.policy) => self.principal(&told.policy),
                None => return Err(EnforceError::NoSuchPolicy(told.policy.clone())),
            };
            let sandbox = Sandbox::new(told.clone(), principal);
            admitted.push(sandbox.ok_or_else(|| EnforceError::NoHash(told.id.clone()))?);
        }
        Ok(admitted)
    }

    /// The principal of a policy that comes with a state and is not in force.
    fn principal(&mut self, id: &str) -> Arc<Principal> {
        if let Some(held) = self.policies.get(id) {
            return Arc::clone(&held.principal);
        }
        let policy = Arc::new(closed(Reason::PolicyNotReady, "the control service has sent no policy yet"));
        let principal = Principal::new(id, generation(Arc::clone(&policy), Vec::new(), &self.file.base));
        let of = PolicyOf {
            id: id.to_owned(),
            config_hash: String::new(),
            status: keyferry_contract::sync::Status::Unassigned,
            principal_id: None,
            requester_principal_id: None,
            policy: keyferry_contract::sync::Policy::default(),
        };
        let held = Held {
            of: Arc::new(of),
            principal: Arc::clone(&principal),
            policy,
            secrets: Vec::new(),
            delivered: HashMap::new(),
            unsupported: Vec::new(),
            ends: None,
            sandboxes: HashMap::new(),
        };
        self.policies.insert(id.to_owned(), held);
        principal
    }

    /// Puts a policy in the place of what its principal had.
    fn hold(&mut self, id: String, of: Arc<PolicyOf>, compiled: Compiled, number: u64) -> Arc<Principal> {
        let principal = self.principal(&id);
        let Compiled { policy, secrets, delivered, values, unsupported, ends } = compiled;
        for (delivered, value) in values {
            delivered.bring(value);
        }
        let sandboxes = match self.policies.remove(&id) {
            Some(before) => {
                before.ends.map(|end| self.ends.remove(&(end, Thing::Policy(id.clone()))));
                before.sandboxes
            }
            None => HashMap::new(),
        };
        self.ends.extend(ends.map(|end| (end, Thing::Policy(id.clone()))));
        let policy = Arc::new(policy.numbered(number));
        let held = Held {
            of,
            principal: Arc::clone(&principal),
            policy,
            secrets,
            delivered,
            unsupported,
            ends,
            sandboxes,
        };
        self.put(&held);
        self.policies.insert(id, held);
        principal
    }

    /// What counts for a principal, as things stand.
    fn put(&self, held: &Held) {
        let (policy, secrets) = match self.standing {
            Stand::Waiting | Stand::InForce => (Arc::clone(&held.policy), held.secrets.clone()),
            Stand::Stale | Stand::Revoked => {
                (Arc::new(self.closed_for_all(held.policy.generation())), Vec::new())
            }
        };
        held.principal.put(generation(policy, secrets, &self.file.base));
    }

    fn closed_for_all(&self, number: u64) -> Policy {
        let policy = match self.standing {
            Stand::Stale => {
                let minutes = self.max_staleness.as_secs_f64() / 60.0;
                closed(
                    Reason::PolicyStale,
                    &format!("the control service has not confirmed the policy for {minutes:.0} minutes"),
                )
            }
            Stand::Revoked => closed(Reason::ProxyRevoked, "the control service has revoked this proxy"),
            Stand::Waiting | Stand::InForce => {
                closed(Reason::PolicyNotReady, "the control service has sent no policy yet")
            }
        };
        policy.numbered(number)
    }

    /// Control stands by what it told, or did so this long ago.
    pub(super) fn confirm(&mut self, ago: Duration) {
        self.confirmed = Instant::now().checked_sub(ago);
        let before = std::mem::replace(&mut self.standing, Stand::InForce);
        if before == Stand::Stale {
            tracing::info!("the control service is back, and the policy counts again");
            self.policies.values().for_each(|held| self.put(held));
        }
    }

    /// What is held was confirmed so long ago, by what is written: not by control.
    pub(super) fn restored(&mut self, ago: Duration) {
        self.confirm(ago);
        // Where that is before the clock began, it is too old: [`Enforcer::tick`] takes no time for one that is over.
        self.tick(Timestamp::now());
    }

    /// How long ago control stood by what it told.
    pub(super) fn age(&self) -> Option<Duration> {
        self.confirmed.map(|at| at.elapsed())
    }

    /// Drops everything, at once.
    pub(super) fn revoke(&mut self) {
        tracing::error!("the control service has revoked this proxy; everything is refused");
        self.standing = Stand::Revoked;
        (self.state, self.serves, self.next) = (None, None, None);
        self.ends.clear();
        self.nobody.put(generation(Arc::new(self.closed_for_all(0)), Vec::new(), &self.file.base));
        let policies = std::mem::take(&mut self.policies);
        {
            let mut who = self.identity.change();
            *who = Who::One(Arc::clone(&self.nobody), None);
            policies.values().for_each(|held| self.put(held));
        }
        policies.values().flat_map(|held| held.sandboxes.values()).for_each(Sandbox::end);
        report(policies.values().map(|held| held.principal.judge_again()));
        drop(policies);
        self.sources.retain_used();
    }

    /// Ends what has ended by our own clock, whether or not control is there to say so. Says how long nothing more will.
    pub(super) fn tick(&mut self, now: Timestamp) -> Duration {
        if self.standing == Stand::InForce && self.age().is_none_or(|age| age >= self.max_staleness) {
            tracing::error!("the control service has not been heard for too long; everything is refused");
            self.standing = Stand::Stale;
            self.policies.values().for_each(|held| self.put(held));
            report(self.policies.values().map(|held| held.principal.judge_again()));
        }
        while let Some((end, thing)) = self.ends.first().filter(|(end, _)| *end <= now).cloned() {
            self.ends.remove(&(end, thing.clone()));
            match thing {
                Thing::Policy(id) => self.compile_again(&id, now),
                Thing::Sandbox { policy, id } => {
                    let Some(held) = self.policies.get_mut(&policy) else { continue };
                    let ended = |it: &Arc<Sandbox>| it.told.not_after.is_some_and(|end| end <= now);
                    if !held.sandboxes.get(&id).is_some_and(ended) {
                        continue;
                    }
                    let Some(sandbox) = held.sandboxes.remove(&id) else { continue };
                    if let Who::Sandboxes(known) = &mut *self.identity.change() {
                        known.remove(&id);
                    }
                    sandbox.end();
                }
            }
        }
        let again = std::mem::take(&mut self.without_socket);
        self.open_sockets(again);
        let until_stale = match self.standing {
            Stand::InForce => self.age().map(|age| self.max_staleness.saturating_sub(age)),
            Stand::Waiting | Stand::Stale | Stand::Revoked => None,
        };
        let until_end =
            self.ends.first().map(|(end, _)| Duration::try_from(end.duration_since(now)).unwrap_or_default());
        until_stale.into_iter().chain(until_end).min().unwrap_or(Duration::MAX)
    }

    /// The proxy's own file says something else now.
    pub(crate) fn rebase(&mut self, file: FileSide, max_staleness: Duration) -> Ended {
        let ports = self.file.allowed_ports != file.allowed_ports;
        (self.file, self.max_staleness) = (file, max_staleness);
        let policy = Arc::clone(&self.nobody.generation.load().policy);
        self.nobody.put(generation(policy, Vec::new(), &self.file.base));
        if self.serves == Some(Serves::Dedicated)
            && let Who::One(_, credentials) = &mut *self.identity.change()
        {
            credentials.clone_from(&self.file.credentials);
        }
        let mut ended = Ended::default();
        if ports {
            let ids: Vec<String> = self.policies.keys().cloned().collect();
            ids.iter().for_each(|id| self.compile_again(id, Timestamp::now()));
        }
        for held in self.policies.values() {
            self.put(held);
            ended += held.principal.judge_again();
        }
        ended
    }

    /// The same policy, as it is at another time or on other ports.
    fn compile_again(&mut self, id: &str, now: Timestamp) {
        let Some(held) = self.policies.get(id) else { return };
        let of = Arc::clone(&held.of);
        let number = held.policy.generation();
        let compiled = compile(&of, self.file.allowed_ports.as_ref(), &self.sources, &held.delivered, now);
        let principal = self.hold(id.to_owned(), of, compiled, number);
        report(std::iter::once(principal.judge_again()));
    }

    fn forget(&mut self, sandbox: &Arc<Sandbox>) {
        if let Some(held) = self.policies.get_mut(&sandbox.told.policy) {
            held.sandboxes.remove(&*sandbox.id);
        }
        if let Some(end) = sandbox.told.not_after {
            self.ends.remove(&(end, thing(sandbox)));
        }
    }
}

fn thing(sandbox: &Sandbox) -> Thing {
    Thing::Sandbox { policy: sandbox.told.policy.clone(), id: (*sandbox.id).into() }
}

fn generation(policy: Arc<Policy>, secrets: Vec<Arc<SecretHandle>>, base: &Base) -> data_plane::Generation {
    data_plane::Generation::new(policy, secrets, base)
}

fn report(ended: impl Iterator<Item = Ended>) {
    let mut all = Ended::default();
    ended.for_each(|some| all += some);
    if all != Ended::default() {
        let Ended { tunnels, exchanges } = all;
        tracing::info!(tunnels, exchanges, "a new policy ended what it does not allow");
    }
}

#[cfg(test)]
mod tests;
