//! Which values go into a request to the destination, and where: placeholders that are found, values that are set.

use http::header::{HOST, HeaderName};
use smallvec::SmallVec;

use super::Scope;
use crate::policy::basic::credentials;
use crate::policy::placeholder::{Found, is_generated};
use crate::policy::secret::Replace;
use crate::policy::verdict::{HeaderSwap, Hit, Plan, Refusal, RequestHead, TargetPlace, TargetSwap};
use crate::policy::{Placement, Reason, Secret};

impl Scope {
    /// The refusal for a request whose body turned out not to hold what `require` demands.
    pub fn missing_placeholder(&self, secret: u32) -> Refusal {
        match self.policy.secret(secret).placement.replace() {
            Some(replace) => missing(self.policy.placeholders.text(replace.placeholder)),
            None => missing("of this request"),
        }
    }

    /// What becomes of a placeholder that was found in the body: a hit, nothing, or (only for a placeholder that keyferry made) a refusal.
    pub fn resolve_in_body(&self, found: &Found, plan: &Plan) -> Result<Option<Hit>, Refusal> {
        let found = Found { whole: self.policy.placeholders.is_generated(found.placeholder), ..*found };
        self.resolve(&found, &plan.body, |replace| replace.body, "the body")
    }

    /// For each of [`Policy::generated_placeholders`], whether a secret that it stands for is bound to this destination.
    pub fn generated_bound(&self) -> Vec<bool> {
        let policy = &self.policy;
        let texts = policy.placeholders.texts().zip(&policy.by_placeholder);
        texts
            .filter(|(text, _)| is_generated(text))
            .map(|(_, secrets)| secrets.iter().any(|&secret| self.binds(secret)))
            .collect()
    }

    pub(super) fn plan_target(
        &self,
        request: &RequestHead<'_>,
        active: &[u32],
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        let query_at = request.target.find('?').unwrap_or(request.target.len());
        for found in self.policy.placeholders.find_in_target(request.target) {
            let place = if found.start <= query_at {
                TargetPlace::Path
            } else {
                TargetPlace::Query(parameter_at(request.target, query_at, found.start).into())
            };
            let enabled = |replace: &Replace| match place {
                TargetPlace::Path => replace.path,
                TargetPlace::Query(_) => replace.query,
            };
            if let Some(hit) = self.resolve(&found, active, enabled, "the request target")? {
                plan.target.push(TargetSwap { place, hit });
            }
        }
        Ok(())
    }

    pub(super) fn plan_headers(
        &self,
        request: &RequestHead<'_>,
        active: &[u32],
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        if self.policy.placeholders.is_empty() {
            return Ok(());
        }
        let mut previous: Option<&HeaderName> = None;
        let mut nth = 0;
        for (name, value) in request.headers {
            nth = if previous == Some(name) { nth + 1 } else { 0 };
            previous = Some(name);
            if name == HOST {
                continue;
            }
            let (text, mut basic) = credentials(value);
            let mut hits = self.resolve_in_header(name, &text, active)?;
            if basic && hits.is_empty() {
                basic = false;
                // What decodes may still be a placeholder as it stands.
                hits = self.resolve_in_header(name, value.as_bytes(), active)?;
            }
            if !hits.is_empty() {
                plan.headers.push(HeaderSwap { name: name.clone(), nth, basic, hits });
            }
        }
        Ok(())
    }

    /// Where two secrets are set in one place, the higher rank is; so it is where one is set in a header in which another was swapped.
    pub(super) fn plan_injections(&self, active: &[u32], plan: &mut Plan) {
        for &number in self.policy.injected.iter().filter(|number| active.contains(number)) {
            let secret = self.policy.secret(number);
            let outranked = plan
                .injections
                .iter()
                .any(|&other| same_place(self.policy.secret(other), secret))
                || plan.swapped_in_place_of(secret).any(|other| self.policy.secret(other).rank > secret.rank);
            if !outranked {
                plan.injections.push(number);
            }
        }
    }

