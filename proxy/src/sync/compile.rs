//! From what was told about a principal to what decides its requests.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use keyferry_config::document::{AllowedPorts, SourceKind, parse_rendered};
use keyferry_config::policy::{Policy, Reason, Refusal};
use keyferry_contract::sync::{PolicyOf, Status};
use keyferry_source::{Delivered, SecretHandle, Sources};
use secrecy::SecretString;

/// A policy that can be put in force.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) policy: Policy,
    /// By the policy's numbers.
    pub(super) secrets: Vec<Arc<SecretHandle>>,
    /// The delivered ones, by their ids.
    pub(super) delivered: HashMap<String, Arc<Delivered>>,
    /// Values that count once it is in force.
    pub(super) values: Vec<(Arc<Delivered>, SecretString)>,
    /// What it asks for and this version does not run.
    pub(super) unsupported: Vec<String>,
    /// When it is another one by itself.
    pub(super) ends: Option<Timestamp>,
}

/// Compiles it as it is at `now`. What cannot be enforced refuses everything. `before` are the values that the principal has.
pub(super) fn compile(
    of: &PolicyOf,
    ports: Option<&AllowedPorts>,
    sources: &Sources,
    before: &HashMap<String, Arc<Delivered>>,
    now: Timestamp,
) -> Compiled {
    let policy = match of.status {
        Status::Assigned => assigned(of, ports, now).unwrap_or_else(|error| {
            tracing::error!(
                policy = of.id,
                error,
                "a policy cannot be enforced, and everything is refused to its principal"
            );
            closed(Reason::PolicyIncompatible, "the policy cannot be enforced by this version of the proxy")
        }),
        Status::Unassigned => closed(Reason::ProxyUnassigned, "no principal is assigned to this proxy"),
        Status::Incompatible => closed(
            Reason::PolicyIncompatible,
            "the policy needs something that this version of the proxy cannot do",
        ),
    };
    let mut values: HashMap<String, SecretString> = of.policy.values(now).into_iter().collect();
    let (mut delivered, mut fresh) = (HashMap::new(), Vec::new());
    let mut secrets = Vec::with_capacity(policy.secrets().len());
    for secret in policy.secrets() {
        let source = secret.source();
        let SourceKind::ControlPlane { id: Some(id), .. } = &source.kind else {
            secrets.push(sources.get(source));
            continue;
        };
        let value = values.remove(id);
        let known = delivered.get(id).or_else(|| before.get(id)).cloned();
        let it: Arc<Delivered> = match (known, value) {
            (Some(known), Some(value)) => {
                fresh.push((Arc::clone(&known), value));
                known
            }
            (Some(known), None) => known,
            (None, value) => {
                Arc::new(sources.delivered(source, secret.name().to_string(), value.unwrap_or_default()))
            }
        };
        secrets.push(Arc::clone(it.handle()));
        delivered.insert(id.clone(), it);
    }
    let databases = of.policy.postgres.iter().map(|_| "the kind pg_dsn".to_owned());
    let unsupported = policy.unsupported().map(str::to_owned).chain(databases).collect();
    let ends = of.policy.next_expiry(now);
    Compiled { policy, secrets, delivered, values: fresh, unsupported, ends }
}

fn assigned(of: &PolicyOf, ports: Option<&AllowedPorts>, now: Timestamp) -> Result<Policy, String> {
    // As it may be shown: no value goes through the parser, whose buffers are not wiped.
    let json = serde_json::to_string(&of.policy.document(now)).map_err(|error| error.to_string())?;
    let loaded = parse_rendered(&of.id, &json).map_err(|problems| problems.to_string())?;
    let mut document = loaded.document;
    document.proxy.allowed_ports = ports.cloned();
    let mut policy = Policy::compile(&document, 0).map_err(|error| error.to_string())?;
    policy.refuse_unsupported(&document).map_err(|error| error.to_string())?;
    Ok(policy)
}

/// A policy that refuses everything.
pub(super) fn closed(reason: Reason, message: &str) -> Policy {
    Policy::closed(Refusal::new(reason, message), 0)
}
