//! Effective access: what a principal may do, and why. One pure function; sync, `effective_config`, `explain` and every table of
//! grants ask it.
//!
//! Of the grants that reach a principal, directly or through a role, the strongest counts for each secret. Of two secrets that
//! write the same place of the same request, the order is: what the principal itself holds before what the requesting user
//! holds, then priority, then a rule for the exact host before one for many, then age. The weaker one is left out where the
//! stronger one covers it; where they only overlap, the entries carry the order and the proxy decides request by request.

mod conflict;
mod deliver;
mod hosts;
mod neighbours;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use keyferry_contract::sync::{Capability, Policy, Status, Tree};
use serde::Serialize;

use self::hosts::Placed;
use crate::attributes::Labels;
use crate::principal::Principal;
use crate::secret::{Rule, SecretKind, Spec};
use crate::token::hex;

/// A principal and everything that reaches it.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Who.
    pub principal: Principal,
    /// Its own grants and those of its roles, live or not.
    pub grants: Vec<HeldGrant>,
    /// Its own egress rules and those of its roles.
    pub rules: Vec<HeldRule>,
}

/// How something reaches a principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(tag = "through", rename_all = "snake_case")]
pub enum Via {
    /// It is the principal's own.
    Direct,
    /// It is a role's.
    Role {
        /// The role's id.
        role_id: String,
        /// What people call it.
        role: String,
    },
}

/// A grant that reaches a principal.
#[derive(Clone, Debug)]
pub struct HeldGrant {
    /// The grant's id.
    pub id: String,
    /// How it reaches the principal.
    pub via: Via,
    /// The secret's row.
    pub secret: i64,
    /// How strong it is.
    pub priority: i64,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// An egress rule that reaches a principal.
#[derive(Clone, Debug)]
pub struct HeldRule {
    /// The rule's id.
    pub id: String,
    /// How it reaches the principal.
    pub via: Via,
    /// The rule.
    pub rule: Rule,
}

/// A secret that some grant names, with its values.
#[derive(Clone, Debug)]
pub struct GrantedSecret {
    /// Its row.
    pub row: i64,
    /// Its kind.
    pub kind: SecretKind,
    /// What operators call it.
    pub foreign_id: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// It may be used.
    pub enabled: bool,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// What it is.
    pub spec: Spec,
}

/// Whose access is asked for.
#[derive(Debug)]
pub struct Question<'a> {
    /// The principal.
    pub holder: &'a Holder,
    /// The user who asks in the principal's channel.
    pub requester: Option<&'a Holder>,
    /// Every secret that a grant of the two names, by row.
    pub secrets: &'a HashMap<i64, GrantedSecret>,
    /// The labels of the proxy that will enforce it.
    pub proxy_labels: &'a Labels,
    /// When.
    pub now: Timestamp,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Every secret that a live grant names, the strongest first.
    pub secrets: Vec<Held>,
    /// Where each rule of the policy comes from, in its order.
    pub origins: Vec<Origin>,
    /// What is delivered.
    pub policy: Policy,
    /// What a proxy must be able to do, or the policy would mean more there than here.
    pub needs: BTreeSet<Capability>,
    /// When the answer will be another one.
    pub valid_until: Option<Timestamp>,
}

/// A secret in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = HeldSecret)]
pub struct Held {
    /// The secret's id.
    pub secret_id: String,
    /// Its kind.
    pub kind: &'static str,
    /// What operators call it.
    pub foreign_id: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// The principal's, or the requesting user's.
    pub holder: HolderName,
    /// The priority that counts.
    pub priority: i64,
    /// Every live grant of it, the one that counts first.
    pub grants: Vec<GrantShown>,
    /// The proxy gets it.
    pub delivered: bool,
    /// Why, or why not.
    pub reason: String,
    /// Where another secret wins.
    pub yields: Vec<Yield>,
    /// When the last grant of it ends.
    #[schema(value_type = Option<String>)]
    pub not_after: Option<Timestamp>,
}

/// Whose grant it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HolderName {
    /// The user who asks in a channel: weaker than all of the channel's.
    Requester,
    /// The principal itself.
    Principal,
}

/// A grant in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct GrantShown {
    /// The grant's id.
    pub grant_id: String,
    /// How it reaches the principal.
    #[serde(flatten)]
    pub via: Via,
    /// How strong it is.
    pub priority: i64,
    /// When it ends.
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
}

/// A place where another secret wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Yield {
    /// The other one.
    pub to: String,
    /// What both would write.
    pub at: String,
    /// For which hosts, as the stronger one's rule says.
    pub host: String,
    /// Why the other one wins.
    pub because: Because,
    /// The weaker one is left out there; otherwise the proxy decides request by request.
    pub left_out: bool,
}

/// Why one secret wins over another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The principal's own come before the requesting user's.
    Holder,
    /// Its priority is higher.
    Priority,
    /// Its rule names the host itself.
    ExactHost,
    /// It was there first.
    Age,
}

/// Where a rule of the policy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Origin {
    /// An egress rule.
    EgressRule {
        /// Its id.
        id: String,
        /// How it reaches the principal.
        #[serde(flatten)]
        via: Via,
    },
    /// A secret may go there, so its requests may.
    Secret {
        /// Its id.
        id: String,
        /// What people call it.
        name: Option<String>,
    },
}

