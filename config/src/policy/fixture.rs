//! Whether a policy says about a request what a fixture expects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::verdict::RequestHead;
use super::{Explanation, Policy};
use crate::document::{Case, ExpectedVerdict, ForeignOutcome};

/// What a policy says about the request of a fixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The decision at length.
    pub explanation: Explanation,
    /// Where it is not what the fixture expects; none, if it is.
    pub differences: Vec<Difference>,
}

/// One thing that is not as a fixture expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `verdict`, `rule`, `secret NAME` or `foreign_credentials`.
    pub what: String,
    /// What the fixture says.
    pub expected: String,
    /// What the policy says.
    pub actual: String,
}

impl Policy {
    /// Decides the request of a fixture, and compares.
    pub fn test(self: &Arc<Self>, case: &Case) -> Tried {
        let request = &case.request;
        let head =
            RequestHead { method: &request.method, target: &request.target, headers: &request.headers };
        let explanation = self.explain(&request.destination, &head);
        let differences = differences(case, &explanation);
        Tried { explanation, differences }
    }
}

fn differences(case: &Case, explanation: &Explanation) -> Vec<Difference> {
    let expect = &case.expect;
    let difference = |what: &str, expected: String, actual: String| {
        (expected != actual).then(|| Difference { what: what.to_owned(), expected, actual })
    };
    let refused = |reason: Option<&str>| reason.map_or("forward".to_owned(), |code| format!("refuse {code}"));
    let expected = match expect.verdict {
        ExpectedVerdict::Forward => "forward".to_owned(),
        ExpectedVerdict::Refuse(Some(reason)) => refused(Some(reason.code())),
        ExpectedVerdict::Refuse(None) => refused(explanation.reason.or(Some("for any reason"))),
    };
    let verdict = difference("verdict", expected, refused(explanation.reason));
    let rule = expect.rule.as_ref().and_then(|rule| {
        difference("rule", rule.clone(), explanation.rule.clone().unwrap_or("none".to_owned()))
    });
    let mut differences: Vec<_> = verdict.into_iter().chain(rule).collect();
    if explanation.reason.is_some() {
        // What a request carries that is refused is no news beside that.
        return differences;
    }
    if let Some(secrets) = &expect.secrets {
        let carried = carried(explanation);
        let names: BTreeSet<&String> = secrets.keys().chain(carried.keys()).collect();
        let places = |of: &BTreeMap<String, BTreeSet<String>>, name: &String| match of.get(name) {
            Some(places) if !places.is_empty() => places.iter().cloned().collect::<Vec<_>>().join(", "),
            Some(_) | None => "nowhere".to_owned(),
        };
        differences.extend(names.into_iter().filter_map(|name| {
            difference(&format!("secret {name}"), places(secrets, name), places(&carried, name))
        }));
    }
    if let Some(foreign) = expect.foreign_credentials {
        let expected = match foreign {
            ForeignOutcome::None => "none",
            ForeignOutcome::Passed => "passed",
            ForeignOutcome::Stripped => "stripped",
        };
        let actual = explanation.foreign_credentials.as_ref().map_or("none", |foreign| foreign.outcome);
        differences.extend(difference("foreign_credentials", expected.to_owned(), actual.to_owned()));
    }
    differences
}

/// Where each secret goes that goes anywhere. Entries that share a source have one name.
fn carried(explanation: &Explanation) -> BTreeMap<String, BTreeSet<String>> {
    let mut carried = BTreeMap::<_, BTreeSet<_>>::new();
    for secret in explanation.secrets.iter().filter(|secret| !secret.locations.is_empty()) {
        carried.entry(secret.secret.clone()).or_default().extend(secret.locations.iter().cloned());
    }
    carried
}
