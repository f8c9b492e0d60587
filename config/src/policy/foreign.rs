//! Credentials that the client brought itself, on their way to a destination that has secrets of ours: an account of somebody else's is a
//! way out for data (T51).

use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, HOST};

use super::path::NormalPath;
use super::rule::{CompiledRule, RuleName};
use super::secret::{HeaderSelector, Placement, Secret};
use super::verdict::{Location, Plan, Refusal, RequestHead};
use super::{Reason, Scope};
use crate::document::{ForeignCredentials, OnUnavailable};

/// Credentials of the client's own in a request that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The header values, by name and by which of the values of that name, from 0.
    pub headers: Vec<(HeaderName, usize)>,
    /// They are taken out of the request.
    pub stripped: bool,
}

impl Foreign {
    /// Where they stand, each place once.
    pub fn locations(&self) -> impl Iterator<Item = Location> + '_ {
        let names = self.headers.chunk_by(|(one, _), (other, _)| one == other);
        names.map(|values| Location::Header(values[0].0.clone()))
    }
}

/// The headers in which credentials for a destination travel: `Authorization`, and what the secrets that are bound to it are set in or
/// looked for in by name. A regular expression names nothing: it would take half of a request for credentials.
pub(super) fn credential_headers<'a>(bound: impl Iterator<Item = &'a Secret>) -> Vec<HeaderName> {
    let mut headers = Vec::new();
    let mut add = |name: &HeaderName| {
        if name != HOST && !headers.contains(name) {
            headers.push(name.clone());
        }
    };
    for secret in bound {
        add(&AUTHORIZATION);
        match &secret.placement {
            Placement::Header(name, _) => add(name),
            Placement::Replace(replace) => match &replace.headers {
                HeaderSelector::Some { names, .. } => names.iter().for_each(&mut add),
                HeaderSelector::All => {}
            },
            Placement::Query(..) => {}
        }
    }
    headers
}

impl Scope {
    /// Looks for credentials of the client's own once it is planned what is swapped and set, and asks the rules about them.
    pub(super) fn plan_foreign(
        &self,
        request: &RequestHead<'_>,
        path: &NormalPath<'_>,
        active: &[u32],
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        let mut headers = Vec::new();
        for name in self.credential_headers.iter().filter(|name| !self.is_set(name, plan)) {
            for (nth, value) in request.headers.get_all(name).iter().enumerate() {
                let swapped = plan.headers.iter().any(|swap| swap.name == *name && swap.nth == nth);
                if !swapped && !value.is_empty() {
                    headers.push((name.clone(), nth));
                }
            }
        }
        let Some((first, _)) = headers.first() else { return Ok(()) };
        let mut strictest: Option<&CompiledRule> = None;
        for rule in self.rules_that_allow(request, path, active) {
            if strictest.is_none_or(|known| known.foreign_credentials < rule.foreign_credentials) {
                strictest = Some(rule);
            }
        }
        match strictest.map(|rule| (rule.foreign_credentials, &rule.name)) {
            Some((ForeignCredentials::Deny, rule)) => Err(self.denied_credentials(first, rule)),
            Some((ForeignCredentials::Strip, _)) => {
                plan.foreign = Some(Arc::new(Foreign { headers, stripped: true }));
                Ok(())
            }
            Some((ForeignCredentials::Allow, _)) | None => {
                plan.foreign = Some(Arc::new(Foreign { headers, stripped: false }));
                Ok(())
            }
        }
    }

    /// Whether a value of ours takes the place of whatever the client sent in a header. One that may be left out does not.
    fn is_set(&self, header: &HeaderName, plan: &Plan) -> bool {
        plan.injections.iter().map(|&number| self.policy().secret(number)).any(|secret| {
            secret.on_unavailable == OnUnavailable::Deny
                && matches!(&secret.placement, Placement::Header(name, _) if name == header)
        })
    }

    fn denied_credentials(&self, header: &HeaderName, rule: &RuleName) -> Refusal {
        let message = format!(
            "header {header} holds credentials of the client's own, which {} denies at {}",
            rule.as_str(),
            self.destination()
        );
        Refusal { reason: Reason::ForeignCredential, message, rule: Some(rule.clone()) }
    }
}
