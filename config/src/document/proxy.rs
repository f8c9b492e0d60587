//! `proxy`: the listeners, and what holds for every request whatever its destination.

use std::borrow::Cow;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::cidr::Cidr;
use super::duration::{self, GoDuration};
use super::field::{Block, Field, List, Parsed, text};
use super::listen::{ListenAddr, Listeners, OneOrMany};
use super::node::Value;
use super::place::At;
use super::rule;
use super::source::{self, Source};
use super::upstream_proxy::{self, UpstreamProxy};

/// The `proxy` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proxy {
    /// Where requests arrive whose clients believe that they talk to the host itself, over plain HTTP.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub http_listen: OneOrMany<ListenAddr>,
    /// The same over TLS.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub https_listen: OneOrMany<ListenAddr>,
    /// Where clients speak CONNECT and absolute-form HTTP.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub tunnel_listen: OneOrMany<ListenAddr>,
    /// Who may use the listener; anybody who reaches it, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Ports that every rule without `ports` covers; 443 for https and 80 for http, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_ports: Option<AllowedPorts>,
    /// Private ranges that upstreams may be in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream_allow_cidrs: Vec<IpNet>,
    /// Ranges that upstreams may not be in: `None` leaves the built-in classes, `Some` adds to them, and an empty list
    /// removes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_deny_cidrs: Option<Vec<IpNet>>,
    /// Another proxy on the way to the upstreams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_proxy: Option<UpstreamProxy>,
    /// How much of a request body may be held where one must be held whole; `None` is no limit (negative in the file).
    #[serde(serialize_with = "write_limit")]
    pub max_request_body_bytes: Option<u64>,
    /// Read because iron-proxy has it; no response body is held here.
    pub max_response_body_bytes: u64,
    /// How long an upstream may take until its response begins.
    #[serde(serialize_with = "duration::write")]
    pub upstream_response_header_timeout: Duration,
    /// How long requests may go on after the order to stop.
    #[serde(serialize_with = "duration::write")]
    pub drain_timeout: Duration,
    /// Whether upstreams are told the trace that a request belongs to.
    pub propagate_trace: bool,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            http_listen: OneOrMany::default(),
            https_listen: OneOrMany::default(),
            tunnel_listen: OneOrMany::default(),
            auth: None,
            allowed_ports: None,
            upstream_allow_cidrs: Vec::new(),
            upstream_deny_cidrs: None,
            upstream_proxy: None,
            max_request_body_bytes: Some(DEFAULT_BODY_BYTES),
            max_response_body_bytes: 0,
            upstream_response_header_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
            propagate_trace: false,
        }
    }
}

const DEFAULT_BODY_BYTES: u64 = 1024 * 1024;

/// The one name and password that open the listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

fn write_limit<S: Serializer>(limit: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match limit {
        Some(bytes) => serializer.serialize_u64(*bytes),
        None => serializer.serialize_i64(-1),
    }
}

impl Serialize for AllowedPorts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => ["*"].serialize(serializer),
            Self::List(ports) => ports.serialize(serializer),
        }
    }
}

/// The schema of a key that [`AllowedPorts::read`] reads.
struct Ports;

