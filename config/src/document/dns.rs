//! `dns`: how upstream names are resolved, and iron-proxy's DNS server for sandboxes.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Block, Field, List, text};
use super::listen::ListenAddr;
use super::place::At;
use super::problem::ValueError;
use super::rule;
use super::schema::text_schema;

/// The `dns` block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Whether the server runs, where the file says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where the server listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenAddr>,
    /// What intercepted names resolve to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_ip: Option<Ipv4Addr>,
    /// The server that is asked for upstream names; the system's, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_resolver: Option<SocketAddr>,
    /// Names that are answered truthfully.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passthrough: Vec<String>,
    /// Names with answers of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<DnsRecord>,
}

/// An answer of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum DnsRecord {
    /// An address.
    A {
        /// The name that is asked for.
        name: String,
        /// Its address.
        value: Ipv4Addr,
    },
    /// Another name.
    #[serde(rename = "CNAME")]
    Cname {
        /// The name that is asked for.
        name: String,
        /// The name that it stands for.
        value: String,
    },
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "dns", deny_unknown_fields)]
pub(super) struct Keys {
    /// Whether iron-proxy's DNS server runs. Without it, the server is asked for by any of its keys.
    enabled: Field<bool>,
    /// Where the DNS server listens, UDP.
    #[serde(deserialize_with = "text")]
    listen: Field<ListenAddr>,
    /// What intercepted names resolve to; required by the server.
    #[serde(deserialize_with = "text")]
    proxy_ip: Field<ProxyIp>,
    /// Who is asked for upstream names; the system's resolver, if absent.
    #[serde(deserialize_with = "text")]
    upstream_resolver: Field<Resolver>,
    /// Names that the server answers truthfully.
    passthrough: Field<List<String>>,
    /// Names with answers of their own.
    #[serde(rename = "records")]
    #[schemars(with = "Option<Vec<RecordKeys>>")]
    _records: Block,
}

impl Dns {
    pub(super) fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        let lacks_address = keys.proxy_ip.is_absent();
        let passthrough: Vec<_> = keys.passthrough.get().into_iter().flat_map(List::indexed).collect();
        for (index, name) in &passthrough {
            rule::check_host(name, &at.key("passthrough").index(*index));
        }
        let dns = Self {
            enabled: keys.enabled.get(),
            listen: keys.listen.get(),
            proxy_ip: keys.proxy_ip.get().map(|address| address.0),
            upstream_resolver: keys.upstream_resolver.get().map(|resolver| resolver.0),
            passthrough: passthrough.into_iter().map(|(_, name)| name).collect(),
            records: at.key("records").each().iter().filter_map(DnsRecord::read).collect(),
        };
        if lacks_address && dns.server_key().is_some() {
            at.key("proxy_ip").error(
                "required by the DNS server",
                "name the address that intercepted names resolve to, or write enabled: false",
            );
        }
        dns
    }

    /// The key that asks for the server, if one does. iron-proxy runs it by default; here it is asked for.
    pub(super) fn server_key(&self) -> Option<&'static str> {
        match self.enabled {
            Some(false) => None,
            Some(true) => Some("enabled"),
            None if self.listen.is_some() => Some("listen"),
            None if self.proxy_ip.is_some() => Some("proxy_ip"),
            None if !self.passthrough.is_empty() => Some("passthrough"),
            None if !self.records.is_empty() => Some("records"),
            None => None,
        }
    }
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename = "type of record")]
enum RecordType {
    A,
    #[serde(rename = "CNAME")]
    Cname,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "dns_record", deny_unknown_fields)]
struct RecordKeys {
    /// The name that is asked for.
    name: Field<String>,
    /// What kind of answer it is.
    #[serde(rename = "type")]
    kind: Field<RecordType>,
    /// The address of an A, the name of a CNAME.
    value: Field<String>,
}

impl DnsRecord {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: RecordKeys = at.decode()?;
        let name = at.required_text(keys.name, "name", "the name that is asked for");
        let value = at.required_text(keys.value, "value", "the answer");
        if keys.kind.is_absent() {
            at.key("type").error("required", "valid here: A, CNAME");
        }
        match keys.kind.get()? {
            RecordType::A => {
                let place = at.key("value");
                let address = value?.parse().map_err(|_| {
                    place.error(
                        format!("not an IPv4 address: {}", place.shown()),
                        "an A record holds an address",
                    );
                });
                Some(Self::A { name: name?, value: address.ok()? })
            }
            RecordType::Cname => Some(Self::Cname { name: name?, value: value? }),
        }
    }
}

struct Resolver(SocketAddr);

impl FromStr for Resolver {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(Self).map_err(|_| ValueError {
            message: "not the address of a resolver",
            hint: "write an IP address and a port, such as 192.0.2.53:53",
        })
    }
}

text_schema!(Resolver, "resolver", { "type": "string", "description": "An IP address and a port, such as 192.0.2.53:53.", "pattern": "^[0-9a-fA-F.:\\[\\]]+$" });

struct ProxyIp(Ipv4Addr);

impl FromStr for ProxyIp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(Self).map_err(|_| ValueError {
            message: "not an IPv4 address",
            hint: "write the proxy's IPv4 address as sandboxes see it",
        })
    }
}

text_schema!(ProxyIp, "ipv4", { "type": "string", "description": "An IPv4 address.", "pattern": "^[0-9a-fA-F.:\\[\\]]+$" });
