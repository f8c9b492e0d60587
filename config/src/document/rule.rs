//! A rule: which requests are meant. The same words everywhere that the language has rules.

use http::Method;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use super::field::{Field, List, text};
use super::pattern;
use super::place::At;

/// One rule of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// A host name, `*`, `*.suffix` or a glob. Exactly one of this and `cidr` is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A range of addresses, for requests whose host is an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<IpNet>,
    /// Upper-case; empty means any. `["*"]` in the file is empty here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Patterns that begin with `/`; empty means any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Empty means that the rule does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Empty means that the rule does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<Scheme>,
    /// What the rule does with a request that it matches.
    pub action: Action,
    /// What happens to credentials of the client's own on the way to a host with secrets of ours.
    pub foreign_credentials: ForeignCredentials,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "action", rename_all = "lowercase")]
pub enum Action {
    /// It may leave.
    #[default]
    Allow,
    /// It may not, whatever any other rule says.
    Deny,
}

/// What happens to credentials that a client brought itself, where the destination has a secret of ours: with an account of somebody
/// else's, data leaves through a host that is allowed (T51).
///
/// The greater is the stricter.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename = "foreign_credentials", rename_all = "lowercase")]
pub enum ForeignCredentials {
    /// It goes out, and the record says so.
    #[default]
    Allow,
    /// It is taken out of the request.
    Strip,
    /// The request is refused.
    Deny,
}

/// How a request travels to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "scheme", rename_all = "lowercase")]
pub enum Scheme {
    /// Over verified TLS.
    Https,
    /// In the clear.
    Http,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "rule", deny_unknown_fields)]
pub(super) struct Keys {
    /// A name, `*` for every name, `*.example` for any depth and `example` itself, or a glob. One of host and cidr.
    host: Field<String>,
    /// Requests to an address in this range; names are not resolved.
    #[serde(deserialize_with = "text")]
    cidr: Field<Cidr>,
    /// Empty is any.
    methods: Field<List<String>>,
    /// Each begins with `/`; `/v1/*` is `/v1` and everything below; empty is any.
    paths: Field<List<String>>,
    /// Instead of 443 for https, 80 for http and proxy.allowed_ports.
    ports: Field<List<u16>>,
    /// https, http; in a secret's rules only https, if empty.
    schemes: Field<List<Scheme>>,
    /// A deny that matches always wins.
    #[schemars(extend("default" = "allow"))]
    action: Field<Action>,
    /// What happens to credentials of the client's own, in Authorization and in the headers of secrets, where the host has a secret of ours.
    #[schemars(extend("default" = "allow"))]
    foreign_credentials: Field<ForeignCredentials>,
}

impl Rule {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let host = keys.host.not_empty();
        match (&host, &keys.cidr) {
            (Field::Absent, Field::Absent) => {
                at.error("host or cidr is required", "write host: api.example, or cidr: 10.0.0.0/8");
            }
            (Field::Is(_), Field::Is(_)) => {
                at.error("host and cidr are mutually exclusive", "make two rules of it");
            }
            _ => {}
        }
        let host = host.get();
        if let Some(host) = &host {
            check_host(host, &at.key("host"));
        }
        let rule = Self {
            host,
            cidr: keys.cidr.get().map(|range| range.0),
            methods: methods(keys.methods, &at.key("methods")),
            paths: paths(keys.paths, &at.key("paths")),
            ports: ports(keys.ports, &at.key("ports")),
            schemes: keys.schemes.get().map(List::all).unwrap_or_default(),
            action: keys.action.get().unwrap_or_default(),
            foreign_credentials: keys.foreign_credentials.get().unwrap_or_default(),
        };
        if rule.action == Action::Deny && rule.foreign_credentials != ForeignCredentials::Allow {
            at.key("foreign_credentials").warning(
                "a rule that denies lets nothing pass whose credentials could be judged",
                "write it in the rule that allows these requests",
            );
        }
        if rule.action == Action::Allow {
            warn_on_public_suffix(rule.host.as_deref(), &at.key("host"));
        }
        Some(rule)
    }

    pub(super) fn read_list(at: &At<'_>) -> Vec<Self> {
        at.each().iter().filter_map(Self::read).collect()
    }

    /// A list that cannot be empty.
    pub(super) fn read_some(at: &At<'_>) -> Vec<Self> {
        if at.lists_nothing() {
            at.error("at least one rule is required", "say which requests are meant: rules: [{ host: … }]");
        }
        Self::read_list(at)
    }
}

/// Reports a host that cannot be one.
pub(super) fn check_host(host: &str, at: &At<'_>) {
    if host.is_empty() {
        at.error("a host cannot be empty", "write a name, or `*` for every name");
    } else if let Err(bad) = pattern::host(host) {
        at.error(format!("{}: {}", bad.message, at.shown()), bad.hint.map(str::to_owned));
    }
}

/// `*.com` names half of the world; hardly anybody means it.
pub(super) fn warn_on_public_suffix(host: Option<&str>, at: &At<'_>) {
    let label = host.and_then(|host| host.trim_end_matches('.').strip_prefix("*."));
    if label.is_some_and(|label| !label.is_empty() && !label.contains(['.', '*', '?', '['])) {
        at.warning(
            format!("{} matches every name under a top-level domain", at.shown()),
            "name the organisation's own domain, such as *.vendor.example",
        );
    }
}

fn methods(written: Field<List<String>>, at: &At<'_>) -> Vec<String> {
    let written: Vec<_> = written.get().into_iter().flat_map(List::indexed).collect();
    if matches!(written.as_slice(), [(_, only)] if only == "*") {
        return Vec::new();
    }
    for (index, method) in &written {
        let at = at.index(*index);
        if Method::from_bytes(method.as_bytes()).is_err() {
            at.error(format!("not a method: {}", at.shown()), "write a name such as GET or POST");
        } else if method == "*" {
            at.warning("`*` beside other methods is no wildcard", "leave out methods to mean all of them");
        }
    }
    written.into_iter().map(|(_, method)| method.to_ascii_uppercase()).collect()
}

fn paths(written: Field<List<String>>, at: &At<'_>) -> Vec<String> {
    let written: Vec<_> = written.get().into_iter().flat_map(List::indexed).collect();
    for (index, path) in &written {
        let at = at.index(*index);
        if let Err(bad) = pattern::path(path) {
            at.error(format!("{}: {}", bad.message, at.shown()), bad.hint.map(str::to_owned));
        }
    }
    written.into_iter().map(|(_, path)| path).collect()
}

/// Ports that a request can have.
pub(super) fn ports(written: Field<List<u16>>, at: &At<'_>) -> Vec<u16> {
    let written: Vec<_> = written.get().into_iter().flat_map(List::indexed).collect();
    for (index, port) in &written {
        if *port == 0 {
            at.index(*index).error("port 0 does not exist", ());
        }
    }
    written.into_iter().map(|(_, port)| port).collect()
}
