//! iron-proxy's `IRON_*` variables: they win over the file, and an empty one counts as unset.
//!
//! A variable is put into the tree as the value of its key, so one reader judges both, and a bad value names its variable.

use super::node::{Entry, Kind, Node, Origin, Scalar, Value};
use super::place::Place;
use super::unsupported;

/// Puts every set variable in the place of its key.
pub(super) fn apply(root: &mut Node, place: &Place<'_>, environment: &dyn Fn(&str) -> Option<String>) {
    let set = |variable| environment(variable).filter(|value| !value.is_empty());
    for (variable, what) in unsupported::VARIABLES {
        if set(variable).is_some() {
            let place = place.at(Origin::Variable(variable));
            place.error(*what, "unset the variable");
        }
    }
    for (variable, block, key, shape) in OVERRIDES {
        let Some(text) = set(variable) else { continue };
        let origin = Origin::Variable(variable);
        match shape.node(&text, origin) {
            Some(node) => put(root, block, key, node),
            None => place.at(origin).key(block, origin).key(key, origin).error(
                format!("expected true or false, found {:?}", super::place::shortened(&text)),
                "write 1, t, true, 0, f or false",
            ),
        }
    }
}

const OVERRIDES: &[(&str, &str, &str, Shape)] = &[
    ("IRON_DNS_ENABLED", "dns", "enabled", Shape::GoBool),
    ("IRON_DNS_LISTEN", "dns", "listen", Shape::Text),
    ("IRON_DNS_PROXY_IP", "dns", "proxy_ip", Shape::Text),
    ("IRON_DNS_UPSTREAM_RESOLVER", "dns", "upstream_resolver", Shape::Text),
    ("IRON_PROXY_HTTP_LISTEN", "proxy", "http_listen", Shape::Text),
    ("IRON_PROXY_HTTPS_LISTEN", "proxy", "https_listen", Shape::Text),
    ("IRON_PROXY_TUNNEL_LISTEN", "proxy", "tunnel_listen", Shape::Text),
    ("IRON_PROXY_MAX_REQUEST_BODY_BYTES", "proxy", "max_request_body_bytes", Shape::Text),
    ("IRON_PROXY_MAX_RESPONSE_BODY_BYTES", "proxy", "max_response_body_bytes", Shape::Text),
    ("IRON_PROXY_UPSTREAM_RESPONSE_HEADER_TIMEOUT", "proxy", "upstream_response_header_timeout", Shape::Text),
    ("IRON_PROXY_UPSTREAM_DENY_CIDRS", "proxy", "upstream_deny_cidrs", Shape::CommaList),
    ("IRON_TLS_MODE", "tls", "mode", Shape::Text),
    ("IRON_TLS_CA_CERT", "tls", "ca_cert", Shape::Text),
    ("IRON_TLS_CA_KEY", "tls", "ca_key", Shape::Text),
    ("IRON_TLS_CERT_CACHE_SIZE", "tls", "cert_cache_size", Shape::Text),
    ("IRON_TLS_LEAF_CERT_EXPIRY_HOURS", "tls", "leaf_cert_expiry_hours", Shape::Text),
    ("IRON_METRICS_LISTEN", "metrics", "listen", Shape::Text),
    ("IRON_LOG_LEVEL", "log", "level", Shape::Text),
    ("IRON_MANAGEMENT_LISTEN", "management", "listen", Shape::Text),
    ("IRON_CONTROL_PLANE_POLL_INTERVAL", "control_plane", "poll_interval", Shape::Text),
];

/// How a variable's text becomes a value.
#[derive(Clone, Copy)]
enum Shape {
    /// Read by its key's own type.
    Text,
    /// What Go reads as a boolean, which is more than YAML does.
    GoBool,
    CommaList,
}

impl Shape {
    fn node(self, text: &str, origin: Origin) -> Option<Node> {
        let scalar = |text: &str, kind| Value::Scalar(Scalar { text: text.to_owned(), kind });
        let substituted = |text: &str| scalar(text, Kind::Substituted { written: text.to_owned() });
        let value = match self {
            Self::Text => substituted(text),
            Self::GoBool => scalar(text, Kind::Bool(go_bool(text)?)),
            Self::CommaList => Value::Seq(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Node { value: substituted(item), origin })
                    .collect(),
            ),
        };
        Some(Node { value, origin })
    }
}

fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn put(root: &mut Node, block: &str, key: &str, value: Node) {
    let origin = value.origin;
    let empty_block = Node { value: Value::Map(Vec::new()), origin };
    // A block or a file of the wrong type is refused as such when it is read.
    if let Some(block) = entry(root, block, empty_block) {
        if matches!(block.value, Value::Null) {
            block.value = Value::Map(Vec::new());
        }
        let place = Node { value: Value::Null, origin };
        if let Some(existing) = entry(block, key, place) {
            *existing = value;
        }
    }
}

fn entry<'a>(node: &'a mut Node, key: &str, otherwise: Node) -> Option<&'a mut Node> {
    let Value::Map(entries) = &mut node.value else { return None };
    let index = match entries.iter().position(|entry| entry.key == key) {
        Some(index) => index,
        None => {
            entries.push(Entry { key: key.to_owned(), key_origin: otherwise.origin, value: otherwise });
            entries.len() - 1
        }
    };
    Some(&mut entries[index].value)
}
