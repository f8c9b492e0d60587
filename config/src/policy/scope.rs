//! What a policy says about one destination, and through that about each request to it.

mod placement;

use std::sync::Arc;

use http::header::HeaderName;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::Reason;
use super::compile::{Policy, RuleList};
use super::destination::Destination;
use super::foreign::credential_headers;
use super::host::Host;
use super::path::{NormalPath, PathFault};
use super::rule::CompiledRule;
use super::tunnel::{denied, host_refused, port_refused};
use super::unsupported::ScopedUse;
use super::verdict::{Plan, Refusal, RequestHead, Verdict};
use crate::document::{Action, Source};

/// The rules and secrets of one policy that concern one destination.
///
/// Made once per tunnel, so that deciding a request looks nothing up by name and, where no placeholder is found, allocates nothing.
#[derive(Debug)]
pub struct Scope {
    policy: Arc<Policy>,
    destination: Destination,
    lists: SmallVec<[ScopedList; 1]>,
    /// By number, ascending.
    secrets: Vec<ScopedSecret>,
    /// Some deny rule of this host names paths, so a path must have one reading only.
    path_denied: bool,
    /// Empty where no secret is bound.
    pub(super) credential_headers: Vec<HeaderName>,
    exempt: Vec<IpNet>,
    /// What it asks for here and nobody can run; mostly nothing.
    unsupported: Vec<ScopedUse>,
}

#[derive(Debug)]
struct ScopedList {
    allow: SmallVec<[u32; 4]>,
    deny: SmallVec<[u32; 4]>,
    /// An allow rule names the host, for another port or scheme.
    other_port: bool,
    warn: bool,
}

/// A secret that is bound to the destination, by numbers of `Policy::secret_rules`.
#[derive(Debug)]
struct ScopedSecret {
    secret: u32,
    allow: SmallVec<[u32; 2]>,
    deny: SmallVec<[u32; 2]>,
}

impl Scope {
    /// Narrows `policy` to `destination`.
    pub fn new(policy: Arc<Policy>, destination: Destination) -> Self {
        let lists: SmallVec<[ScopedList; 1]> =
            policy.lists.iter().map(|list| ScopedList::new(list, &policy, &destination)).collect();
        let secrets = scoped_secrets(&policy, &destination);
        let path_denied =
            policy.lists.iter().zip(&lists).any(|(list, scoped)| {
                scoped.deny.iter().any(|&deny| list.rules[deny as usize].names_paths())
            }) || secrets
                .iter()
                .any(|s| s.deny.iter().any(|&deny| policy.secret_rules[deny as usize].1.names_paths()));
        let named = policy.lists.iter().zip(&lists);
        let exempt = named
            .flat_map(|(list, scoped)| scoped.allow.iter().filter_map(|allow| list.nets.get(allow)))
            .copied()
            .collect();
        let credential_headers = credential_headers(secrets.iter().map(|s| policy.secret(s.secret)));
        let uses = policy.unsupported.iter();
        let unsupported = uses.filter_map(|it| it.at(&destination, &policy.extra_ports)).collect();
        Self { policy, destination, lists, secrets, path_denied, credential_headers, exempt, unsupported }
    }

    /// The policy that this is a part of.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The destination that this is about.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The networks that an operator opened by naming them in a `cidr` rule that allows this destination. Only a request that names
    /// the address itself is allowed by such a rule, so a name that resolves into the network is not exempt.
    pub fn exempt_networks(&self) -> &[IpNet] {
        &self.exempt
    }

