//! `proxy`: the listeners, and what holds for every request whatever its destination.

use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::cidr::Cidr;
use super::duration::GoDuration;
use super::field::{Block, Field, List, Parsed, text};
use super::listen::{ListenAddr, OneOrMany};
use super::node::Value;
use super::place::At;
use super::rule;
use super::source::Source;

/// The `proxy` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where clients speak CONNECT and absolute-form HTTP.
    pub tunnel_listen: OneOrMany<ListenAddr>,
    /// Who may use the listener; anybody who reaches it, if absent.
    pub auth: Option<Auth>,
    /// Ports that every rule without `ports` covers; 443 for https and 80 for http, if absent.
    pub allowed_ports: Option<AllowedPorts>,
    /// Private ranges that upstreams may be in.
    pub upstream_allow_cidrs: Vec<IpNet>,
    /// Ranges that upstreams may not be in: `None` leaves the built-in classes, `Some` adds to them, and an empty list
    /// removes them.
    pub upstream_deny_cidrs: Option<Vec<IpNet>>,
    /// How much of a request body may be held where one must be held whole; `None` is no limit (negative in the file).
    pub max_request_body_bytes: Option<u64>,
    /// Read because iron-proxy has it; no response body is held here.
    pub max_response_body_bytes: u64,
    /// How long an upstream may take until its response begins.
    pub upstream_response_header_timeout: Duration,
    /// How long requests may go on after the order to stop.
    pub drain_timeout: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            tunnel_listen: OneOrMany::default(),
            auth: None,
            allowed_ports: None,
            upstream_allow_cidrs: Vec::new(),
            upstream_deny_cidrs: None,
            max_request_body_bytes: Some(DEFAULT_BODY_BYTES),
            max_response_body_bytes: 0,
            upstream_response_header_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

const DEFAULT_BODY_BYTES: u64 = 1024 * 1024;

/// The one name and password that open the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The name.
    pub user: String,
    /// Where the password comes from.
    pub password: Source,
}

/// Ports beyond the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedPorts {
    /// `["*"]`: all of them, as iron-proxy has it.
    Any,
    /// These, for either scheme.
    List(Vec<u16>),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(rename = "tunnel_listen")]
    _tunnel_listen: Block,
    #[serde(rename = "auth")]
    _auth: Block,
    #[serde(rename = "allowed_ports")]
    _allowed_ports: Block,
    upstream_allow_cidrs: Field<List<Parsed<Cidr>>>,
    upstream_deny_cidrs: Field<List<Parsed<Cidr>>>,
    max_request_body_bytes: Field<i64>,
    max_response_body_bytes: Field<i64>,
    #[serde(deserialize_with = "text")]
    upstream_response_header_timeout: Field<GoDuration>,
    #[serde(deserialize_with = "text")]
    drain_timeout: Field<GoDuration>,
}

impl Proxy {
    pub(super) fn read(at: &At<'_>) -> Self {
        let otherwise = Self::default();
        let Some(keys) = at.decode::<Keys>() else { return otherwise };
        let ranges = |list: List<Parsed<Cidr>>| list.all().into_iter().map(|range| range.0.0).collect();
        Self {
            tunnel_listen: OneOrMany::read(&at.key("tunnel_listen")),
            auth: Auth::read(&at.key("auth")),
            allowed_ports: AllowedPorts::read(&at.key("allowed_ports")),
            upstream_allow_cidrs: keys.upstream_allow_cidrs.get().map(ranges).unwrap_or_default(),
            upstream_deny_cidrs: keys.upstream_deny_cidrs.get().map(ranges),
            max_request_body_bytes: match keys.max_request_body_bytes.get() {
                None | Some(0) => Some(DEFAULT_BODY_BYTES),
                Some(bytes) => u64::try_from(bytes).ok(),
            },
            max_response_body_bytes: keys
                .max_response_body_bytes
                .get()
                .map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0)),
            upstream_response_header_timeout: timeout(
                keys.upstream_response_header_timeout,
                &at.key("upstream_response_header_timeout"),
                1,
            )
            .unwrap_or(otherwise.upstream_response_header_timeout),
            drain_timeout: timeout(keys.drain_timeout, &at.key("drain_timeout"), 0)
                .unwrap_or(otherwise.drain_timeout),
        }
    }
}

/// A time of at least so many nanoseconds.
fn timeout(written: Field<GoDuration>, at: &At<'_>, least: u128) -> Option<Duration> {
    let written = written.get()?;
    let time = written.to_std().filter(|time| time.as_nanos() >= least);
    if time.is_none() {
        let bound = if least == 0 { "cannot be negative" } else { "must be more than zero" };
        at.error(format!("{bound}: {}", at.shown()), ());
    }
    time
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthKeys {
    user: Field<String>,
    #[serde(rename = "password")]
    _password: Block,
}

impl Auth {
    fn read(at: &At<'_>) -> Option<Self> {
        at.node()?;
        let keys: AuthKeys = at.decode()?;
        let user = keys.user.not_empty();
        if user.is_absent() {
            at.key("user").error("required", "name the user that clients send");
        }
        let user = user.get();
        if user.as_ref().is_some_and(|user| user.contains(':') || user.chars().any(char::is_control)) {
            // RFC 7617 section 2: the first colon ends the user-id.
            at.key("user").error("a user name holds neither `:` nor control characters", ());
        }
        let password = Source::read(&at.key("password"));
        Some(Self { user: user?, password: password? })
    }
}

impl AllowedPorts {
    fn read(at: &At<'_>) -> Option<Self> {
        let items = at.node().map(|_| at.each())?;
        let is_any = |item: &At<'_>| match item.node().map(|node| &node.value) {
            Some(Value::Scalar(scalar)) => scalar.text == "*",
            _ => false,
        };
        if let [only] = items.as_slice()
            && is_any(only)
        {
            return Some(Self::Any);
        }
        if let Some(star) = items.iter().find(|item| is_any(item)) {
            star.error("\"*\" stands alone", "write [\"*\"] for every port, or a list of ports");
            return None;
        }
        let ports = Field::<List<u16>>::deserialize(at).unwrap_or(Field::Invalid);
        Some(Self::List(rule::ports(ports, at)))
    }
}
