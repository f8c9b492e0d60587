//! One record, judged again.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use keyferry_config::policy::{
    Destination, Host, Location, Placement, Plan, Policy, Reason, RequestHead, Scheme, Scope, TunnelVerdict,
    Verdict,
};
use keyferry_contract::audit::{Annotations, Record};

/// Asks policies about requests of which only the records are left.
pub(crate) struct Judge {
    new: Arc<Policy>,
    old: Option<Arc<Policy>>,
}

/// What became of a request, and what would become of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Decided {
        before: Decision,
        after: Decision,
    },
    /// The record does not hold enough.
    Undecided(&'static str),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// None: it is sent on.
    pub(super) refused: Option<Reason>,
    /// `NAME at PLACE`.
    pub(super) carried: BTreeSet<String>,
}

/// Where in the way of a request its record says that it ended.
enum Ended {
    /// It was sent on, or stopped by something that comes after the policy.
    Forwarded,
    Refused(Reason),
    NotJudged(&'static str),
}

const ANOTHER: &str = "refused for a reason that this version does not know";
const BEFORE_THE_POLICY: &str = "refused before a policy was asked";
const WHERE_IT_STOOD: &str = "refused for a header or a body that no record holds";
const NO_REQUEST: &str = "no request could be read";

impl Judge {
    pub(crate) fn new(new: Arc<Policy>, old: Option<Arc<Policy>>) -> Self {
        Self { new, old }
    }

    pub(crate) fn judge(&self, record: &Record<'_>) -> Judged {
        let Some(request) = Request::of(record, self.old.as_ref().unwrap_or(&self.new)) else {
            return Judged::Undecided(NO_REQUEST);
        };
        let after = request.decide(&self.new);
        let before = match (ended(record), &self.old) {
            (Ended::NotJudged(why), _) => return Judged::Undecided(why),
            (Ended::Forwarded | Ended::Refused(_), Some(old)) => request.decide(old),
            (Ended::Refused(reason), None) => Decision { refused: Some(reason), ..Decision::default() },
            (Ended::Forwarded, None) => Decision {
                refused: None,
                // A value that could not be had is recorded without its place, and no longer looked for.
                carried: match request.unavailable {
                    true => after.carried.clone(),
                    false => request.carried,
                },
            },
        };
        let hidden =
            [Reason::PlaceholderMisdirected, Reason::ForeignCredential].map(Some).contains(&before.refused);
        if hidden && after.refused.is_none() {
            return Judged::Undecided(WHERE_IT_STOOD);
        }
        // What is carried matters only where it leaves.
        let carried = |decision: Decision| match decision.refused {
            Some(_) => Decision { carried: BTreeSet::new(), ..decision },
            None => decision,
        };
        Judged::Decided { before: carried(before), after: carried(after) }
    }
}

impl Decision {
    pub(super) fn verdict(&self) -> String {
        self.refused.map_or("forward".to_owned(), |reason| format!("refuse {reason}"))
    }
}

fn ended(record: &Record<'_>) -> Ended {
    use Reason::{
        AddressDenied, AmbiguousRequest, AuditFull, BodyTooLarge, CodingNotSwappable, DestinationMismatch,
        ForeignCredential, HeadTooLarge, HostNotAllowed, LoopDetected, MalformedRequest, MethodNotAllowed,
        Overloaded, PathNotAllowed, PlaceholderMisdirected, PlaceholderMissing, PolicyChanged,
        PolicyIncompatible, PolicyNotReady, PolicyStale, PortNotAllowed, ProxyAuthRequired, ProxyRevoked,
        ProxyUnassigned, RequestTimeout, SecretUnavailable, TargetTooLong, TransformUnsupported,
        UpstreamConnect, UpstreamDns, UpstreamProtocol, UpstreamReset, UpstreamTimeout, UpstreamTls,
        WebsocketViolation,
    };
    let Some(code) = &record.audit.reason else { return Ended::Forwarded };
    let Some(reason) = Reason::of_code(code) else { return Ended::NotJudged(ANOTHER) };
    match reason {
        HostNotAllowed
        | PortNotAllowed
        | MethodNotAllowed
        | PathNotAllowed
        | PlaceholderMisdirected
        | PlaceholderMissing
        | ForeignCredential => Ended::Refused(reason),
        AddressDenied | SecretUnavailable | TransformUnsupported | PolicyChanged | BodyTooLarge
        | CodingNotSwappable | UpstreamDns | UpstreamConnect | UpstreamTls | UpstreamReset
        | UpstreamProtocol | UpstreamTimeout | WebsocketViolation => Ended::Forwarded,
        // Of a body that stood still, or broke off, the record names the rule that had let it pass.
        RequestTimeout | MalformedRequest if record.audit.rule.is_some() => Ended::Forwarded,
        AmbiguousRequest | LoopDetected | MalformedRequest | DestinationMismatch | ProxyAuthRequired
        | RequestTimeout | TargetTooLong | HeadTooLarge | PolicyNotReady | PolicyStale | ProxyUnassigned
        | PolicyIncompatible | ProxyRevoked | Overloaded | AuditFull => Ended::NotJudged(BEFORE_THE_POLICY),
    }
}

/// A request as far as its record tells: placeholders stand where it says that they were swapped.
struct Request {
    host: Host,
    port: u16,
    /// None for a CONNECT of its own.
    inner: Option<Inner>,
    tunnelled: bool,
    carried: BTreeSet<String>,
    unavailable: bool,
}

struct Inner {
    scheme: Scheme,
    method: Method,
    target: String,
    headers: HeaderMap,
}

impl Request {
    /// The request, with placeholders as `placeholders` has them for the secrets that the record names.
    fn of(record: &Record<'_>, placeholders: &Policy) -> Option<Self> {
        let audit = &record.audit;
        let host = match audit.host.contains(':') {
            true => Host::parse_authority(&format!("[{}]", audit.host)),
            false => Host::parse_authority(&audit.host),
        };
        let ((host, _), port) = (host.ok()?, audit.port?);
        let annotations = record.request_transforms.iter().map(|transform| &transform.annotations);
        let unavailable = annotations.clone().any(|annotations| !annotations.secret_unavailable.is_empty());
        let mut carried = BTreeSet::new();
        let mut placed = Placed { query: String::new(), headers: HeaderMap::new() };
        for annotations in annotations {
            for used in annotations.swapped.iter().chain(&annotations.injected) {
                carried.extend(used.locations.iter().map(|place| format!("{} at {place}", used.secret)));
            }
            carried.extend(annotations.foreign_passed.iter().map(|place| own("passed", place)));
            carried.extend(annotations.foreign_stripped.iter().map(|place| own("stripped", place)));
            placed.place(annotations, placeholders);
        }
        let inner = match audit.mode.as_ref() {
            "tunnel" => None,
            _ => Some(Inner {
                scheme: match audit.scheme.as_deref()? {
                    "https" => Scheme::Https,
                    "http" => Scheme::Http,
                    _ => return None,
                },
                method: audit.method.parse().ok()?,
                target: format!("{}{}", audit.path, placed.query),
                headers: placed.headers,
            }),
        };
        Some(Self { host, port, inner, tunnelled: record.tunnel.is_some(), carried, unavailable })
    }

