//! What iron-proxy reads and this version does not run: recognised and refused by name, so that nobody takes a silently
//! ignored block for an enforced one.

/// Why a known key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    kind: &'static str,
    hint: Option<&'static str>,
}

impl Refusal {
    pub(super) fn message(self, path: &str) -> String {
        format!("`{path}` is an iron-proxy {} that this version does not run", self.kind)
    }

    pub(super) fn hint(self) -> Option<String> {
        self.hint.map(str::to_owned)
    }
}

/// The refusal of `key` in the block at `shape`, a path without indexes.
pub(super) fn key(shape: &str, key: &str) -> Option<Refusal> {
    KEYS.iter()
        .find(|(block, name, _, _)| *block == shape && *name == key)
        .map(|(_, _, kind, hint)| Refusal { kind, hint: *hint })
}

/// block, key, what it is, what to do instead
const KEYS: &[(&str, &str, &str, Option<&str>)] = &[
    ("", "control_plane", "block", Some("leave the block out")),
    (
        "",
        "mcp",
        "block",
        Some("leave the block out; requests to MCP servers are judged by the allowlist alone"),
    ),
    ("", "mcp_gateway", "block", Some("leave the block out")),
    ("", "postgres", "block", Some("leave the block out")),
    ("dns", "listen", "key", Some(NO_DNS_SERVER)),
    ("dns", "proxy_ip", "key", Some(NO_DNS_SERVER)),
    ("dns", "passthrough", "key", Some(NO_DNS_SERVER)),
    ("dns", "records", "key", Some(NO_DNS_SERVER)),
    ("proxy", "http_listen", "key", Some(TUNNEL_ONLY)),
    ("proxy", "https_listen", "key", Some(TUNNEL_ONLY)),
    ("proxy", "upstream_proxy", "key", Some("leave it out; upstreams are dialled directly")),
];

pub(super) const NO_DNS_SERVER: &str = "there is no DNS server here; sandboxes name the proxy in HTTPS_PROXY, and only dns.upstream_resolver is read";
const TUNNEL_ONLY: &str = "clients reach the proxy through proxy.tunnel_listen (HTTPS_PROXY, HTTP_PROXY)";

/// iron-proxy's transforms that are not built yet.
pub(super) const TRANSFORMS: &[&str] = &[
    "gcp_auth",
    "gcp_id_token",
    "oauth_token",
    "aws_auth",
    "hmac_sign",
    "annotate",
    "header_allowlist",
    "body_capture",
    "grpc",
    "judge",
];

/// iron-proxy's sources that are not built yet.
pub(super) const SOURCES: &[&str] =
    &["aws_sm", "aws_ssm", "1password", "1password_connect", "control_plane", "token_broker", "vault_kv"];

/// Environment variables that ask iron-proxy for something that no key of the document can say here.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("IRON_PROXY_TOKEN", "asks for iron-proxy's managed mode, which this version does not run"),
    (
        "IRON_RESPONSE_RETRY_HANDLER_ALLOW_CIDRS",
        "belongs to iron-proxy's response retry, which this version does not run",
    ),
];

/// A hint for a key that people write in the wrong place or under a wrong name that no spelling distance finds.
pub(super) fn misplaced(shape: &str, key: &str) -> Option<&'static str> {
    match (shape, key) {
        ("transforms[].config", "hosts") => Some("did you mean \"domains\"?"),
        ("transforms[].config.secrets[]", "match_path" | "match_query") => {
            Some("put it under \"replace\", together with proxy_value")
        }
        ("transforms[].config.secrets[]", "header" | "query_param" | "formatter") => {
            Some("put it under \"inject\"")
        }
        ("transforms[].config.secrets[]", "host" | "hosts" | "methods" | "paths" | "cidr") => {
            Some("put it into a rule: rules: [{ host: … }]")
        }
        ("transforms[]", "domains" | "rules" | "cidrs" | "secrets" | "warn") => {
            Some("put it under \"config\"")
        }
        ("", "allowlist" | "secrets") => {
            Some("write it as an element of \"transforms\": { name: …, config: … }")
        }
        ("", "tunnel_listen" | "auth" | "allowed_ports" | "upstream_deny_cidrs" | "upstream_allow_cidrs") => {
            Some("put it under \"proxy\"")
        }
        ("", "ca_cert" | "ca_key") => Some("put it under \"tls\""),
        _ => None,
    }
}
