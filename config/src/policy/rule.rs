//! One compiled rule: what it says about a port, a method and a path of a host that it names.

use std::sync::Arc;

use http::Method;

use super::destination::Scheme;
use super::host_index::HostPattern;
use super::path::{NormalPath, PathPattern};
use crate::document::{self, Action, AllowedPorts, ForeignCredentials};

/// What operators and audit records call a rule, for example `allowlist.rules[0]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleName(pub(super) Arc<str>);

impl RuleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) name: RuleName,
    pub(super) action: Action,
    pub(super) foreign_credentials: ForeignCredentials,
    methods: MethodSet,
    paths: Box<[PathPattern]>,
    /// Empty: not said.
    ports: Box<[u16]>,
    https: bool,
    http: bool,
}

/// Which schemes a rule means where it says none: requests of both kinds pass, real values only over TLS (invariant 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Egress,
    Secret,
}

/// The ports that a rule without `ports` means beside its schemes' defaults.
#[derive(Clone, Debug)]
pub(super) enum ExtraPorts {
    Any,
    List(Box<[u16]>),
}

impl From<Option<&AllowedPorts>> for ExtraPorts {
    fn from(ports: Option<&AllowedPorts>) -> Self {
        match ports {
            Some(AllowedPorts::Any) => Self::Any,
            Some(AllowedPorts::List(ports)) => Self::List(ports.as_slice().into()),
            None => Self::List([].into()),
        }
    }
}

impl CompiledRule {
    /// Compiles a rule of the document; an error is about its path patterns, which the document's checks have seen already.
    pub(super) fn new(
        name: RuleName,
        rule: &document::Rule,
        purpose: Purpose,
    ) -> Result<Self, super::glob::GlobError> {
        // A deny rule that says no scheme denies both: it always errs on the closed side.
        let both = purpose == Purpose::Egress || rule.action == Action::Deny;
        Ok(Self {
            name,
            action: rule.action,
            foreign_credentials: rule.foreign_credentials,
            methods: MethodSet::new(&rule.methods),
            paths: rule.paths.iter().map(|path| PathPattern::parse(path)).collect::<Result<_, _>>()?,
            ports: rule.ports.as_slice().into(),
            https: rule.schemes.is_empty() || rule.schemes.contains(&Scheme::Https),
            http: if rule.schemes.is_empty() { both } else { rule.schemes.contains(&Scheme::Http) },
        })
    }

    /// A rule that allows every method and path of a host: an entry of `domains` or `cidrs`.
    pub(super) fn whole_host(name: RuleName) -> Self {
        Self {
            name,
            action: Action::Allow,
            foreign_credentials: ForeignCredentials::Allow,
            methods: MethodSet::new(&[]),
            paths: [].into(),
            ports: [].into(),
            https: true,
            http: true,
        }
    }

    /// Whether the rule is about this scheme and port.
    pub(super) fn covers(&self, scheme: Scheme, port: u16, extra: &ExtraPorts) -> bool {
        let scheme_covered = match scheme {
            Scheme::Https => self.https,
            Scheme::Http => self.http,
        };
        scheme_covered && self.covers_port(scheme, port, extra)
    }

    fn covers_port(&self, scheme: Scheme, port: u16, extra: &ExtraPorts) -> bool {
        if !self.ports.is_empty() {
            return self.ports.contains(&port);
        }
        // Deny means every port where it names none (T17).
        self.action == Action::Deny
            || port == scheme.default_port()
            || match extra {
                ExtraPorts::Any => true,
                ExtraPorts::List(ports) => ports.contains(&port),
            }
    }

    /// Whether an allow rule grants a tunnel to this port, whatever its methods and paths: what flows inside is judged later.
    pub(super) fn opens_tunnel(&self, port: u16, extra: &ExtraPorts) -> bool {
        (self.https && self.covers_port(Scheme::Https, port, extra))
            || (self.http && self.covers_port(Scheme::Http, port, extra))
    }

    /// Whether a deny rule forbids everything that a tunnel to this port could carry.
    pub(super) fn closes_tunnel(&self, port: u16) -> bool {
        self.methods.is_any()
            && self.paths.is_empty()
            && self.https
            && self.http
            && (self.ports.is_empty() || self.ports.contains(&port))
    }

    pub(super) fn allows_method(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    pub(super) fn allows_path(&self, path: &NormalPath<'_>) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path.as_bytes()))
    }

    pub(super) fn names_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    pub(super) fn names_methods(&self) -> bool {
        !self.methods.is_any()
    }

    pub(super) fn names_ports(&self) -> bool {
        !self.ports.is_empty()
    }
}

/// The host pattern of a document's rule, which names exactly one of `host` and `cidr`.
pub(super) fn host_pattern(
    rule: &document::Rule,
) -> Result<HostPattern, super::host_index::HostPatternError> {
    match (&rule.host, &rule.cidr) {
        (Some(host), _) => HostPattern::parse(host),
        (None, Some(net)) => Ok(HostPattern::Net(*net)),
        (None, None) => Err(super::host::HostError::Empty.into()),
    }
}

/// A set of methods: a bit each for the ones of RFC 9110 and PATCH, a list for the rest.
#[derive(Debug, Default)]
struct MethodSet {
    any: bool,
    bits: u16,
    others: Box<[Box<str>]>,
}

impl MethodSet {
    fn new(methods: &[String]) -> Self {
        let mut bits = 0;
        let mut others = Vec::new();
        for method in methods {
            match method.parse().ok().as_ref().and_then(bit) {
                Some(bit) => bits |= bit,
                None => others.push(method.as_str().into()),
            }
        }
        Self { any: methods.is_empty(), bits, others: others.into() }
    }

    fn is_any(&self) -> bool {
        self.any
    }

    fn contains(&self, method: &Method) -> bool {
        self.any
            || match bit(method) {
                Some(bit) => self.bits & bit != 0,
                None => self.others.iter().any(|other| **other == *method.as_str()),
            }
    }
}

fn bit(method: &Method) -> Option<u16> {
    Some(match *method {
        Method::GET => 1,
        Method::HEAD => 1 << 1,
        Method::POST => 1 << 2,
        Method::PUT => 1 << 3,
        Method::DELETE => 1 << 4,
        Method::OPTIONS => 1 << 5,
        Method::TRACE => 1 << 6,
        Method::PATCH => 1 << 7,
        Method::CONNECT => 1 << 8,
        _ => return None,
    })
}