    fn decide(&self, policy: &Arc<Policy>) -> Decision {
        let refused = |reason| Decision { refused: Some(reason), carried: BTreeSet::new() };
        if self.tunnelled || self.inner.is_none() {
            match policy.decide_tunnel(&self.host, self.port) {
                TunnelVerdict::Open(_) => {}
                TunnelVerdict::Refuse(refusal) => return refused(refusal.reason),
            }
        }
        let Some(Inner { scheme, method, target, headers }) = &self.inner else { return Decision::default() };
        let destination = Destination { scheme: *scheme, host: self.host.clone(), port: self.port };
        let head = RequestHead { method, target, headers };
        match Scope::new(Arc::clone(policy), destination).decide(&head) {
            Verdict::Forward(plan) => Decision { refused: None, carried: self.carried(&plan, policy) },
            Verdict::Refuse(refusal) => refused(refusal.reason),
        }
    }

    fn carried(&self, plan: &Plan, policy: &Policy) -> BTreeSet<String> {
        let mut carried = BTreeSet::new();
        for (number, secret) in (0..).zip(policy.secrets()) {
            let name = secret.name();
            carried.extend(plan.locations_of(number).map(|place| format!("{name} at {place}")));
            let injected = secret.injected_at().filter(|_| plan.injections.contains(&number));
            carried.extend(injected.map(|place| format!("{name} at {place}")));
            // Whether a body holds a placeholder is known only of those that did.
            let body = format!("{name} at {}", Location::Body);
            if plan.body.contains(&number) && self.carried.contains(&body) {
                carried.insert(body);
            }
        }
        if let Some(foreign) = &plan.foreign {
            let outcome = if foreign.stripped { "stripped" } else { "passed" };
            carried.extend(foreign.locations().map(|place| own(outcome, &place)));
        }
        carried
    }
}

fn own(outcome: &str, place: &Location) -> String {
    format!("the client's own credentials {outcome} at {place}")
}

/// What a record lets us put back.
struct Placed {
    query: String,
    headers: HeaderMap,
}

impl Placed {
    fn place(&mut self, annotations: &Annotations<'_>, policy: &Policy) {
        for used in &annotations.swapped {
            let Some(placeholder) = placeholder_of(&used.secret, policy) else { continue };
            for place in used.locations.iter() {
                match place {
                    Location::Header(name) => self.header(name, placeholder),
                    Location::Query(key) => {
                        self.query.push(if self.query.is_empty() { '?' } else { '&' });
                        self.query.extend([key, "=", placeholder]);
                    }
                    // The path is recorded as it was sent, and a body is none of the head's.
                    Location::Path | Location::Body => {}
                }
            }
        }
        for place in annotations.foreign_passed.iter().chain(&annotations.foreign_stripped) {
            if let Location::Header(name) = place {
                self.header(name, "the client's own");
            }
        }
    }

    fn header(&mut self, name: &HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name.clone(), value);
        }
    }
}

fn placeholder_of<'p>(name: &str, policy: &'p Policy) -> Option<&'p str> {
    policy.secrets().iter().filter(|secret| **secret.name() == *name).find_map(|secret| {
        match secret.placement() {
            Placement::Replace(replace) => Some(policy.placeholders().text(replace.placeholder)),
            Placement::Header(..) | Placement::Query(..) => None,
        }
    })
}
