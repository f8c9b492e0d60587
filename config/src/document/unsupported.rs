//! What the language has and this version does not run: named, so that nobody takes an ignored block for an enforced one.

use super::proxy::Proxy;
use super::source::{Source, SourceKind};
use super::tls::TlsMode;
use super::transforms::Transform;
use super::{Document, Secrets};

/// A part of a document without an engine in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Its key, such as `transforms[2].name`.
    pub path: String,
    /// What it is: "the transform `judge`".
    pub what: String,
    /// What to do until there is one.
    pub hint: &'static str,
}

/// Everything that keeps a proxy of this version from doing what the document says. Whoever starts one must refuse a document
/// with any: leaving out a transform could let through what it was to stop.
pub fn unsupported(document: &Document) -> Vec<Unsupported> {
    // Named one by one, so that a new block is thought of here.
    let Document {
        proxy,
        tls,
        default_action: _,
        transforms,
        dns,
        metrics: _,
        management: _,
        // How a managed proxy asks; whether one is managed is not the document's to say.
        control_plane: _,
        mcp,
        mcp_gateway,
        postgres,
        log: _,
        audit: _,
    } = document;
    let mut found = Vec::new();
    let mut add = |path: &str, what: &str, hint| {
        found.push(Unsupported { path: path.to_owned(), what: what.to_owned(), hint });
    };
    let Proxy { http_listen, https_listen, upstream_proxy, auth, .. } = proxy;
    if !http_listen.is_empty() {
        add("proxy.http_listen", "iron-proxy's HTTP listener", TUNNEL_ONLY);
    }
    if !https_listen.is_empty() {
        add("proxy.https_listen", "iron-proxy's HTTPS listener", TUNNEL_ONLY);
    }
    if upstream_proxy.is_some() {
        add(
            "proxy.upstream_proxy",
            "upstream proxies",
            "leave the block out; upstreams are dialled directly",
        );
    }
    if tls.mode == TlsMode::SniOnly {
        add("tls.mode", "iron-proxy's sni-only mode", "leave out tls.mode");
    }
    if let Some(key) = dns.server_key() {
        add(&format!("dns.{key}"), "iron-proxy's DNS server", NO_DNS_SERVER);
    }
    if mcp.as_ref().is_some_and(|mcp| !mcp.servers.is_empty()) {
        add(
            "mcp",
            "iron-proxy's MCP policy",
            "leave the block out; requests to MCP servers are judged by the allowlist alone",
        );
    }
    if mcp_gateway.as_ref().is_some_and(|gateway| !gateway.routes.is_empty()) {
        add("mcp_gateway", "iron-proxy's MCP gateway", LEAVE_OUT);
    }
    if postgres.is_some() {
        add("postgres", "iron-proxy's Postgres proxy", LEAVE_OUT);
    }
    if let Some(auth) = auth {
        found.extend(source("proxy.auth.password", &auth.password));
    }
    for (index, transform) in transforms.iter().enumerate() {
        found.extend(self::transform(&format!("transforms[{index}]"), transform));
    }
    found
}

const LEAVE_OUT: &str = "leave the block out";
const TUNNEL_ONLY: &str = "clients reach the proxy through proxy.tunnel_listen (HTTPS_PROXY, HTTP_PROXY)";
const NO_DNS_SERVER: &str = "write dns.enabled: false; sandboxes name the proxy in HTTPS_PROXY, and only dns.upstream_resolver is used";

/// Whether a managed proxy of this version can have values from it: what is delivered needs no reading.
pub(crate) fn is_read(source: &Source) -> bool {
    matches!(source.kind, SourceKind::ControlPlane { .. }) || self::source("", source).is_none()
}

fn transform(path: &str, transform: &Transform) -> Vec<Unsupported> {
    match transform {
        Transform::Allowlist(_) => Vec::new(),
        Transform::Secrets(Secrets { secrets }) => {
            let entries = secrets.iter().enumerate();
            entries
                .filter_map(|(index, entry)| {
                    source(&format!("{path}.config.secrets[{index}].source"), &entry.source)
                })
                .collect()
        }
        Transform::GcpAuth(_)
        | Transform::GcpIdToken(_)
        | Transform::OauthToken(_)
        | Transform::AwsAuth(_)
        | Transform::HmacSign(_)
        | Transform::Annotate(_)
        | Transform::HeaderAllowlist(_)
        | Transform::BodyCapture(_)
        | Transform::Grpc(_)
        | Transform::Judge(_) => vec![Unsupported {
            path: format!("{path}.name"),
            what: format!("the transform `{}`", transform.name()),
            hint: "leave the transform out",
        }],
    }
}

fn source(path: &str, source: &Source) -> Option<Unsupported> {
    match source.kind {
        SourceKind::Env { .. } | SourceKind::File { .. } => None,
        SourceKind::AwsSecretsManager { .. }
        | SourceKind::AwsParameterStore { .. }
        | SourceKind::OnePassword { .. }
        | SourceKind::OnePasswordConnect { .. }
        | SourceKind::VaultKv { .. }
        | SourceKind::ControlPlane { .. } => Some(Unsupported {
            path: format!("{path}.type"),
            what: format!("the source `{}`", source.kind.type_name()),
            hint: "give the value by env or file",
        }),
    }
}
