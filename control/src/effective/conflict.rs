//! Two secrets that would write the same place of the same request.

use std::collections::HashMap;

use super::hosts::{Meeting, is_exact, meeting};
use super::{Because, Candidate, Yield};
use crate::secret::{Place, Rule, Target};

/// Leaves out what a stronger secret covers, and notes every place where one yields. `candidates` are the weakest first, and so
/// is the answer.
pub(super) fn arbitrate<'a>(mut candidates: Vec<Candidate<'a>>) -> Vec<Candidate<'a>> {
    for candidate in &mut candidates {
        let facts = candidate.secret.spec.facts();
        let rules = keyferry_contract::sync::Tree::List(Vec::new());
        if candidate.held.delivered && facts.render(rules).is_none() {
            candidate.held.delivered = false;
            candidate.held.reason = "it has no value to deliver".to_owned();
        }
    }
    for pair in pairs(&candidates) {
        settle(&mut candidates, &pair);
    }
    for candidate in candidates.iter_mut().filter(|candidate| candidate.held.delivered) {
        let bound = !candidate.secret.spec.facts().rules().is_empty();
        if bound && candidate.rules.is_empty() {
            candidate.held.delivered = false;
            candidate.held.reason = match candidate.held.yields.last() {
                Some(other) => format!("{} wins wherever this one applies", other.to),
                None => "no rule of it allows anything".to_owned(),
            };
        }
    }
    candidates
}

/// Two secrets and what both write.
struct Pair {
    one: usize,
    other: usize,
    target: Target,
}

fn pairs(candidates: &[Candidate<'_>]) -> Vec<Pair> {
    let mut by_target: HashMap<Target, Vec<usize>> = HashMap::new();
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.held.delivered)
    {
        for target in candidate.secret.spec.facts().targets() {
            by_target.entry(target).or_default().push(index);
        }
    }
    let mut pairs = Vec::new();
    for (target, writers) in by_target {
        for (at, &one) in writers.iter().enumerate() {
            pairs.extend(writers[at + 1..].iter().map(|&other| Pair { one, other, target: target.clone() }));
        }
    }
    // The strongest are settled first: what they leave out cannot win over anything any more.
    pairs.sort_by(|a, b| (b.other, b.one, &b.target).cmp(&(a.other, a.one, &a.target)));
    pairs
}

fn settle(candidates: &mut [Candidate<'_>], pair: &Pair) {
    if let Target::Database(_) = pair.target {
        let (stronger, weaker) = (pair.other, pair.one);
        if !candidates[stronger].held.delivered || !candidates[weaker].held.delivered {
            return;
        }
        let because = because(&candidates[stronger], None, &candidates[weaker], None);
        let to = candidates[stronger].held.secret_id.clone();
        let weaker = &mut candidates[weaker].held;
        weaker.delivered = false;
        weaker.reason = format!("{to} wins: one database has one way in");
        weaker.yields.push(Yield {
            to,
            at: pair.target.to_string(),
            host: String::new(),
            because,
            left_out: true,
        });
        return;
    }
    let one_block = same_block(&candidates[pair.one], &candidates[pair.other]);
    for (a, b) in meetings(&candidates[pair.one].rules, &candidates[pair.other].rules) {
        let exact = (is_exact(a), is_exact(b));
        let a_wins = candidates[pair.one].rank(exact.0) > candidates[pair.other].rank(exact.1);
        let (winner, loser, strong, weak) =
            if a_wins { (pair.one, pair.other, a, b) } else { (pair.other, pair.one, b, a) };
        let exact = if a_wins { exact } else { (exact.1, exact.0) };
        let covered = meeting(strong, weak) == Meeting::Covered;
        let because = because(&candidates[winner], Some(exact.0), &candidates[loser], Some(exact.1));
        let to = candidates[winner].held.secret_id.clone();
        let loser = &mut candidates[loser];
        if covered {
            loser.rules.retain(|rule| !std::ptr::eq(*rule, weak));
        } else if !one_block {
            let mut deny = strong.tree();
            deny.set("action", keyferry_contract::sync::Tree::text("deny"));
            deny.remove("foreign_credentials");
            loser.leaves.push(deny);
        }
        loser.held.yields.push(Yield {
            to,
            at: pair.target.to_string(),
            host: strong.host.clone().or_else(|| strong.cidr.clone()).unwrap_or_default(),
            because,
            left_out: covered || !one_block,
        });
    }
}

/// Rules that some request may match both of, as they stand before anything is left out.
fn meetings<'a>(one: &[&'a Rule], other: &[&'a Rule]) -> Vec<(&'a Rule, &'a Rule)> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| meeting(a, b) != Meeting::Never).collect()
}

/// Whether one block of the document holds both, which orders its entries by their priority.
fn same_block(one: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    match (one.secret.spec.facts().place(), other.secret.spec.facts().place()) {
        (Place::Secrets, Place::Secrets) => true,
        (Place::Bundled { transform: a, .. }, Place::Bundled { transform: b, .. }) => a == b,
        (Place::Secrets | Place::Bundled { .. } | Place::Transform(_) | Place::Postgres, _) => false,
    }
}

fn because(
    winner: &Candidate<'_>,
    exact: Option<bool>,
    loser: &Candidate<'_>,
    loser_exact: Option<bool>,
) -> Because {
    if winner.held.holder != loser.held.holder {
        Because::Holder
    } else if winner.held.priority != loser.held.priority {
        Because::Priority
    } else if exact != loser_exact {
        Because::ExactHost
    } else {
        Because::Age
    }
}
