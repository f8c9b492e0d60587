//! `transforms`: what is done with a request, in order.

use ipnet::IpNet;
use serde::Deserialize;

use super::cidr::Cidr;
use super::collisions;
use super::field::{Block, Field, List, Parsed};
use super::place::At;
use super::rule::{self, Rule};
use super::secrets::{SecretEntry, Secrets};
use super::unsupported;

/// One element of `transforms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Which destinations may be reached.
    Allowlist(Allowlist),
    /// Which placeholders become which credentials, and where.
    Secrets(Secrets),
}

/// The `config` of an `allowlist`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowlist {
    /// Hosts that may be reached with any method and path.
    pub domains: Vec<String>,
    /// Ranges of addresses that may be reached with any method and path.
    pub cidrs: Vec<IpNet>,
    /// What may be reached in particular.
    pub rules: Vec<Rule>,
    /// A request that nothing matches is let through, and its record says so.
    pub warn: bool,
}

const NAMES: [&str; 2] = ["allowlist", "secrets"];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    name: Field<String>,
    #[serde(rename = "config")]
    _config: Block,
}

impl Transform {
    pub(super) fn read_list(at: &At<'_>) -> Vec<Self> {
        let places = at.each();
        let mut entries: Vec<(At<'_>, SecretEntry)> = Vec::new();
        let mut transforms = Vec::new();
        for place in &places {
            let Some(transform) = Self::read(place) else { continue };
            if let Self::Secrets(secrets) = &transform {
                let places = place.key("config").key("secrets").each();
                if places.len() == secrets.secrets.len() {
                    entries.extend(places.into_iter().zip(secrets.secrets.iter().cloned()));
                }
            }
            transforms.push(transform);
        }
        collisions::warn(&entries);
        transforms
    }

    fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let name = keys.name.not_empty();
        if name.is_absent() {
            at.key("name").error("required", format!("valid here: {}", NAMES.join(", ")));
        }
        let config = at.key("config");
        match name.get()?.as_str() {
            "allowlist" => Allowlist::read(&config).map(Self::Allowlist),
            "secrets" => Secrets::read(&config).map(Self::Secrets),
            other if unsupported::TRANSFORMS.contains(&other) => {
                at.key("name").error(
                    format!("`{other}` is an iron-proxy transform that this version does not run"),
                    "leave the transform out",
                );
                None
            }
            other => {
                let name = at.key("name");
                name.error(format!("unknown transform: {}", name.shown()), name.guess(other, &NAMES));
                None
            }
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AllowlistKeys {
    domains: Field<List<String>>,
    cidrs: Field<List<Parsed<Cidr>>>,
    #[serde(rename = "rules")]
    _rules: Block,
    warn: Field<bool>,
}

impl Allowlist {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: AllowlistKeys = at.decode()?;
        let domains: Vec<_> = keys.domains.get().into_iter().flat_map(List::indexed).collect();
        for (index, domain) in &domains {
            let at = at.key("domains").index(*index);
            rule::check_host(domain, &at);
            rule::warn_on_public_suffix(Some(domain), &at);
        }
        Some(Self {
            domains: domains.into_iter().map(|(_, domain)| domain).collect(),
            cidrs: keys
                .cidrs
                .get()
                .map(List::all)
                .unwrap_or_default()
                .into_iter()
                .map(|range| range.0.0)
                .collect(),
            rules: Rule::read_list(&at.key("rules")),
            warn: keys.warn.get().unwrap_or(false),
        })
    }
}
