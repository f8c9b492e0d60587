//! Keys in the wrong place, or under a wrong name that no spelling distance finds.

/// What to do with `key` in the block at `shape`, a path without indexes.
pub(super) fn hint(shape: &str, key: &str) -> Option<&'static str> {
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