    pub(super) fn plan_body(&self, active: &[u32], plan: &mut Plan) -> Result<(), Refusal> {
        for &number in active {
            let secret = self.policy.secret(number);
            let Some(replace) = secret.placement.replace() else { continue };
            if replace.body {
                plan.body.push(number);
            }
            if !replace.require || plan.head_holds(|hit| self.is_placeholder_of(hit, replace)) {
                continue;
            }
            if replace.body {
                plan.required_in_body.push(number);
            } else {
                return Err(missing(self.policy.placeholders.text(replace.placeholder)));
            }
        }
        Ok(())
    }

    fn resolve_in_header(
        &self,
        name: &HeaderName,
        text: &[u8],
        active: &[u32],
    ) -> Result<SmallVec<[Hit; 1]>, Refusal> {
        let mut hits = SmallVec::new();
        for found in self.policy.placeholders.find_in(text) {
            let place = format_args!("header {name}");
            let enabled = |replace: &Replace| replace.headers.selects(name);
            hits.extend(self.resolve(&found, active, enabled, place)?);
        }
        Ok(hits)
    }

    /// What a placeholder at a place becomes: a hit, or nothing because the place is not one that is searched; an error where it has no
    /// business at this destination at all.
    fn resolve(
        &self,
        found: &Found,
        active: &[u32],
        enabled: impl Fn(&Replace) -> bool,
        place: impl std::fmt::Display,
    ) -> Result<Option<Hit>, Refusal> {
        let candidates = &self.policy.by_placeholder[found.placeholder as usize];
        let swapped = candidates.iter().find(|&&number| {
            active.contains(&number) && self.policy.secret(number).placement.replace().is_some_and(&enabled)
        });
        if let Some(&secret) = swapped {
            return Ok(Some(Hit { start: found.start, end: found.end, secret }));
        }
        let bound = candidates.iter().any(|&number| self.binds(number));
        if bound || !found.whole {
            return Ok(None);
        }
        let text = self.policy.placeholders.text(found.placeholder);
        Err(Refusal::new(
            Reason::PlaceholderMisdirected,
            format!("{place} holds the placeholder {text}, which is not bound to {}", self.destination),
        ))
    }

    fn is_placeholder_of(&self, hit: &Hit, replace: &Replace) -> bool {
        self.policy
            .secret(hit.secret)
            .placement
            .replace()
            .is_some_and(|other| other.placeholder == replace.placeholder)
    }
}

impl Plan {
    fn head_holds(&self, wanted: impl Fn(&Hit) -> bool) -> bool {
        self.headers.iter().flat_map(|swap| &swap.hits).any(&wanted)
            || self.target.iter().any(|swap| wanted(&swap.hit))
    }

    /// The secrets that were swapped in the very place that `secret` would be set in.
    fn swapped_in_place_of<'a>(&'a self, secret: &'a Secret) -> impl Iterator<Item = u32> + 'a {
        let headers = self.headers.iter().filter(|swap| match &secret.placement {
            Placement::Header(name, _) => swap.name == *name,
            Placement::Query(..) | Placement::Replace(_) => false,
        });
        let query = self.target.iter().filter(|swap| match (&secret.placement, &swap.place) {
            (Placement::Query(name, _), TargetPlace::Query(key)) => name == key,
            (Placement::Query(..), TargetPlace::Path)
            | (Placement::Header(..) | Placement::Replace(_), _) => false,
        });
        headers.flat_map(|swap| &swap.hits).map(|hit| hit.secret).chain(query.map(|swap| swap.hit.secret))
    }
}

/// The name of the query parameter that the byte at `at` belongs to.
fn parameter_at(target: &str, query_at: usize, at: usize) -> &str {
    let query = &target[query_at + 1..];
    let at = at - query_at - 1;
    let start = query[..at].rfind('&').map_or(0, |ampersand| ampersand + 1);
    let parameter = &query[start..];
    let end = parameter.find(['=', '&']).unwrap_or(parameter.len());
    &parameter[..end]
}

fn same_place(one: &Secret, other: &Secret) -> bool {
    match (&one.placement, &other.placement) {
        (Placement::Header(one, _), Placement::Header(other, _)) => one == other,
        (Placement::Query(one, _), Placement::Query(other, _)) => one == other,
        (Placement::Header(..) | Placement::Query(..) | Placement::Replace(_), _) => false,
    }
}

fn missing(text: &str) -> Refusal {
    Refusal::new(
        Reason::PlaceholderMissing,
        format!("the placeholder {text} is required here, and the request does not hold it"),
    )
}
