//! `dns`: how upstream names are resolved. iron-proxy's DNS server is not run.

use std::net::SocketAddr;
use std::str::FromStr;

use serde::Deserialize;

use super::field::{Field, text};
use super::place::At;
use super::problem::ValueError;
use super::unsupported::NO_DNS_SERVER;

/// The `dns` block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// The server that is asked for upstream names; the system's, if absent.
    pub upstream_resolver: Option<SocketAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    enabled: Field<bool>,
    #[serde(deserialize_with = "text")]
    upstream_resolver: Field<Resolver>,
}

impl Dns {
    pub(super) fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        if keys.enabled.get() == Some(true) {
            at.key("enabled").error("iron-proxy's DNS server is not run by this version", NO_DNS_SERVER);
        }
        Self { upstream_resolver: keys.upstream_resolver.get().map(|resolver| resolver.0) }
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
