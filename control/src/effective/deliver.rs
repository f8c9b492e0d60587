//! From what counts to what is delivered.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use keyferry_contract::sync::{Capability, Policy, Tree};

use super::hosts::Placed;
use super::{Candidate, Origin, Question, Rank};
use crate::principal::Principal;
use crate::secret::{Place, Rule, Spec, ValueFrom};

/// The policy and, for each of its rules, where it comes from.
pub(super) fn policy(question: &Question<'_>, candidates: &mut [Candidate<'_>]) -> (Policy, Vec<Origin>) {
    let mut policy = Policy::default();
    let mut entries: Vec<(Rank, Tree)> = Vec::new();
    let mut bundles: BTreeMap<(&str, &str), Vec<(Rank, Tree)>> = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.held.delivered) {
        let facts = candidate.secret.spec.facts();
        match facts.place() {
            Place::Secrets => entries.extend(parts(candidate)),
            Place::Bundled { transform, list } => {
                bundles.entry((transform, list)).or_default().extend(parts(candidate));
            }
            Place::Transform(name) => {
                if let Some(config) = facts.render(rules(candidate, &candidate.rules)) {
                    let transform = Tree::map([("name", Tree::text(name)), ("config", config)]);
                    policy.transforms.push(labelled(transform, candidate, false));
                }
            }
            Place::Postgres => policy.postgres.extend(database(question, candidate)),
        }
    }
    policy.secrets = ranked(entries);
    for ((transform, list), tokens) in bundles {
        let mut tokens = ranked(tokens);
        // iron-proxy takes the first that matches; whoever reads `priority` does not mind the order.
        tokens.reverse();
        let config = Tree::map([(list, Tree::List(tokens))]);
        policy.transforms.push(Tree::map([("name", Tree::text(transform)), ("config", config)]));
    }
    let origins = reach(question, candidates, &mut policy);
    (policy, origins)
}

/// A secret as one entry, or as two where it names some hosts exactly and others by a pattern: their ranks differ.
fn parts(candidate: &Candidate<'_>) -> Vec<(Rank, Tree)> {
    let (exact, wide): (Vec<_>, Vec<_>) = candidate.rules.iter().partition(|placed| placed.is_exact());
    let halves = [(false, wide), (true, exact)];
    halves
        .into_iter()
        .filter(|(_, half)| !half.is_empty())
        .filter_map(|(exact, half)| {
            let entry = candidate.secret.spec.facts().render(rules(candidate, half))?;
            Some((candidate.rank(exact), labelled(entry, candidate, true)))
        })
        .collect()
}

/// The rules of an entry: those that allow, the secret's own that deny, and what it leaves to stronger ones.
fn rules<'a>(candidate: &Candidate<'_>, allow: impl IntoIterator<Item = &'a Placed<'a>>) -> Tree {
    let denies = candidate.secret.spec.facts().rules().iter().filter(|rule| rule.denies());
    let own = allow.into_iter().map(|placed| placed.rule).chain(denies).map(Rule::tree);
    Tree::list(own.chain(candidate.leaves.iter().cloned()))
}

/// The weakest first, which is iron-proxy's order, and with the order spelled out for whoever reads it.
fn ranked(mut entries: Vec<(Rank, Tree)>) -> Vec<Tree> {
    entries.sort_by_key(|(rank, _)| *rank);
    let numbered = (1_i64..).zip(entries);
    numbered
        .map(|(place, (_, mut entry))| {
            entry.set("priority", Tree::Number(place.into()));
            entry
        })
        .collect()
}

/// Says whose an entry is and when it ends.
fn labelled(mut entry: Tree, candidate: &Candidate<'_>, named: bool) -> Tree {
    entry.set("id", Tree::text(&candidate.held.secret_id));
    if named && let Some(name) = candidate.held.name.as_ref().or(candidate.held.foreign_id.as_ref()) {
        entry.set("name", Tree::text(name));
    }
    ended(&mut entry, candidate.held.not_after);
    entry
}

fn ended(entry: &mut Tree, not_after: Option<Timestamp>) {
    if let Some(end) = not_after {
        entry.set("not_after", Tree::text(end.to_string()));
    }
}

