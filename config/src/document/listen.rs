//! Where a listener stands.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::field::{Field, List};
use super::node::Value;
use super::place::At;
use super::problem::ValueError;
use super::schema::text_schema;

/// An address and a port to listen on; port 0 takes any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// `:3128`: every address of the machine, IPv4 and IPv6 on one socket.
    Any(u16),
    /// `127.0.0.1:3128`, `[::1]:3128`: this address and no other family.
    Socket(SocketAddr),
}

impl ListenAddr {
    /// The address to bind; `[::]` for [`ListenAddr::Any`].
    pub fn socket_addr(&self) -> SocketAddr {
        match self {
            Self::Any(port) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), *port),
            Self::Socket(address) => *address,
        }
    }

    /// Whether the socket also takes IPv4 (`IPV6_V6ONLY` off).
    pub fn is_dual_stack(&self) -> bool {
        matches!(self, Self::Any(_))
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.socket_addr().port()
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, ":{port}"),
            Self::Socket(address) => address.fmt(f),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
            return Ok(Self::Any(port));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            // A listener on a name takes one of its addresses, and IPv4 first; this name needs no resolver.
            return Ok(Self::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::Socket).map_err(|_| ValueError {
            message: "not an address to listen on",
            hint: "write an IP address and a port, such as 127.0.0.1:3128 or [::1]:3128, or :3128 for every address",
        })
    }
}

impl Serialize for ListenAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

text_schema!(ListenAddr, "listen", { "type": "string", "description": "An address and a port, or :PORT for every address.", "pattern": ":[0-9]+$" });

/// One value or a list of them: `tunnel_listen: ":3128"` and `tunnel_listen: [":3128"]` are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OneOrMany<T>(Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    /// The values; empty if the key was not there.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The values, one after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> From<Vec<T>> for OneOrMany<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<'a, T> IntoIterator for &'a OneOrMany<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The schema of a key that [`OneOrMany::read`] reads.
pub(super) struct Listeners;

impl JsonSchema for Listeners {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "listeners".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = Field::<ListenAddr>::json_schema(generator);
        let many = List::<ListenAddr>::json_schema(generator);
        json_schema!({ "anyOf": [one, many] })
    }
}

impl OneOrMany<ListenAddr> {
    pub(super) fn read(at: &At<'_>) -> Self {
        let places = match at.node().map(|node| &node.value) {
            Some(Value::Seq(_)) => at.each(),
            Some(Value::Null | Value::Scalar(_) | Value::Map(_)) | None => vec![at.clone()],
        };
        let mut listeners: Vec<ListenAddr> = Vec::new();
        for place in places {
            let Some(listener) = place.parse::<ListenAddr>().get() else { continue };
            if listener.port() != 0 && listeners.contains(&listener) {
                place.error(format!("this address is here twice: {}", place.shown()), "keep one of the two");
            }
            listeners.push(listener);
        }
        Self(listeners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_has_a_port_and_an_ip_address_or_none() {
        let socket = |text: &str| Some(ListenAddr::Socket(text.parse().expect("a socket address")));
        let cases = [
            (":3128", Some(ListenAddr::Any(3128))),
            ("127.0.0.1:0", socket("127.0.0.1:0")),
            ("0.0.0.0:3128", socket("0.0.0.0:3128")),
            ("[::1]:3128", socket("[::1]:3128")),
            ("localhost:3128", socket("127.0.0.1:3128")),
            ("3128", None),
            (":", None),
            (":65536", None),
            (":http", None),
            ("127.0.0.1", None),
            ("::1:3128", None),
            ("proxy.example:3128", None),
            ("http://127.0.0.1:3128", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    #[test]
    fn every_address_is_one_socket_for_both_families() {
        let any = ListenAddr::Any(3128);
        assert_eq!((any.socket_addr().to_string(), any.is_dual_stack()), ("[::]:3128".to_owned(), true));
    }
}
