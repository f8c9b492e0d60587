//! What would have changed, grouped and counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use keyferry_contract::audit::{Audit, RequestId};
use serde::Serialize;

use super::judge::{Decision, Judged};
use super::shape::shape;

/// Groups beyond this many are counted and not told: a sandbox names as many hosts as it likes.
const MAX_GROUPS: usize = 10_000;

/// The outcome of a replay.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Changes {
    /// Requests that were judged again.
    pub(crate) requests: u64,
    /// Of these, how many would have had another outcome.
    pub(crate) changed: u64,
    /// Requests about which the records do not hold enough, by why.
    pub(crate) undecided: BTreeMap<&'static str, u64>,
    /// Changes in more groups than are kept.
    pub(crate) not_grouped: u64,
    #[serde(skip)]
    groups: HashMap<Group, Tally>,
}

/// Requests that change in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    pub(crate) host: String,
    pub(crate) method: String,
    /// With `{}` for what looks like an identifier.
    pub(crate) path: String,
    pub(crate) principal: String,
    /// `forward`, or `refuse` and the reason.
    pub(crate) before: String,
    pub(crate) after: String,
    /// `NAME at PLACE` of what is no longer carried.
    pub(crate) lost: BTreeSet<String>,
    /// The same of what is carried now.
    pub(crate) gained: BTreeSet<String>,
}

/// The gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    NewlyForwarded,
    NewlyRefused,
    OtherSecrets,
    OtherReason,
}

/// How many requests, and one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) example: RequestId,
}

impl Changes {
    /// Counts a request that was judged again.
    pub(crate) fn add(&mut self, audit: &Audit<'_>, judged: Judged) {
        self.requests += 1;
        match judged {
            Judged::Undecided(why) => *self.undecided.entry(why).or_default() += 1,
            Judged::Decided { before, after } if before == after => {}
            Judged::Decided { before, after } => {
                self.changed += 1;
                let group = Group::new(audit, before, after);
                let room = self.groups.len() < MAX_GROUPS;
                match self.groups.get_mut(&group) {
                    Some(tally) => tally.count += 1,
                    None if room => {
                        self.groups.insert(group, Tally { count: 1, example: audit.request_id });
                    }
                    None => self.not_grouped += 1,
                }
            }
        }
    }

    /// The groups, the gravest and the largest first.
    pub(crate) fn groups(&self) -> Vec<(&Group, &Tally)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(group, tally)| (group.kind, Reverse(tally.count), *group));
        groups
    }
}

impl Group {
    fn new(audit: &Audit<'_>, before: Decision, after: Decision) -> Self {
        let kind = match (before.refused, after.refused) {
            (Some(_), None) => Kind::NewlyForwarded,
            (None, Some(_)) => Kind::NewlyRefused,
            (None, None) => Kind::OtherSecrets,
            (Some(_), Some(_)) => Kind::OtherReason,
        };
        let port = audit.port.map_or(String::new(), |port| format!(":{port}"));
        let host =
            if audit.host.contains(':') { format!("[{}]", audit.host) } else { audit.host.to_string() };
        // What a request carries that is refused is no news beside that.
        let both = kind == Kind::OtherSecrets;
        let of = |one: &Decision, other: &Decision| match both {
            true => one.carried.difference(&other.carried).cloned().collect(),
            false => BTreeSet::new(),
        };
        Self {
            kind,
            host: format!("{host}{port}"),
            method: audit.method.clone().into_owned(),
            path: shape(&audit.path),
            principal: audit.principal.clone().into_owned(),
            lost: of(&before, &after),
            gained: of(&after, &before),
            before: before.verdict(),
            after: after.verdict(),
        }
    }
}