fn database(question: &Question<'_>, candidate: &Candidate<'_>) -> Option<Tree> {
    let Spec::PgDsn(spec) = &candidate.secret.spec else { return None };
    let principal = match candidate.held.holder {
        super::HolderName::Principal => &question.holder.principal,
        super::HolderName::Requester => &question.requester?.principal,
    };
    let value_of = |from: &ValueFrom| match from {
        ValueFrom::PrincipalLabel(label) => label_text(principal.labels.get(label)),
        ValueFrom::PrincipalField(field) => principal_field(principal, field),
        ValueFrom::ProxyLabel(label) => label_text(question.proxy_labels.get(label)),
    };
    let mut entry = spec.resolved(&value_of)?;
    entry.set("foreign_id", Tree::text(candidate.held.foreign_id.as_deref().unwrap_or_default()));
    Some(labelled(entry, candidate, false))
}

/// A label that is missing is an empty text, which row-level security takes for nobody.
fn label_text(label: Option<&serde_json::Value>) -> String {
    match label {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_))) => value.to_string(),
        Some(_) | None => String::new(),
    }
}

fn principal_field(principal: &Principal, field: &str) -> String {
    let identity = &principal.identity;
    let text = match field {
        "id" => return principal.id(),
        "namespace" => return principal.namespace.clone(),
        "kind" => return principal.kind.name().to_owned(),
        "foreign_id" => &principal.foreign_id,
        "name" => &principal.name,
        "slack_user_id" => &identity.slack_user_id,
        "slack_channel_id" => &identity.slack_channel_id,
        "slack_team_id" => &identity.slack_team_id,
        "slack_email" => &identity.slack_email,
        _ => &None,
    };
    text.clone().unwrap_or_default()
}

/// What may be reached: own and roles' rules, and wherever a delivered secret may go.
fn reach(question: &Question<'_>, candidates: &[Candidate<'_>], policy: &mut Policy) -> Vec<Origin> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found: Vec<(Tree, Option<Timestamp>, Origin)> = Vec::new();
    let mut add = |rule: Tree, not_after: Option<Timestamp>, origin: Origin| {
        let key = rule.reveal().to_string();
        match seen.get(&key) {
            // The same rule twice holds as long as the longer one.
            Some(&known) => {
                let end = &mut found[known].1;
                *end = end.zip(not_after).map(|(a, b)| a.max(b));
            }
            None => {
                seen.insert(key, found.len());
                found.push((rule, not_after, origin));
            }
        }
    };
    let holders = [Some(question.holder), question.requester];
    for held in holders.into_iter().flatten().flat_map(|holder| &holder.rules) {
        let origin = Origin::EgressRule { id: held.id.clone(), via: held.via.clone() };
        add(held.rule.tree(), None, origin);
    }
    for candidate in candidates.iter().rev().filter(|candidate| candidate.held.delivered) {
        let name = candidate.held.name.clone().or_else(|| candidate.held.foreign_id.clone());
        for placed in &candidate.rules {
            let origin = Origin::Secret { id: candidate.held.secret_id.clone(), name: name.clone() };
            add(placed.rule.tree(), candidate.held.not_after, origin);
        }
    }
    let mut origins = Vec::with_capacity(found.len());
    for (mut rule, not_after, origin) in found {
        let (Origin::EgressRule { id, .. } | Origin::Secret { id, .. }) = &origin;
        rule.set("id", Tree::text(id));
        ended(&mut rule, not_after);
        policy.rules.push(rule);
        origins.push(origin);
    }
    origins
}

/// What a policy needs of whoever enforces it.
pub(super) fn needs(policy: &Policy) -> BTreeSet<Capability> {
    let mut needs = BTreeSet::new();
    let lists = [&policy.rules, &policy.secrets, &policy.transforms, &policy.postgres];
    lists.into_iter().flatten().for_each(|entry| collect(entry, &mut needs));
    needs
}

fn collect(tree: &Tree, needs: &mut BTreeSet<Capability>) {
    match tree {
        Tree::Map(entries) => {
            for (key, member) in entries {
                match key.as_str() {
                    "action" if member.as_text() == Some("deny") => {
                        needs.insert(Capability::DenyRules);
                    }
                    "ports" => {
                        needs.insert(Capability::Ports);
                    }
                    "schemes" => {
                        needs.insert(Capability::Schemes);
                    }
                    "foreign_credentials" => {
                        needs.insert(Capability::ForeignCredentials);
                    }
                    "not_after" => {
                        needs.insert(Capability::Expiry);
                    }
                    // A setting of that name is a value and no word of the language.
                    "settings" => continue,
                    _ => {}
                }
                collect(member, needs);
            }
        }
        Tree::List(items) => items.iter().for_each(|item| collect(item, needs)),
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) | Tree::Secret(_) => {}
    }
}
