//! From the text of a file to a [`Document`], or to everything that is wrong with it.

use std::slice;

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Block, Field};
use super::listen::ListenAddr;
use super::node::Node;
use super::place::{At, Findings, Place};
use super::problem::{Problems, Severity};
use super::unsupported::unsupported;
use super::{
    Action, Audit, ControlPlane, Dns, Document, Log, Management, Mcp, McpGateway, Metrics, Postgres, Proxy,
    Tls, Transform,
};
use super::{
    audit, control_plane, dns, interpolate, log, management, mcp, mcp_gateway, metrics, node, overrides,
    postgres, proxy, tls, transforms,
};

/// How strictly a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Unknown keys inside a transform's `config` are warnings. iron-proxy ignores them, so a file written for it may hold
    /// some.
    pub lenient: bool,
}

/// A file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub document: Document,
    /// What its author should look at.
    pub warnings: Problems,
    /// What it asks for and this version does not run; whoever starts a proxy refuses a file with any.
    pub unsupported: Problems,
}

/// Reads `text`. `file_name` is for messages alone; `environment` answers `${NAME}`, `KEYFERRY_*` and `IRON_*`.
///
/// The error holds every problem that was found, warnings included.
pub fn parse(
    file_name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    options: Options,
) -> Result<Loaded, Problems> {
    let findings = Findings::new(options.lenient);
    let root = tree(file_name, text, environment, &findings)?;
    let document = Document::read(&At::root(&root, &findings));
    let problems = Problems::new(file_name, findings.into_list());
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems);
    }
    let refusals = Findings::new(options.lenient);
    overrides::refuse(&Place::root(root.origin, &refusals), environment);
    for part in unsupported(&document) {
        let place = At::root(&root, &refusals).follow(&part.path);
        place.error(format!("this version does not run {}", part.what), part.hint);
    }
    let unsupported = Problems::new(file_name, refusals.into_list());
    Ok(Loaded { document, warnings: problems, unsupported })
}

/// Something about a key that its file alone does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWarning {
    /// The key, such as `transforms[1].config.secrets[0].source`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

/// Gives warnings the places of their keys in `text`, which has been read before.
pub fn warn_at(
    file_name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    warnings: &[KeyWarning],
) -> Result<Problems, Problems> {
    let root = tree(file_name, text, environment, &Findings::new(true))?;
    let findings = Findings::new(true);
    for KeyWarning { path, message, hint } in warnings {
        At::root(&root, &findings).follow(path).warning(message.as_str(), *hint);
    }
    Ok(Problems::new(file_name, findings.into_list()))
}

/// The file as a tree, with what the environment says in it.
pub(super) fn tree(
    file_name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    findings: &Findings,
) -> Result<Node, Problems> {
    let mut root = node::parse(text).map_err(|problem| Problems::new(file_name, vec![problem]))?;
    let place = Place::root(root.origin, findings);
    interpolate::interpolate(&mut root, &place, environment);
    overrides::apply(&mut root, &place, environment);
    Ok(root)
}

/// The blocks of a file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "document", deny_unknown_fields)]
pub(super) struct Keys {
    /// Listeners, limits and timeouts.
    #[serde(rename = "proxy")]
    #[schemars(with = "Option<proxy::Keys>")]
    _proxy: Block,
    /// The authority that signs for hosts, and whom we trust upstream.
    #[serde(rename = "tls")]
    #[schemars(with = "Option<tls::Keys>")]
    _tls: Block,
    /// What happens where the file has no allowlist.
    #[schemars(extend("default" = "deny"))]
    default_action: Field<Action>,
    /// What is done with a request, in order.
    #[serde(rename = "transforms")]
    #[schemars(with = "Option<Vec<transforms::Keys>>")]
    _transforms: Block,
    /// How upstream names are resolved, and iron-proxy's DNS server.
    #[serde(rename = "dns")]
    #[schemars(with = "Option<dns::Keys>")]
    _dns: Block,
    /// Which tools of MCP servers may be called.
    #[serde(rename = "mcp")]
    #[schemars(with = "Option<mcp::Keys>")]
    _mcp: Block,
    /// MCP servers that clients reach under another address.
    #[serde(rename = "mcp_gateway")]
    #[schemars(with = "Option<mcp_gateway::Keys>")]
    _mcp_gateway: Block,
    /// Databases that clients reach with a shared password.
    #[serde(rename = "postgres")]
    #[schemars(with = "Option<postgres::Keys>")]
    _postgres: Block,
    /// How a managed proxy asks for its policy.
    #[serde(rename = "control_plane")]
    #[schemars(with = "Option<control_plane::Keys>")]
    _control_plane: Block,
    /// The operators' listener.
    #[serde(rename = "metrics")]
    #[schemars(with = "Option<metrics::Keys>")]
    _metrics: Block,
    /// The listener that reloads.
    #[serde(rename = "management")]
    #[schemars(with = "Option<management::Keys>")]
    _management: Block,
    /// What the process says about itself.
    #[serde(rename = "log")]
    #[schemars(with = "Option<log::Keys>")]
    _log: Block,
    /// Where the record of each request goes.
    #[serde(rename = "audit")]
    #[schemars(with = "Option<audit::Keys>")]
    _audit: Block,
}

impl Document {
    pub(super) fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        let proxy = Proxy::read(&at.key("proxy"));
        let ends_tls = match (proxy.tunnel_listen.is_empty(), proxy.https_listen.is_empty()) {
            (false, _) => Some("proxy.tunnel_listen"),
            (true, false) => Some("proxy.https_listen"),
            (true, true) => None,
        };
        let document = Self {
            tls: Tls::read(&at.key("tls"), ends_tls),
            default_action: keys.default_action.get().unwrap_or(Action::Deny),
            transforms: Transform::read_list(&at.key("transforms")),
            dns: Dns::read(&at.key("dns")),
            mcp: Mcp::read(&at.key("mcp")),
            mcp_gateway: McpGateway::read(&at.key("mcp_gateway")),
            postgres: Postgres::read(&at.key("postgres")),
            control_plane: ControlPlane::read(&at.key("control_plane")),
            metrics: Metrics::read(&at.key("metrics")),
            management: Management::read(&at.key("management")),
            log: Log::read(&at.key("log")),
            audit: Audit::read(&at.key("audit")),
            proxy,
        };
        document.report_shared_addresses(at);
        document
    }

    /// Two listeners cannot have one address. Equal addresses in one list are reported by the list.
    fn report_shared_addresses(&self, at: &At<'_>) {
        let proxy = &self.proxy;
        let postgres = self.postgres.as_ref().map_or(&[][..], |postgres| slice::from_ref(&postgres.listen));
        let listeners: [(&str, &str, &[ListenAddr]); 6] = [
            ("proxy", "tunnel_listen", proxy.tunnel_listen.as_slice()),
            ("proxy", "http_listen", proxy.http_listen.as_slice()),
            ("proxy", "https_listen", proxy.https_listen.as_slice()),
            ("metrics", "listen", self.metrics.listen.as_slice()),
            ("management", "listen", self.management.listen.as_slice()),
            ("postgres", "listen", postgres),
        ];
        for (index, (block, key, addresses)) in listeners.iter().enumerate() {
            let taken = listeners[..index].iter().find(|(_, _, earlier)| {
                earlier.iter().any(|address| address.port() != 0 && addresses.contains(address))
            });
            if let Some((other_block, other_key, _)) = taken {
                let at = at.key(block).key(key);
                at.error(
                    format!("{other_block}.{other_key} has this address already: {}", at.shown()),
                    "take another port",
                );
            }
        }
    }
}
