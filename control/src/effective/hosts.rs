//! Which of two rules covers the other, and whether they can meet. Where this is not sure it says that they meet: the weaker
//! secret then yields to the stronger one's rule in the policy language's own words, which are exact.

use ipnet::IpNet;

use crate::secret::Rule;

/// How two rules stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// No request matches both.
    Never,
    /// Some request may match both.
    Perhaps,
    /// Every request of the weaker one's is the stronger one's.
    Covered,
}

/// A rule and the hosts that it means, read once.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) rule: &'a Rule,
    pub(super) hosts: Pattern,
}

impl<'a> Placed<'a> {
    pub(super) fn new(rule: &'a Rule) -> Self {
        Self { rule, hosts: Pattern::of(rule) }
    }

    /// Whether it names one host.
    pub(super) fn is_exact(&self) -> bool {
        match &self.hosts {
            Pattern::Name(_) => true,
            Pattern::Net(net) => net.prefix_len() == net.max_prefix_len(),
            Pattern::Any | Pattern::Suffix(_) | Pattern::Glob(_) => false,
        }
    }
}

pub(super) fn meeting(stronger: &Placed<'_>, weaker: &Placed<'_>) -> Meeting {
    let (Placed { rule: stronger, hosts: a }, Placed { rule: weaker, hosts: b }) = (stronger, weaker);
    if !a.meets(b)
        || !share(limits(&stronger.http_methods, "*"), limits(&weaker.http_methods, "*"), |a, b| a == b)
        || !share(limits(&stronger.paths, "/*"), limits(&weaker.paths, "/*"), |a, b| paths_meet(a, b))
        || !share(some(&stronger.ports), some(&weaker.ports), |a, b| a == b)
    {
        return Meeting::Never;
    }
    let covers = a.covers(b)
        && contains(&stronger.http_methods, &weaker.http_methods, "*")
        && contains(&stronger.paths, &weaker.paths, "/*")
        && stronger.ports == weaker.ports
        && stronger.schemes == weaker.schemes;
    if covers { Meeting::Covered } else { Meeting::Perhaps }
}

/// What a rule says of hosts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Every name.
    Any,
    /// A name and all below it.
    Suffix(String),
    /// One name.
    Name(String),
    /// Any other pattern of names.
    Glob(String),
    /// Addresses.
    Net(IpNet),
}

impl Pattern {
    fn of(rule: &Rule) -> Self {
        if let Some(net) = rule.cidr.as_deref().and_then(|cidr| cidr.parse::<IpNet>().ok()) {
            return Self::Net(net.trunc());
        }
        let host = rule.host.as_deref().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let plain = |text: &str| !text.contains(['*', '?', '[', '\\']);
        match host.strip_prefix("*.") {
            _ if host == "*" => Self::Any,
            Some(suffix) if plain(suffix) => Self::Suffix(suffix.to_owned()),
            _ if plain(&host) => Self::Name(host),
            _ => Self::Glob(host),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Net(a), Self::Net(b)) => a.contains(b),
            (Self::Net(_), _) | (_, Self::Net(_)) => false,
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (Self::Suffix(a), Self::Suffix(b) | Self::Name(b)) => is_under(b, a),
            (Self::Name(a), Self::Name(b)) | (Self::Glob(a), Self::Glob(b)) => a == b,
            (Self::Name(_), Self::Suffix(_) | Self::Glob(_))
            | (Self::Suffix(_), Self::Glob(_))
            | (Self::Glob(_), Self::Name(_) | Self::Suffix(_)) => false,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Net(a), Self::Net(b)) => a.contains(b) || b.contains(a),
            (Self::Net(_), _) | (_, Self::Net(_)) => false,
            (Self::Glob(_), _) | (_, Self::Glob(_)) => true,
            _ => self.covers(other) || other.covers(self),
        }
    }
}

fn is_under(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn some<T>(list: &Option<Vec<T>>) -> Option<&Vec<T>> {
    list.as_ref().filter(|list| !list.is_empty())
}

/// The texts of a list that restricts; `None` where it means all.
fn limits<'a>(list: &'a Option<Vec<String>>, all: &str) -> Option<&'a Vec<String>> {
    some(list).filter(|list| !list.iter().any(|text| text == all))
}

