//! `mcp_gateway`: MCP servers that clients reach under another address, with credentials of ours.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Block, Field};
use super::place::At;
use super::rule::{self, Rule};
use super::secrets::{self, Inject};
use super::source::{self, Source};
use super::url::{ServiceUrl, Use};

/// The `mcp_gateway` block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct McpGateway {
    /// The routes, in order.
    pub routes: Vec<McpRoute>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McpRoute {
    /// What records call it.
    pub name: String,
    /// The requests that go to it.
    pub rules: Vec<Rule>,
    /// Where it really is.
    pub upstream: ServiceUrl,
    /// What it is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<GatewayCredential>,
}

/// A credential of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayCredential {
    /// Where the value comes from.
    pub source: Source,
    /// Where it is set.
    pub inject: Inject,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp_gateway", deny_unknown_fields)]
pub(super) struct Keys {
    /// The routes.
    #[serde(rename = "routes")]
    #[schemars(with = "Option<Vec<RouteKeys>>")]
    _routes: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp_route", deny_unknown_fields)]
struct RouteKeys {
    /// What records call it; no two routes share a name.
    name: Field<String>,
    /// The requests that go to it; at least one rule.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// Where the server really is: an https or http URL.
    upstream: Field<String>,
    /// What the server is shown.
    #[serde(rename = "credentials")]
    #[schemars(with = "Option<Vec<CredentialKeys>>")]
    _credentials: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "mcp_credential", deny_unknown_fields)]
struct CredentialKeys {
    /// Where the value comes from.
    #[serde(rename = "source")]
    #[schemars(with = "Option<source::Keys>")]
    _source: Block,
    /// Where it is set.
    #[serde(rename = "inject")]
    #[schemars(with = "Option<secrets::InjectKeys>")]
    _inject: Block,
    /// Refuse a request while the value cannot be had.
    #[schemars(extend("default" = true))]
    require: Field<bool>,
}

impl McpGateway {
    /// `None` where the block is absent or empty, which asks for nothing.
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.block::<Keys>()?;
        let mut names = HashSet::new();
        let routes = at.key("routes").each();
        Some(Self { routes: routes.iter().filter_map(|at| McpRoute::read(at, &mut names)).collect() })
    }
}

impl McpRoute {
    fn read(at: &At<'_>, names: &mut HashSet<String>) -> Option<Self> {
        let keys: RouteKeys = at.decode()?;
        let name = at.required_text(keys.name, "name", "what records call the route");
        if let Some(name) = &name {
            at.key("name").check_new(name, names, "route");
        }
        let rules = Rule::read_some(&at.key("rules"));
        let upstream = ServiceUrl::read(keys.upstream, &at.key("upstream"), Use::Service);
        if upstream.is_absent() {
            at.key("upstream").error("required", "name the URL of the server");
        }
        let credentials = at.key("credentials").each().iter().filter_map(GatewayCredential::read).collect();
        Some(Self { name: name?, rules, upstream: upstream.get()?, credentials })
    }
}

impl GatewayCredential {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: CredentialKeys = at.decode()?;
        let source = Source::read(&at.key("source"));
        let inject = at.key("inject");
        if inject.node().is_none() {
            inject.error("required", "write inject: { header: Authorization }");
        }
        let inject = inject.node().and_then(|_| Inject::read(&inject));
        let require = keys.require.get().unwrap_or(true);
        Some(Self { source: source?, inject: Inject { require, ..inject? } })
    }
}
