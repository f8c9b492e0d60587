//! `proxy.upstream_proxy`: another proxy on the way to the upstreams.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::Field;
use super::place::At;
use super::url::{ServiceUrl, Use};

/// The `proxy.upstream_proxy` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpstreamProxy {
    /// For requests over plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<ServiceUrl>,
    /// For requests over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_proxy: Option<ServiceUrl>,
    /// Hosts that are reached directly, as `NO_PROXY` has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "upstream_proxy", deny_unknown_fields)]
pub(super) struct Keys {
    /// The proxy for requests over plain HTTP: an http, https, socks5 or socks5h URL.
    http_proxy: Field<String>,
    /// The proxy for requests over TLS: an http, https, socks5 or socks5h URL.
    https_proxy: Field<String>,
    /// Hosts that are reached directly, separated by commas.
    no_proxy: Field<String>,
}

impl UpstreamProxy {
    /// `None` where no key of the block says anything.
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.block()?;
        let read = Self {
            http_proxy: ServiceUrl::read(keys.http_proxy, &at.key("http_proxy"), Use::Proxy).get(),
            https_proxy: ServiceUrl::read(keys.https_proxy, &at.key("https_proxy"), Use::Proxy).get(),
            no_proxy: keys.no_proxy.not_empty().get(),
        };
        let says_nothing = read.http_proxy.is_none() && read.https_proxy.is_none() && read.no_proxy.is_none();
        (!says_nothing).then_some(read)
    }
}