impl JsonSchema for Ports {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ports".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ports = Field::<List<u16>>::json_schema(generator);
        json_schema!({ "anyOf": [ports, { "const": ["*"] }] })
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "proxy", deny_unknown_fields)]
pub(super) struct Keys {
    /// Where requests arrive whose clients were led here by DNS or routing: plain HTTP.
    #[serde(rename = "http_listen")]
    #[schemars(with = "Listeners")]
    _http_listen: Block,
    /// Where requests arrive whose clients were led here by DNS or routing: HTTPS.
    #[serde(rename = "https_listen")]
    #[schemars(with = "Listeners")]
    _https_listen: Block,
    /// Where clients send CONNECT and absolute-form HTTP (HTTPS_PROXY, HTTP_PROXY).
    #[serde(rename = "tunnel_listen")]
    #[schemars(with = "Listeners")]
    _tunnel_listen: Block,
    /// What a client must send as Basic in Proxy-Authorization.
    #[serde(rename = "auth")]
    #[schemars(with = "Option<AuthKeys>")]
    _auth: Block,
    /// Ports that rules without `ports` cover, beside 443 for https and 80 for http; ["*"] is all.
    #[serde(rename = "allowed_ports")]
    #[schemars(with = "Ports")]
    _allowed_ports: Block,
    /// Private ranges that upstreams may be in.
    upstream_allow_cidrs: Field<List<Parsed<Cidr>>>,
    /// Ranges that upstreams may not be in, beside the built-in ones; an explicit [] removes those.
    upstream_deny_cidrs: Field<List<Parsed<Cidr>>>,
    /// Another proxy on the way to the upstreams.
    #[serde(rename = "upstream_proxy")]
    #[schemars(with = "Option<upstream_proxy::Keys>")]
    _upstream_proxy: Block,
    /// How much of a body may be held where one must be held whole; 0 is the default, negative is no limit.
    #[schemars(extend("default" = DEFAULT_BODY_BYTES))]
    max_request_body_bytes: Field<i64>,
    /// Read for compatibility; responses are not held.
    #[schemars(extend("default" = 0))]
    max_response_body_bytes: Field<i64>,
    /// How long an upstream may take until its response begins; more than zero.
    #[serde(deserialize_with = "text")]
    #[schemars(extend("default" = "300s"))]
    upstream_response_header_timeout: Field<GoDuration>,
    /// How long requests may go on after the order to stop.
    #[serde(deserialize_with = "text")]
    #[schemars(extend("default" = "5s"))]
    drain_timeout: Field<GoDuration>,
    /// Whether upstreams are sent `traceparent` and `tracestate`.
    #[schemars(extend("default" = false))]
    propagate_trace: Field<bool>,
}

impl Proxy {
    pub(super) fn read(at: &At<'_>) -> Self {
        let otherwise = Self::default();
        let Some(keys) = at.decode::<Keys>() else { return otherwise };
        let ranges = |list: List<Parsed<Cidr>>| list.all().into_iter().map(|range| range.0.0).collect();
        Self {
            http_listen: OneOrMany::read(&at.key("http_listen")),
            https_listen: OneOrMany::read(&at.key("https_listen")),
            tunnel_listen: OneOrMany::read(&at.key("tunnel_listen")),
            auth: Auth::read(&at.key("auth")),
            allowed_ports: AllowedPorts::read(&at.key("allowed_ports")),
            upstream_allow_cidrs: keys.upstream_allow_cidrs.get().map(ranges).unwrap_or_default(),
            upstream_deny_cidrs: keys.upstream_deny_cidrs.get().map(ranges),
            upstream_proxy: UpstreamProxy::read(&at.key("upstream_proxy")),
            max_request_body_bytes: match keys.max_request_body_bytes.get() {
                None | Some(0) => Some(DEFAULT_BODY_BYTES),
                Some(bytes) => u64::try_from(bytes).ok(),
            },
            max_response_body_bytes: keys
                .max_response_body_bytes
                .get()
                .map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0)),
            upstream_response_header_timeout: duration::at_least(
                keys.upstream_response_header_timeout,
                &at.key("upstream_response_header_timeout"),
                1,
            )
            .unwrap_or(otherwise.upstream_response_header_timeout),
            drain_timeout: duration::at_least(keys.drain_timeout, &at.key("drain_timeout"), 0)
                .unwrap_or(otherwise.drain_timeout),
            propagate_trace: keys.propagate_trace.get().unwrap_or(otherwise.propagate_trace),
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "auth", deny_unknown_fields)]
struct AuthKeys {
    /// The user that clients send.
    user: Field<String>,
    /// Where the password comes from.
    #[serde(rename = "password")]
    #[schemars(with = "Option<source::Keys>")]
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