    /// Decides one request to the destination.
    pub fn decide(&self, request: &RequestHead<'_>) -> Verdict {
        match self.plan(request) {
            Ok(plan) => Verdict::Forward(plan),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn plan(&self, request: &RequestHead<'_>) -> Result<Plan, Refusal> {
        if let Some(refusal) = &self.policy.closed {
            return Err(refusal.clone());
        }
        let path = self.path(request)?;
        let mut plan = Plan::default();
        self.judge(request, &path, &mut plan)?;
        if let Some(missing) = self.unsupported.iter().find(|missing| missing.applies(request, &path)) {
            return Err(missing.refusal(&self.destination.host));
        }
        if self.policy.secrets.is_empty() {
            return Ok(plan);
        }
        let active: SmallVec<[u32; 4]> = self.active_secrets(request, &path);
        self.plan_target(request, &active, &mut plan)?;
        self.plan_headers(request, &active, &mut plan)?;
        self.plan_injections(&active, &mut plan);
        self.plan_foreign(request, &path, &active, &mut plan)?;
        self.plan_body(&active, &mut plan)?;
        Ok(plan)
    }

    fn path<'a>(&self, request: &RequestHead<'a>) -> Result<NormalPath<'a>, Refusal> {
        let raw = request.target.split_once('?').map_or(request.target, |(path, _)| path);
        let path = NormalPath::parse(raw).map_err(|fault| match fault {
            PathFault::DotSegment => Refusal::new(
                Reason::AmbiguousRequest,
                "the path holds a `.` or `..` segment, which servers resolve differently",
            ),
            PathFault::Control => {
                Refusal::new(Reason::MalformedRequest, "the path holds a control character")
            }
            PathFault::NotAbsolute => {
                Refusal::new(Reason::MalformedRequest, "the path does not begin with `/`")
            }
        })?;
        if path.ambiguous && self.path_denied {
            let message =
                "the path holds `;`, `\\` or an encoded separator, and a rule denies paths of this host";
            return Err(Refusal::new(Reason::AmbiguousRequest, message));
        }
        Ok(path)
    }

    /// The allowlists: every one must let the request pass, any deny stops it.
    fn judge(
        &self,
        request: &RequestHead<'_>,
        path: &NormalPath<'_>,
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        let matches = |rule: &CompiledRule| rule.allows_method(request.method) && rule.allows_path(path);
        for (scoped, list) in self.lists.iter().zip(&self.policy.lists) {
            let rule = |number: &u32| &list.rules[*number as usize];
            if let Some(deny) = scoped.deny.iter().map(rule).find(|rule| matches(rule)) {
                return Err(denied(deny, &self.destination.host));
            }
            match scoped.allow.iter().map(rule).find(|rule| matches(rule)) {
                Some(allow) => plan.rule = plan.rule.take().or_else(|| Some(allow.name.clone())),
                None if scoped.warn => plan.warned = true,
                None if self.policy.default_action == Action::Allow && self.default_port() => {}
                None => return Err(self.not_allowed(scoped, scoped.allow.iter().map(rule), request)),
            }
        }
        if self.lists.is_empty() {
            match self.policy.default_action {
                Action::Allow if self.default_port() => {}
                Action::Allow => return Err(port_refused(&self.destination.host, self.destination.port)),
                Action::Deny => return Err(host_refused(&self.destination.host)),
            }
        }
        Ok(())
    }

    fn default_port(&self) -> bool {
        self.destination.port == self.destination.scheme.default_port()
            || self.policy.port_is_extra(self.destination.port)
    }