fn contains(a: &Option<Vec<String>>, b: &Option<Vec<String>>, all: &str) -> bool {
    match (limits(a, all), limits(b, all)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => b.iter().all(|text| a.contains(text)),
    }
}

/// Whether some entry of one goes with one of the other; a list that is absent restricts nothing.
fn share<T>(a: Option<&Vec<T>>, b: Option<&Vec<T>>, fits: impl Fn(&T, &T) -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|one| b.iter().any(|other| fits(one, other))),
        _ => true,
    }
}

/// Whether some path may match both patterns, as far as their beginnings tell.
fn paths_meet(a: &str, b: &str) -> bool {
    match (stem(a), stem(b)) {
        (None, None) => a == b,
        (None, Some(stem)) => a.starts_with(stem),
        (Some(stem), None) => b.starts_with(stem),
        (Some(a), Some(b)) => a.starts_with(b) || b.starts_with(a),
    }
}

/// How every path begins that a pattern matches; `None` where it has no wildcard.
fn stem(pattern: &str) -> Option<&str> {
    let wild = pattern.find(['*', '?', '[', '\\'])?;
    // `/v1/*` matches `/v1`, too.
    let stem = &pattern[..wild];
    Some(stem.strip_suffix('/').unwrap_or(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, methods: &[&str], paths: &[&str]) -> Rule {
        let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
        let (host, cidr) =
            if host.contains('/') { (None, Some(host.to_owned())) } else { (Some(host.to_owned()), None) };
        Rule { host, cidr, http_methods: list(methods), paths: list(paths), ..Rule::default() }
    }

    #[test]
    fn rules_cover_meet_or_miss_each_other() {
        use Meeting::{Covered, Never, Perhaps};
        for (stronger, weaker, expected) in [
            (rule("a.test", &[], &[]), rule("A.test.", &["GET"], &["/x"]), Covered),
            (rule("*.test", &[], &[]), rule("a.b.test", &[], &[]), Covered),
            (rule("*.test", &[], &[]), rule("test", &[], &[]), Covered),
            (rule("*.test", &[], &[]), rule("eviltest", &[], &[]), Never),
            (rule("a.test", &[], &[]), rule("*.test", &[], &[]), Perhaps),
            (rule("*", &[], &[]), rule("*.test", &[], &[]), Covered),
            (rule("*", &[], &[]), rule("10.0.0.0/8", &[], &[]), Never),
            (rule("10.0.0.0/8", &[], &[]), rule("10.1.0.0/16", &[], &[]), Covered),
            (rule("a-*.test", &[], &[]), rule("a-1.test", &[], &[]), Perhaps),
            (rule("a.test", &["GET"], &[]), rule("a.test", &["POST"], &[]), Never),
            (rule("a.test", &["GET"], &[]), rule("a.test", &["*"], &[]), Perhaps),
            (rule("a.test", &["GET", "POST"], &["/*"]), rule("a.test", &["GET"], &["/v1"]), Covered),
            (rule("a.test", &[], &["/v1/*"]), rule("a.test", &[], &["/v2"]), Never),
            (rule("a.test", &[], &["/v1/*"]), rule("a.test", &[], &["/v1"]), Perhaps),
            (rule("a.test", &[], &["/v1/*"]), rule("a.test", &[], &["/v*/x", "/w"]), Perhaps),
            (rule("a.test", &[], &["/a/*"]), rule("a.test", &[], &["/b/*", "/[c]"]), Perhaps),
            (rule("a.test", &[], &["/a/*"]), rule("a.test", &[], &["/b/*", "/c/?"]), Never),
            (rule("a.test", &[], &["/a"]), rule("a.test", &[], &["/a/b"]), Never),
        ] {
            let (one, other) = (Placed::new(&stronger), Placed::new(&weaker));
            assert_eq!(meeting(&one, &other), expected, "{stronger:?} {weaker:?}");
        }
    }
}
