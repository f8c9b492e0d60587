//! From a document to a policy: patterns compiled, rules indexed by host, secrets ranked.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::host_index::{HostIndex, HostPattern};
use super::placeholder::Placeholders;
use super::rule::{CompiledRule, ExtraPorts, Purpose, RuleName, host_pattern};
use super::secret::{Placement, Secret};
use super::unsupported::UnsupportedUse;
use super::verdict::Refusal;
use crate::document::{Action, Allowlist, Document, Secrets, Transform};

/// A compiled policy: immutable, shared by all requests of one generation.
#[derive(Debug)]
pub struct Policy {
    pub(super) generation: u64,
    /// Refuses everything.
    pub(super) closed: Option<Refusal>,
    pub(super) lists: Vec<RuleList>,
    pub(super) default_action: Action,
    pub(super) extra_ports: ExtraPorts,
    pub(super) secrets: Vec<Secret>,
    /// Numbers are places in `secret_rules`.
    pub(super) secret_index: HostIndex,
    /// Which secret a rule belongs to, and the rule.
    pub(super) secret_rules: Vec<(u32, CompiledRule)>,
    pub(super) placeholders: Placeholders,
    /// For each placeholder the secrets that it stands for, the highest rank first.
    pub(super) by_placeholder: Vec<Vec<u32>>,
    /// Secrets that are injected, the highest rank first.
    pub(super) injected: Vec<u32>,
    /// The placeholders made by us, which are looked for in every body.
    pub(super) generated: Placeholders,
    /// What it asks for and nobody can run.
    pub(super) unsupported: Vec<UnsupportedUse>,
}

/// One `allowlist`. A request must pass each of them.
#[derive(Debug)]
pub(super) struct RuleList {
    pub(super) index: HostIndex,
    pub(super) rules: Vec<CompiledRule>,
    /// The networks of `cidr` rules, by the number of their rule.
    pub(super) nets: HashMap<u32, IpNet>,
    pub(super) warn: bool,
}

/// A part of the document that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct CompileError {
    /// The key's path, for example `transforms[0].config.rules[2].host`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl Policy {
    /// Compiles the transforms of `document`. A document that parsed compiles; the error is for one built by other means.
    pub fn compile(document: &Document, generation: u64) -> Result<Self, CompileError> {
        let mut policy = Self {
            default_action: document.default_action,
            extra_ports: document.proxy.allowed_ports.as_ref().into(),
            ..Self::empty(generation)
        };
        let mut texts: Vec<Box<str>> = Vec::new();
        for (at, transform) in document.transforms.iter().enumerate() {
            let path = format!("transforms[{at}].config");
            match transform {
                Transform::Allowlist(allowlist) => {
                    let list = RuleList::compile(allowlist, policy.lists.len(), &path)?;
                    policy.lists.push(list);
                }
                Transform::Secrets(secrets) => policy.add_secrets(secrets, &path, &mut texts)?,
                // They neither allow nor bind a secret; whoever starts a proxy refuses those without an engine.
                Transform::GcpAuth(_)
                | Transform::GcpIdToken(_)
                | Transform::OauthToken(_)
                | Transform::AwsAuth(_)
                | Transform::HmacSign(_)
                | Transform::Annotate(_)
                | Transform::HeaderAllowlist(_)
                | Transform::BodyCapture(_)
                | Transform::Grpc(_)
                | Transform::Judge(_) => {}
            }
        }
        policy.by_placeholder = vec![Vec::new(); texts.len()];
        for (number, secret) in (0..).zip(&policy.secrets) {
            match secret.placement.replace() {
                Some(replace) => policy.by_placeholder[replace.placeholder as usize].push(number),
                None => policy.injected.push(number),
            }
        }
        let rank = |number: &u32| std::cmp::Reverse(policy.secrets[*number as usize].rank);
        policy.by_placeholder.iter_mut().for_each(|secrets| secrets.sort_by_key(rank));
        policy.injected.sort_by_key(rank);
        policy.generated = Placeholders::new(
            texts.iter().filter(|text| super::placeholder::is_generated(text)).cloned().collect(),
        );
        policy.placeholders = Placeholders::new(texts);
        Ok(policy)
    }

    /// A policy that refuses everything, for this reason.
    pub fn closed(refusal: Refusal, generation: u64) -> Self {
        Self { closed: Some(refusal), ..Self::empty(generation) }
    }

    fn empty(generation: u64) -> Self {
        Self {
            generation,
            closed: None,
            lists: Vec::new(),
            default_action: Action::Deny,
            extra_ports: None.into(),
            secrets: Vec::new(),
            secret_index: HostIndex::default(),
            secret_rules: Vec::new(),
            placeholders: Placeholders::new(Vec::new()),
            by_placeholder: Vec::new(),
            injected: Vec::new(),
            generated: Placeholders::new(Vec::new()),
            unsupported: Vec::new(),
        }
    }

    fn add_secrets(
        &mut self,
        secrets: &Secrets,
        path: &str,
        texts: &mut Vec<Box<str>>,
    ) -> Result<(), CompileError> {
        for (at, entry) in secrets.secrets.iter().enumerate() {
            let path = format!("{path}.secrets[{at}]");
            let placeholder = |text: &str| match texts.iter().position(|known| **known == *text) {
                Some(known) => number(known),
                None => {
                    texts.push(text.into());
                    number(texts.len() - 1)
                }
            };
            let placement = Placement::new(&entry.mode, placeholder)
                .map_err(|message| CompileError { path: path.clone(), message })?;
            let secret = number(self.secrets.len());
            for (at, rule) in entry.rules.iter().enumerate() {
                let path = format!("{path}.rules[{at}]");
                let name = RuleName(format!("secrets[{secret}].rules[{at}]").into());
                let compiled =
                    CompiledRule::new(name, rule, Purpose::Secret).map_err(|error| bad(&path, &error))?;
                let pattern = host_pattern(rule).map_err(|error| bad(&path, &error))?;
                self.secret_index.insert(pattern, number(self.secret_rules.len()));
                self.secret_rules.push((secret, compiled));
            }
            self.secrets.push(Secret {
                name: entry.display_name().into(),
                source: Arc::new(entry.source.clone()),
                placement,
                on_unavailable: entry.on_unavailable,
                redact_responses: entry.redact_responses,
                rank: (entry.priority.unwrap_or(0), self.secrets.len()),
            });
        }
        Ok(())
    }

    /// Which generation of the policy this is; audit records name it (invariant 11).
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The same as a part of another generation.
    #[must_use]
    pub fn numbered(self, generation: u64) -> Self {
        Self { generation, ..self }
    }

    /// A secret by its number in a plan.
    pub fn secret(&self, number: u32) -> &Secret {
        &self.secrets[number as usize]
    }

    /// All secrets, by their numbers.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// All placeholders.
    pub fn placeholders(&self) -> &Placeholders {
        &self.placeholders
    }

    /// The placeholders that keyferry made, which no body may carry to a host that they are not bound to.
    pub fn generated_placeholders(&self) -> &Placeholders {
        &self.generated
    }
}