    fn not_allowed<'p>(
        &self,
        scoped: &ScopedList,
        mut allow: impl Iterator<Item = &'p CompiledRule>,
        request: &RequestHead<'_>,
    ) -> Refusal {
        let Destination { host, port, scheme } = &self.destination;
        if scoped.allow.is_empty() {
            return match (scoped.other_port, self.policy.default_action) {
                (false, Action::Deny) => host_refused(host),
                (true, _) | (false, Action::Allow) => Refusal::new(
                    Reason::PortNotAllowed,
                    format!("{} on port {port} of {host} is not allowed by any rule", scheme.as_str()),
                ),
            };
        }
        if allow.any(|rule| rule.allows_method(request.method)) {
            Refusal::new(
                Reason::PathNotAllowed,
                format!("no rule allows {} of this path of {host}", request.method),
            )
        } else {
            Refusal::new(Reason::MethodNotAllowed, format!("no rule allows {} to {host}", request.method))
        }
    }

    /// Every rule that lets this request pass or lends it one of the `active` secrets.
    pub(super) fn rules_that_allow<'a>(
        &'a self,
        request: &'a RequestHead<'_>,
        path: &'a NormalPath<'_>,
        active: &'a [u32],
    ) -> impl Iterator<Item = &'a CompiledRule> {
        let lists = self.lists.iter().zip(&self.policy.lists);
        let egress =
            lists.flat_map(|(scoped, list)| scoped.allow.iter().map(|&rule| &list.rules[rule as usize]));
        let secrets = self.secrets.iter().filter(|scoped| active.contains(&scoped.secret));
        let lent = secrets.flat_map(|scoped| &scoped.allow);
        egress
            .chain(lent.map(|&rule| &self.policy.secret_rules[rule as usize].1))
            .filter(|rule| rule.allows_method(request.method) && rule.allows_path(path))
    }

    /// The secrets whose rules match this very request, by number.
    fn active_secrets<A: smallvec::Array<Item = u32>>(
        &self,
        request: &RequestHead<'_>,
        path: &NormalPath<'_>,
    ) -> SmallVec<A> {
        let matches = |number: &u32| {
            let rule = &self.policy.secret_rules[*number as usize].1;
            rule.allows_method(request.method) && rule.allows_path(path)
        };
        let active =
            |scoped: &&ScopedSecret| scoped.allow.iter().any(matches) && !scoped.deny.iter().any(matches);
        self.secrets.iter().filter(active).map(|scoped| scoped.secret).collect()
    }

    /// The secrets whose values the responses of the destination must not hold (invariant 7): those that are bound to it, but for
    /// `redact_responses: false`. Ascending.
    pub fn redacted_secrets(&self) -> impl Iterator<Item = u32> + '_ {
        self.secrets
            .iter()
            .map(|scoped| scoped.secret)
            .filter(|&number| self.policy.secret(number).redact_responses)
    }

    /// Whether there are any.
    pub fn redacts(&self) -> bool {
        self.redacted_secrets().next().is_some()
    }

    /// Whether a secret is bound to the destination, whatever the method and path.
    pub(super) fn binds(&self, secret: u32) -> bool {
        self.secrets.iter().any(|scoped| scoped.secret == secret)
    }

    /// Whether the rules of a secret match this request.
    pub(super) fn is_active(&self, secret: u32, request: &RequestHead<'_>) -> bool {
        self.path(request).is_ok_and(|path| self.active_secrets::<[u32; 4]>(request, &path).contains(&secret))
    }

    /// Whether some secret from `source` may go into a request like this one.
    pub fn grants(&self, source: &Source, request: &RequestHead<'_>) -> bool {
        self.path(request).is_ok_and(|path| {
            let active = self.active_secrets::<[u32; 4]>(request, &path);
            active.iter().any(|&number| **self.policy.secret(number).source() == *source)
        })
    }
}

impl Policy {
    /// Whether some rule of a secret names the host, on whatever port.
    pub(super) fn names_host(&self, secret: u32, host: &Host) -> bool {
        self.secret_index.lookup(host).iter().any(|&hit| self.secret_rules[hit as usize].0 == secret)
    }
}

impl ScopedList {
    fn new(list: &RuleList, policy: &Policy, destination: &Destination) -> Self {
        let mut scoped =
            Self { allow: SmallVec::new(), deny: SmallVec::new(), other_port: false, warn: list.warn };
        for hit in list.index.lookup(&destination.host) {
            let rule = &list.rules[hit as usize];
            let covers = rule.covers(destination.scheme, destination.port, &policy.extra_ports);
            match rule.action {
                Action::Allow if covers => scoped.allow.push(hit),
                Action::Allow => scoped.other_port = true,
                Action::Deny if covers => scoped.deny.push(hit),
                Action::Deny => {}
            }
        }
        scoped
    }
}

fn scoped_secrets(policy: &Policy, destination: &Destination) -> Vec<ScopedSecret> {
    let mut secrets: Vec<ScopedSecret> = Vec::new();
    // Rules are numbered in the order of their secrets, so those of one secret are neighbours.
    for hit in policy.secret_index.lookup(&destination.host) {
        let (secret, rule) = &policy.secret_rules[hit as usize];
        if !rule.covers(destination.scheme, destination.port, &policy.extra_ports) {
            continue;
        }
        if secrets.last().is_none_or(|last| last.secret != *secret) {
            secrets.push(ScopedSecret { secret: *secret, allow: SmallVec::new(), deny: SmallVec::new() });
        }
        let last = secrets.last_mut().expect("one was pushed if there was none");
        match rule.action {
            Action::Allow => last.allow.push(hit),
            Action::Deny => last.deny.push(hit),
        }
    }
    let whole = |deny: &u32| {
        let rule = &policy.secret_rules[*deny as usize].1;
        !rule.names_methods() && !rule.names_paths()
    };
    secrets.retain(|scoped| !scoped.allow.is_empty() && !scoped.deny.iter().any(whole));
    secrets
}
