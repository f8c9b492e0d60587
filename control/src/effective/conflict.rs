//! Two secrets that would write the same place of the same request.

use std::collections::HashMap;

use super::hosts::{Meeting, meeting};
use super::neighbours::Neighbours;
use super::{Because, Candidate, Yield};
use crate::secret::{Place, Rule, Target};

/// Leaves out what a stronger secret covers, and notes every place where one yields. `candidates` are the weakest first, and so
/// is the answer.
pub(super) fn arbitrate(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    leave_out_what_has_no_value(&mut candidates);
    let neighbours = Neighbours::of(&candidates);
    settle_all(&mut candidates, |candidates, at| neighbours.weaker(candidates, at));
    candidates
}

fn leave_out_what_has_no_value(candidates: &mut [Candidate<'_>]) {
    for candidate in candidates {
        let facts = candidate.secret.spec.facts();
        let rules = keyferry_contract::sync::Tree::List(Vec::new());
        if candidate.held.delivered && facts.render(rules).is_none() {
            candidate.held.delivered = false;
            candidate.held.reason = "it has no value to deliver".to_owned();
        }
    }
}

/// `weaker` names those that a candidate may meet, the strongest first, and what both write.
fn settle_all(
    candidates: &mut [Candidate<'_>],
    weaker: impl Fn(&[Candidate<'_>], usize) -> Vec<(usize, Target)>,
) {
    settle_databases(candidates);
    // The strongest are settled first: what they leave out cannot win over anything any more.
    for stronger in (0..candidates.len()).rev() {
        if candidates[stronger].rules.is_empty() || !candidates[stronger].held.delivered {
            continue;
        }
        for (weaker, target) in weaker(candidates, stronger) {
            settle(candidates, weaker, stronger, &target);
        }
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
}

/// The strongest way into a database is the only one.
fn settle_databases(candidates: &mut [Candidate<'_>]) {
    let mut ways: HashMap<Target, usize> = HashMap::new();
    for at in (0..candidates.len()).rev() {
        if !candidates[at].held.delivered {
            continue;
        }
        let targets = candidates[at].secret.spec.facts().targets();
        for target in targets.into_iter().filter(|target| matches!(target, Target::Database(_))) {
            let Some(&stronger) = ways.get(&target) else {
                ways.insert(target, at);
                continue;
            };
            let because = because(&candidates[stronger], None, &candidates[at], None);
            let to = candidates[stronger].held.secret_id.clone();
            let weaker = &mut candidates[at].held;
            weaker.delivered = false;
            weaker.reason = format!("{to} wins: one database has one way in");
            let (at, host) = (target.to_string(), String::new());
            weaker.yields.push(Yield { to, at, host, because, left_out: true });
        }
    }
}

/// Two rules that some request may match both of.
struct Overlap<'a> {
    winner: usize,
    loser: usize,
    strong: &'a Rule,
    weak: &'a Rule,
    because: Because,
    covered: bool,
}

fn settle(candidates: &mut [Candidate<'_>], weaker: usize, stronger: usize, target: &Target) {
    let one_block = same_block(&candidates[weaker], &candidates[stronger]);
    for Overlap { winner, loser, strong, weak, because, covered } in overlaps(candidates, weaker, stronger) {
        let to = candidates[winner].held.secret_id.clone();
        let loser = &mut candidates[loser];
        if covered {
            loser.rules.retain(|placed| !std::ptr::eq(placed.rule, weak));
        } else if !one_block {
            let mut deny = strong.tree();
            deny.set("action", keyferry_contract::sync::Tree::text("deny"));
            deny.remove("foreign_credentials");
            loser.leaves.push(deny);
        }
        loser.held.yields.push(Yield {
            to,
            at: target.to_string(),
            host: strong.host.clone().or_else(|| strong.cidr.clone()).unwrap_or_default(),
            because,
            left_out: covered || !one_block,
        });
    }
}

/// As the rules stand before anything of these two is left out.
fn overlaps<'a>(candidates: &[Candidate<'a>], weaker: usize, stronger: usize) -> Vec<Overlap<'a>> {
    let (low, high) = (&candidates[weaker], &candidates[stronger]);
    let pairs = low.rules.iter().flat_map(|a| high.rules.iter().map(move |b| (a, b)));
    let found = pairs.filter_map(|(a, b)| {
        // A rule for the host itself turns the order round among equals.
        let turned = low.rank(a.is_exact()) > high.rank(b.is_exact());
        let (winner, loser, strong, weak) =
            if turned { (weaker, stronger, a, b) } else { (stronger, weaker, b, a) };
        let met = meeting(strong, weak);
        let exact = (Some(strong.is_exact()), Some(weak.is_exact()));
        (met != Meeting::Never).then(|| Overlap {
            winner,
            loser,
            strong: strong.rule,
            weak: weak.rule,
            because: because(&candidates[winner], exact.0, &candidates[loser], exact.1),
            covered: met == Meeting::Covered,
        })
    });
    found.collect()
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

#[cfg(test)]
mod tests;
