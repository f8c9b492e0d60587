//! Why a request would be forwarded or refused, and what each secret would do: the same decision, told at length.

use std::sync::Arc;

use serde::Serialize;

use super::basic::credentials;
use super::verdict::{Location, Plan, RequestHead, TunnelVerdict, Verdict};
use super::{Destination, Placement, Policy, Scope, Secret};

/// The decision on one request, for people and for tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The method.
    pub method: String,
    /// Scheme, host, port and target.
    pub url: String,
    /// `forward` or `refuse`.
    pub verdict: &'static str,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// An allowlist with `warn: true` let pass what no rule allows.
    pub warned: bool,
    /// The code of the refusal.
    pub reason: Option<&'static str>,
    /// What is wrong with this request.
    pub message: Option<String>,
    /// What to do about it.
    pub hint: Option<&'static str>,
    /// Credentials of the client's own on the way to a destination that has a secret.
    pub foreign_credentials: Option<ForeignExplanation>,
    /// Each secret of the policy, in the order of the document.
    pub secrets: Vec<SecretExplanation>,
}

/// What becomes of credentials of the client's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignExplanation {
    /// `passed` or `stripped`.
    pub outcome: &'static str,
    /// Where they stand.
    pub locations: Vec<String>,
}

/// What one secret does to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretExplanation {
    /// Its name.
    pub secret: String,
    /// `swapped`, `injected`, `searched` (the body decides) or `unused`.
    pub outcome: &'static str,
    /// Where its value would go.
    pub locations: Vec<String>,
    /// Why.
    pub why: String,
}

impl Policy {
    /// Explains one request to `destination`: the tunnel to it (for https) and the request itself.
    pub fn explain(self: &Arc<Self>, destination: &Destination, request: &RequestHead<'_>) -> Explanation {
        let scope = Scope::new(Arc::clone(self), destination.clone());
        let tunnel = self.decide_tunnel(&destination.host, destination.port);
        let verdict = match (destination.scheme, tunnel) {
            (super::Scheme::Https, TunnelVerdict::Refuse(refusal)) => Verdict::Refuse(refusal),
            (super::Scheme::Https, TunnelVerdict::Open(_)) | (super::Scheme::Http, _) => {
                scope.decide(request)
            }
        };
        let mut explanation = Explanation {
            method: request.method.to_string(),
            url: format!("{destination}{}", request.target),
            verdict: "forward",
            rule: None,
            warned: false,
            reason: None,
            message: None,
            hint: None,
            foreign_credentials: None,
            secrets: Vec::new(),
        };
        match verdict {
            Verdict::Forward(plan) => {
                explanation.rule = plan.rule.as_ref().map(|rule| rule.as_str().to_owned());
                explanation.warned = plan.warned;
                explanation.foreign_credentials = plan.foreign.as_deref().map(|foreign| ForeignExplanation {
                    outcome: if foreign.stripped { "stripped" } else { "passed" },
                    locations: foreign.locations().map(|location| location.to_string()).collect(),
                });
                explanation.secrets = (0..)
                    .zip(&self.secrets)
                    .map(|(number, secret)| scope.explain_secret(number, secret, &plan, request))
                    .collect();
            }
            Verdict::Refuse(refusal) => {
                explanation.verdict = "refuse";
                explanation.rule = refusal.rule.map(|rule| rule.as_str().to_owned());
                explanation.reason = Some(refusal.reason.code());
                explanation.message = Some(refusal.message);
                explanation.hint = Some(refusal.reason.hint());
            }
        }
        explanation
    }
}

impl Plan {
    /// Where the value of a secret goes, the body left aside.
    pub fn locations_of(&self, secret: u32) -> impl Iterator<Item = Location> + '_ {
        let headers =
            self.headers.iter().filter(move |swap| swap.hits.iter().any(|hit| hit.secret == secret));
        let target = self.target.iter().filter(move |swap| swap.hit.secret == secret);
        headers
            .map(|swap| Location::Header(swap.name.clone()))
            .chain(target.map(|swap| Location::from(&swap.place)))
    }
}

impl Secret {
    /// Where an injected value goes; none for a placeholder.
    pub fn injected_at(&self) -> Option<Location> {
        match &self.placement {
            Placement::Header(name, _) => Some(Location::Header(name.clone())),
            Placement::Query(name, _) => Some(Location::Query(name.clone())),
            Placement::Replace(_) => None,
        }
    }
}

impl Scope {
    fn explain_secret(
        &self,
        number: u32,
        secret: &Secret,
        plan: &Plan,
        request: &RequestHead<'_>,
    ) -> SecretExplanation {
        let (outcome, locations, why) = self.outcome(number, secret, plan, request);
        let locations = locations.iter().map(Location::to_string).collect();
        SecretExplanation { secret: secret.name.to_string(), outcome, locations, why }
    }

    fn outcome(
        &self,
        number: u32,
        secret: &Secret,
        plan: &Plan,
        request: &RequestHead<'_>,
    ) -> (&'static str, Vec<Location>, String) {
        let destination = self.destination();
        let host = &destination.host;
        let unused = |why: String| ("unused", Vec::new(), why);
        if !self.binds(number) {
            let named = self.policy().names_host(number, host);
            return unused(if named {
                format!(
                    "its rules name {host} for other ports or schemes; without `schemes` a secret travels over https only"
                )
            } else {
                format!("none of its rules names {host}")
            });
        }
        if !self.is_active(number, request) {
            return unused("its rules do not match this method and path".to_owned());
        }
        let Placement::Replace(replace) = &secret.placement else {
            let at = Vec::from_iter(secret.injected_at());
            return if plan.injections.contains(&number) {
                ("injected", at, "its rules match the request".to_owned())
            } else {
                unused(format!("a secret of higher priority is set at {}", at[0]))
            };
        };
        let locations: Vec<Location> = plan.locations_of(number).collect();
        if !locations.is_empty() {
            return ("swapped", locations, "its placeholder is in the request".to_owned());
        }
        if plan.body.contains(&number) {
            return (
                "searched",
                vec![Location::Body],
                "its placeholder is looked for in the body".to_owned(),
            );
        }
        let text = self.policy().placeholders.text(replace.placeholder);
        unused(match self.elsewhere(replace.placeholder, request) {
            Some(place) => match self.policy().by_placeholder[replace.placeholder as usize].first() {
                Some(&first) if first != number && plan.locations_of(first).next().is_some() => {
                    format!(
                        "{} has the same placeholder and a higher priority",
                        self.policy().secret(first).name
                    )
                }
                _ => format!("{text:?} stands in {place}, which its entry does not search"),
            },
            None => format!("the request does not hold {text:?}"),
        })
    }

    /// Where a placeholder stands, swapped or not.
    fn elsewhere(&self, placeholder: u32, request: &RequestHead<'_>) -> Option<String> {
        let placeholders = &self.policy().placeholders;
        let in_target =
            placeholders.find_in_target(request.target).iter().any(|found| found.placeholder == placeholder);
        if in_target {
            return Some("the request target".to_owned());
        }
        let mut headers = request.headers.iter();
        headers
            .find(|(_, value)| {
                placeholders.find_in(&credentials(value).0).any(|found| found.placeholder == placeholder)
            })
            .map(|(name, _)| format!("header {name}"))
    }
}
