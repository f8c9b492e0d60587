//! The audit record: one JSON object per request, on a line of its own.
//!
//! Field names are iron-proxy's where it has the field; the rest are additions. `docs/audit.md` describes each.

mod event;
mod render;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use keyferry_config::policy::Location;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

pub use event::{Beginning, Chain, Dropped, Event, EventKind, Line, Torn};
pub use render::Renderer;
pub(crate) use render::hex;

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// When the request began, UTC, RFC 3339.
    pub time: Timestamp,
    /// `INFO` for what passed, `WARN` for what was refused, `ERROR` for what failed.
    pub level: Level,
    /// What the line is about.
    pub msg: Message,
    /// The request and what became of it.
    #[serde(borrow)]
    pub audit: Audit<'a>,
    /// The tunnel that carried it, if one did.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel<'a>>,
    /// The transform that refused it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub rejected_by: Option<Cow<'a, str>>,
    /// What went wrong, in words.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// The upstream answered 401, a secret had a new value, and the request was sent once more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retried: bool,
    /// What each transform did.
    #[serde(borrow, default, skip_serializing_if = "SmallVec::is_empty")]
    pub request_transforms: SmallVec<[TransformTrace<'a>; 1]>,
    /// What each transform did to the response.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub response_transforms: Vec<TransformTrace<'a>>,
}

/// Severity, as iron-proxy's log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// It passed, or the client went away.
    Info,
    /// It was refused.
    Warn,
    /// It failed.
    Error,
}

/// The kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// A finished request: exactly one for each.
    Request,
    /// An upgrade or a long stream that is still open; its `request` follows when it ends.
    RequestOpen,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was forwarded and answered.
    Allow,
    /// The policy or the protocol refused it.
    Reject,
    /// It was allowed and failed.
    Error,
    /// The client went away before the end.
    ClientCancel,
}

impl Action {
    /// The severity that the record has.
    pub fn level(self) -> Level {
        match self {
            Self::Allow | Self::ClientCancel => Level::Info,
            Self::Reject => Level::Warn,
            Self::Error => Level::Error,
        }
    }
}

/// The request itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit<'a> {
    /// Unique; the same as in the body of a refusal.
    pub request_id: RequestId,
    /// On whose behalf.
    #[serde(borrow)]
    pub principal: Cow<'a, str>,
    /// The sandbox that proved who it is, where one did.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Cow<'a, str>>,
    /// The policy generation that decided.
    pub generation: u64,
    /// The canonical host, without a port; empty where none could be read.
    #[serde(borrow)]
    pub host: Cow<'a, str>,
    /// The port.
    pub port: Option<u16>,
    /// `https` or `http`; null for a tunnel.
    #[serde(borrow)]
    pub scheme: Option<Cow<'a, str>>,
    /// The method as sent.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// The path as sent, without the query.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// The server name of the client's TLS handshake.
    #[serde(borrow)]
    pub sni: Option<Cow<'a, str>>,
    /// `mitm` where TLS was ended, `plain` for cleartext HTTP, `tunnel` for a CONNECT of its own.
    #[serde(borrow)]
    pub mode: Cow<'a, str>,
    /// What became of it.
    pub action: Action,
    /// The code of the refusal or failure.
    #[serde(borrow)]
    pub reason: Option<Cow<'a, str>>,
    /// The rule that decided.
    #[serde(borrow)]
    pub rule: Option<Cow<'a, str>>,
    /// The status that the client saw; null if it saw none.
    pub status_code: Option<u16>,
    /// From the head of the request to the end of the response, in milliseconds.
    pub duration_ms: f64,
    /// Bytes of the request body that the client sent.
    pub bytes_in: u64,
    /// Bytes of the response body that the client was sent.
    pub bytes_out: u64,
    /// The address that was dialled.
    pub upstream_addr: Option<SocketAddr>,
    /// The address that the client has for us; null for a sandbox with a socket of its own, which has none.
    pub remote_addr: Option<SocketAddr>,
    /// `h1` or `h2`.
    #[serde(borrow)]
    pub client_protocol: Option<Cow<'a, str>>,
    /// `h1` or `h2`.
    #[serde(borrow)]
    pub upstream_protocol: Option<Cow<'a, str>>,
    /// The trace that it belongs to, as W3C Trace Context writes it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Cow<'a, str>>,
}

/// The tunnel around a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel<'a> {
    /// `HOST:PORT` of the CONNECT, canonical.
    #[serde(borrow)]
    pub target: Cow<'a, str>,
}

/// What a transform did to the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformTrace<'a> {
    /// Its name, for example `secrets`.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// `allow`, `reject` or `warn`.
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// The details.
    #[serde(borrow, default, skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations<'a>,
}

/// Details of a transform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotations<'a> {
    /// Placeholders that became values.
    #[serde(borrow, default, skip_serializing_if = "SmallVec::is_empty")]
    pub swapped: SmallVec<[SecretUse<'a>; 1]>,
    /// Values that were set.
    #[serde(borrow, default, skip_serializing_if = "SmallVec::is_empty")]
    pub injected: SmallVec<[SecretUse<'a>; 1]>,
    /// Secrets whose value could not be had.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub secret_unavailable: Vec<Cow<'a, str>>,
    /// Where credentials of the client's own left for a host that has a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_passed: Vec<Location>,
    /// Where they were taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_stripped: Vec<Location>,
    /// How often a real value was taken out of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redacted: Option<u64>,
}

impl Annotations<'_> {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A secret and where it went. Names only: no value is ever here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse<'a> {
    /// The secret's name.
    #[serde(borrow)]
    pub secret: Cow<'a, str>,
    /// `header:NAME`, `query:KEY`, `path`, `body`.
    pub locations: Cow<'a, [Location]>,
}

/// Sixteen bytes that name a request: random per process, counted within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// What the ids of one process share.
    pub process: u64,
    /// Its number there.
    pub number: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.process, self.number)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let id = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        let id = id.ok_or_else(|| serde::de::Error::custom("a request id is 32 hexadecimal digits"))?;
        Ok(Self { process: (id >> 64) as u64, number: id as u64 })
    }
}