/// What `question` may do.
pub fn effective(question: &Question<'_>) -> Effective {
    let held = held(question);
    let mut arbitrated = conflict::arbitrate(held);
    let (policy, origins) = deliver::policy(question, &mut arbitrated);
    let needs = deliver::needs(&policy);
    let secrets = arbitrated.into_iter().rev().map(|candidate| candidate.held).collect();
    Effective { secrets, origins, policy, needs, valid_until: valid_until(question) }
}

/// The hash of a policy, live values included.
pub fn content_hash(policy: &Policy) -> String {
    let tree = Tree::map(policy.clone().into_members());
    sha256(tree.reveal().as_bytes())
}

/// The hash of what a proxy holds: any change of the policy, of the principal or of the moment of its assignment changes it. It
/// is made from the policy's own hash, so that a poll costs no rendering.
pub fn assigned_hash(
    content: Option<&str>,
    status: Status,
    principal_id: Option<&str>,
    assigned_at: Option<Timestamp>,
) -> String {
    // To the microsecond: two assignments within a second are two.
    let assigned_at = assigned_at.map(|at| at.to_string());
    sha256(serde_json::json!([content, status, principal_id, assigned_at]).to_string().as_bytes())
}

/// A hash as the API writes it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref()))
}

/// A secret with the grant that counts.
struct Candidate<'a> {
    held: Held,
    secret: &'a GrantedSecret,
    /// Its allow rules, those that lost left out, and the requests that it must leave to a stronger one of another block.
    rules: Vec<Placed<'a>>,
    leaves: Vec<Tree>,
}

/// Every secret that a live grant names, the weakest first.
fn held<'a>(question: &Question<'a>) -> Vec<Candidate<'a>> {
    let holders =
        [(HolderName::Principal, Some(question.holder)), (HolderName::Requester, question.requester)];
    let mut by_secret: HashMap<i64, Candidate<'a>> = HashMap::new();
    for (name, holder) in holders.into_iter().filter_map(|(name, holder)| Some((name, holder?))) {
        for grant in holder.grants.iter().filter(|grant| is_live(grant, question.now)) {
            let Some(secret) = question.secrets.get(&grant.secret) else { continue };
            let shown = GrantShown {
                grant_id: grant.id.clone(),
                via: grant.via.clone(),
                priority: grant.priority,
                expires_at: grant.expires_at,
            };
            let candidate = by_secret.entry(grant.secret).or_insert_with(|| Candidate::new(secret, name));
            // A secret that the principal holds is the principal's, whoever else holds it.
            if candidate.held.holder == name {
                candidate.held.grants.push(shown);
            }
        }
    }
    let mut candidates: Vec<_> = by_secret.into_values().collect();
    candidates.iter_mut().for_each(Candidate::settle);
    candidates.sort_by_key(|candidate| candidate.rank(false));
    candidates
}

impl<'a> Candidate<'a> {
    fn new(secret: &'a GrantedSecret, holder: HolderName) -> Self {
        let rules =
            secret.spec.facts().rules().iter().filter(|rule| !rule.denies()).map(Placed::new).collect();
        let held = Held {
            secret_id: secret.kind.id_of().id(secret.row),
            kind: secret.kind.name(),
            foreign_id: secret.foreign_id.clone(),
            name: secret.name.clone(),
            holder,
            priority: 0,
            grants: Vec::new(),
            delivered: true,
            reason: String::new(),
            yields: Vec::new(),
            not_after: None,
        };
        Self { held, secret, rules, leaves: Vec::new() }
    }

    /// The strongest grant counts; among equals the principal's own, then the first.
    fn settle(&mut self) {
        let held = &mut self.held;
        let direct = |grant: &GrantShown| grant.via == Via::Direct;
        held.grants.sort_by(|a, b| {
            let key = |grant: &GrantShown| (std::cmp::Reverse(grant.priority), !direct(grant));
            key(a).cmp(&key(b)).then_with(|| a.grant_id.cmp(&b.grant_id))
        });
        let ends = held.grants.iter().map(|grant| grant.expires_at);
        held.not_after = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
        if let Some(first) = held.grants.first() {
            held.priority = first.priority;
            held.reason = match &first.via {
                Via::Direct => format!("granted directly with priority {}", first.priority),
                Via::Role { role, .. } => {
                    format!("granted to the role {role} with priority {}", first.priority)
                }
            };
        }
        if !self.secret.enabled {
            held.delivered = false;
            held.reason = "the secret is disabled".to_owned();
        }
    }

    /// Greater wins. The older one wins among equals, so that what is added later takes over nothing by itself.
    fn rank(&self, exact: bool) -> Rank {
        (
            self.held.holder,
            self.held.priority,
            exact,
            std::cmp::Reverse(self.secret.created_at),
            std::cmp::Reverse(self.secret.row),
        )
    }
}

type Rank = (HolderName, i64, bool, std::cmp::Reverse<Timestamp>, std::cmp::Reverse<i64>);

fn is_live(grant: &HeldGrant, now: Timestamp) -> bool {
    grant.expires_at.is_none_or(|end| end > now)
}

fn valid_until(question: &Question<'_>) -> Option<Timestamp> {
    let holders = [Some(question.holder), question.requester];
    let grants = holders.into_iter().flatten().flat_map(|holder| &holder.grants);
    grants.filter_map(|grant| grant.expires_at).filter(|end| *end > question.now).min()
}
