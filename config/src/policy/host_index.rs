//! From a host to the rules that name it, without walking all rules.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::glob::{Glob, GlobError, is_literal};
use super::host::{Host, HostError};

/// A `host:` glob or a `cidr:` of a rule.
#[derive(Clone, Debug)]
pub(crate) enum HostPattern {
    /// Hosts below, and shaped like, a suffix that holds no wildcard.
    Names { suffix: Box<str>, shape: Shape },
    /// Address literals inside a network. Names are never resolved to be matched.
    Net(IpNet),
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// The suffix itself.
    Exact,
    /// `*.suffix`: the suffix itself and any name below it; `*`: every name.
    ApexAndBelow,
    /// A wildcard before the suffix, matched against the whole name.
    Glob(Glob),
}

/// Why a `host:` cannot be a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// The part without wildcards is not a host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The wildcards are malformed.
    #[error(transparent)]
    Glob(#[from] GlobError),
}

impl HostPattern {
    pub(crate) fn parse(pattern: &str) -> Result<Self, HostPatternError> {
        let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
        if pattern == "*" {
            return Ok(Self::Names { suffix: "".into(), shape: Shape::ApexAndBelow });
        }
        if is_literal(pattern) {
            return Ok(match pattern.parse()? {
                Host::Name(name) => Self::Names { suffix: name.as_str().into(), shape: Shape::Exact },
                Host::Ip(ip) => Self::Net(ip.into()),
            });
        }
        if let Some(apex) = pattern.strip_prefix("*.").filter(|apex| is_literal(apex)) {
            return Ok(Self::Names { suffix: canonical_suffix(apex)?, shape: Shape::ApexAndBelow });
        }
        let pattern = pattern.to_ascii_lowercase();
        let glob = match pattern.strip_prefix("*.") {
            Some(rest) => Glob::host_or_below(rest)?,
            None => Glob::new(&pattern, '.')?,
        };
        // The labels after the last wildcard are where the index files the glob.
        let wild = pattern.rfind(['*', '?', '[', ']', '\\']).map_or(0, |at| at + 1);
        let suffix = pattern[wild..].split_once('.').map_or("", |(_, suffix)| suffix);
        Ok(Self::Names { suffix: canonical_suffix(suffix)?, shape: Shape::Glob(glob) })
    }
}

fn canonical_suffix(suffix: &str) -> Result<Box<str>, HostError> {
    match suffix {
        "" => Ok("".into()),
        // A single label such as `com` is a suffix though hardly a host; a number is neither.
        suffix => match suffix.parse()? {
            Host::Name(name) => Ok(name.as_str().into()),
            Host::Ip(_) => Err(HostError::OddIpv4),
        },
    }
}

/// An index over many patterns; each stands for the number it was added with.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    names: HashMap<Box<str>, Vec<(Shape, u32)>>,
    nets: Vec<(IpNet, u32)>,
}

/// The numbers that a host has in an index; most hosts have very few.
pub(super) type Hits = SmallVec<[u32; 8]>;

impl HostIndex {
    pub(super) fn insert(&mut self, pattern: HostPattern, number: u32) {
        match pattern {
            HostPattern::Names { suffix, shape } => {
                self.names.entry(suffix).or_default().push((shape, number));
            }
            HostPattern::Net(net) => self.nets.push((net, number)),
        }
    }

    /// The numbers of all patterns that match `host`, ascending.
    pub(super) fn lookup(&self, host: &Host) -> Hits {
        let mut hits = Hits::new();
        match host {
            Host::Name(name) => {
                let name = name.as_str();
                let mut suffix = name;
                loop {
                    for (shape, number) in self.names.get(suffix).into_iter().flatten() {
                        let matches = match shape {
                            Shape::Exact => suffix.len() == name.len(),
                            Shape::ApexAndBelow => true,
                            Shape::Glob(glob) => glob.is_match(name.as_bytes()),
                        };
                        if matches {
                            hits.push(*number);
                        }
                    }
                    if suffix.is_empty() {
                        break;
                    }
                    suffix = suffix.split_once('.').map_or("", |(_, rest)| rest);
                }
            }
            Host::Ip(ip) => hits
                .extend(self.nets.iter().filter(|(net, _)| net_holds(net, *ip)).map(|(_, number)| *number)),
        }
        hits.sort_unstable();
        hits.dedup();
        hits
    }
}

/// Whether `net` holds `ip`, an IPv4-mapped network (`::ffff:10.0.0.0/104`) being the IPv4 network inside it.
fn net_holds(net: &IpNet, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpNet::V6(mapped), IpAddr::V4(v4)) if mapped.prefix_len() >= 96 => {
            mapped.contains(&v4.to_ipv6_mapped())
        }
        _ => net.contains(&ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, host: &str) -> bool {
        let mut index = HostIndex::default();
        let pattern = match pattern.parse::<IpNet>() {
            Ok(net) => HostPattern::Net(net),
            Err(_) => HostPattern::parse(pattern).unwrap(),
        };
        index.insert(pattern, 7);
        let hits = index.lookup(&host.parse().unwrap());
        assert!(matches!(hits.as_slice(), [] | [7]));
        !hits.is_empty()
    }

    #[test]
    fn t16_wildcards_match_by_label() {
        for (pattern, host, expected) in [
            ("x.example", "x.example", true),
            ("X.Example.", "x.example", true),
            ("x.example", "evilx.example", false),
            ("x.example", "a.x.example", false),
            ("*.x.example", "x.example", true),
            ("*.x.example", "a.x.example", true),
            ("*.x.example", "a.b.x.example", true),
            ("*.x.example", "evilx.example", false),
            ("*", "anything.example", true),
            ("*", "localhost", true),
            ("*", "127.0.0.1", false),
            ("api-*.x.example", "api-1.x.example", true),
            ("api-*.x.example", "api-1.b.x.example", false),
            ("api-*.x.example", "api-1.y.example", false),
            ("*.api-*.x.example", "a.api-1.x.example", true),
            ("*.api-*.x.example", "api-1.x.example", true),
            ("a.*.example", "a.b.example", true),
            ("a.*.example", "a.b.c.example", false),
            ("*-prod", "api-prod", true),
            ("*.com", "example.com", true),
            ("bücher.example", "xn--bcher-kva.example", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::/0", "10.1.2.3", false),
            ("10.0.0.0/8", "ten.example", false),
            ("fd00::/8", "[fd00::1]", true),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn what_cannot_be_a_host_cannot_be_a_pattern() {
        for pattern in ["", "https://x.example", "x.example:443", "x.example/a", "a b", "[a", "*.1.2.3"] {
            assert!(HostPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_each_pattern_alone(
            patterns in prop::collection::vec("(\\*\\.|\\*-|)[ab]{1,2}\\.(ex|[ab])(\\.ex)?", 1..8),
            host in "([ab]{1,2}\\.){1,3}(ex|[ab])",
        ) {
            let mut index = HostIndex::default();
            for (number, pattern) in (0..).zip(&patterns) {
                index.insert(HostPattern::parse(pattern).unwrap(), number);
            }
            let alone: Vec<u32> =
                (0..).zip(&patterns).filter(|(_, pattern)| matches(pattern, &host)).map(|(n, _)| n).collect();
            prop_assert_eq!(index.lookup(&host.parse().unwrap()).to_vec(), alone);
        }
    }
}
