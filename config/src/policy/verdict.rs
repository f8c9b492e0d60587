//! What a policy says about one request.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderName, Method};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use super::Reason;
use super::foreign::Foreign;
use super::rule::RuleName;
use crate::document::ValueError;

/// The head of a request as it would leave: hop-by-hop headers are gone already.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// As sent; methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'a Method,
    /// Path and query as sent, for example `/v1/messages?beta=true`.
    pub target: &'a str,
    /// All header fields.
    pub headers: &'a http::HeaderMap,
}

/// Forward or refuse; there is nothing else.
#[expect(clippy::large_enum_variant, reason = "forwarding is the common case and must not allocate")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it on, with these changes.
    Forward(Plan),
    /// Answer it ourselves.
    Refuse(Refusal),
}

/// A refusal: the reason, and what the sandbox may know about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code, status and hint.
    pub reason: Reason,
    /// One sentence about this very request. Never holds a secret's value.
    pub message: String,
    /// The deny rule that matched, if one did.
    pub rule: Option<RuleName>,
}

impl Refusal {
    /// A refusal that no rule stands behind.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), rule: None }
    }
}

/// What happens to a request that may leave. Secrets are numbers of the policy that made the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The rule that allowed it; none where `default_action: allow` or `warn` did.
    pub rule: Option<RuleName>,
    /// No rule allowed it, but an allowlist with `warn: true` let it pass.
    pub warned: bool,
    /// Placeholders in header values.
    pub headers: SmallVec<[HeaderSwap; 1]>,
    /// Placeholders in path and query, left to right.
    pub target: SmallVec<[TargetSwap; 1]>,
    /// Secrets that are set whether or not the request holds anything of them.
    pub injections: SmallVec<[u32; 1]>,
    /// Credentials of the client's own, where the destination has a secret of ours; shared with the record.
    pub foreign: Option<Arc<Foreign>>,
    /// Secrets whose placeholders are looked for in the body.
    pub body: SmallVec<[u32; 1]>,
    /// Those of `body` with `require`, whose placeholder the head does not hold.
    pub required_in_body: SmallVec<[u32; 1]>,
}

impl Plan {
    /// The secrets that the head carries, each as often as it stands in it, and those that are looked for in the body.
    pub fn secrets(&self) -> impl Iterator<Item = u32> + '_ {
        let headers = self.headers.iter().flat_map(|swap| &swap.hits).map(|hit| hit.secret);
        let target = self.target.iter().map(|swap| swap.hit.secret);
        headers.chain(target).chain(self.injections.iter().copied()).chain(self.body.iter().copied())
    }

    /// Whether the request leaves as it came.
    pub fn changes_nothing(&self) -> bool {
        self.headers.is_empty()
            && self.target.is_empty()
            && self.injections.is_empty()
            && self.body.is_empty()
            && !self.foreign.as_ref().is_some_and(|foreign| foreign.stripped)
    }
}

/// One header value that holds placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderSwap {
    /// The header.
    pub name: HeaderName,
    /// Which of the values of that name, from 0.
    pub nth: usize,
    /// The places are those of the decoded credentials of `Basic` (RFC 7617), which are encoded again.
    pub basic: bool,
    /// Left to right.
    pub hits: SmallVec<[Hit; 1]>,
}

/// One placeholder in the request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSwap {
    /// Where it stands.
    pub place: TargetPlace,
    /// In bytes of the target as sent.
    pub hit: Hit,
}

/// A part of the request target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPlace {
    /// Before the `?`.
    Path,
    /// After it, in the parameter of this name.
    Query(Box<str>),
}

/// Bytes `start..end` are to become the value of `secret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// First byte.
    pub start: usize,
    /// First byte after it.
    pub end: usize,
    /// The secret's number.
    pub secret: u32,
}

/// Where a secret went, as audit records and `explain` write it: `header:authorization`, `query:key`, `path`, `body`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A header field.
    Header(HeaderName),
    /// A query parameter.
    Query(Box<str>),
    /// The path.
    Path,
    /// The body.
    Body,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(key) => write!(f, "query:{key}"),
            Self::Path => f.write_str("path"),
            Self::Body => f.write_str("body"),
        }
    }
}

impl FromStr for Location {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let unknown = ValueError {
            message: "not a place in a request",
            hint: "write header:NAME, query:KEY, path or body",
        };
        match text.split_once(':') {
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| unknown),
            Some(("query", key)) => Ok(Self::Query(key.into())),
            None if text == "path" => Ok(Self::Path),
            None if text == "body" => Ok(Self::Body),
            Some(_) | None => Err(unknown),
        }
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl From<&TargetPlace> for Location {
    fn from(place: &TargetPlace) -> Self {
        match place {
            TargetPlace::Path => Self::Path,
            TargetPlace::Query(key) => Self::Query(key.clone()),
        }
    }
}

/// What a tunnel is told at CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelVerdict {
    /// Open it; the rule that granted it, if one did.
    Open(Option<RuleName>),
    /// Answer 4xx.
    Refuse(Refusal),
}

impl From<Arc<str>> for RuleName {
    fn from(name: Arc<str>) -> Self {
        Self(name)
    }
}