impl RuleList {
    fn compile(allowlist: &Allowlist, nth: usize, path: &str) -> Result<Self, CompileError> {
        let owner = if nth == 0 { "allowlist".to_owned() } else { format!("allowlist[{nth}]") };
        let mut list = Self {
            index: HostIndex::default(),
            rules: Vec::new(),
            nets: HashMap::new(),
            warn: allowlist.warn,
        };
        for (at, domain) in allowlist.domains.iter().enumerate() {
            let pattern =
                HostPattern::parse(domain).map_err(|error| bad(&format!("{path}.domains[{at}]"), &error))?;
            list.add(pattern, CompiledRule::whole_host(RuleName(format!("{owner}.domains[{at}]").into())));
        }
        for (at, net) in allowlist.cidrs.iter().enumerate() {
            let name = RuleName(format!("{owner}.cidrs[{at}]").into());
            list.add(HostPattern::Net(*net), CompiledRule::whole_host(name));
        }
        for (at, rule) in allowlist.rules.iter().enumerate() {
            let path = format!("{path}.rules[{at}]");
            let name = RuleName(format!("{owner}.rules[{at}]").into());
            let compiled =
                CompiledRule::new(name, rule, Purpose::Egress).map_err(|error| bad(&path, &error))?;
            list.add(host_pattern(rule).map_err(|error| bad(&path, &error))?, compiled);
        }
        Ok(list)
    }

    fn add(&mut self, pattern: HostPattern, rule: CompiledRule) {
        let number = number(self.rules.len());
        if let (HostPattern::Net(net), Action::Allow) = (&pattern, rule.action) {
            self.nets.insert(number, *net);
        }
        self.index.insert(pattern, number);
        self.rules.push(rule);
    }
}

pub(super) fn bad(path: &str, error: &dyn std::error::Error) -> CompileError {
    CompileError { path: path.to_owned(), message: error.to_string() }
}

/// Numbers are 32 bits; a document that held more entries would be 100 GB of YAML.
fn number(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than 2^32 entries")
}
