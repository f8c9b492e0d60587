//! The environment beside the file: `KEYFERRY_*`, and iron-proxy's `IRON_*` of the same names. They win over the file, the
//! former over the latter; an empty one counts as unset.
//!
//! A variable is put into the tree as the value of its key, so one reader judges both, and a bad value names its variable.

use super::node::{Entry, Kind, Node, Origin, Scalar, Value};
use super::place::Place;

/// Puts every set variable in the place of its key.
pub(super) fn apply(root: &mut Node, place: &Place<'_>, environment: &dyn Fn(&str) -> Option<String>) {
    for Override { ours, theirs, block, key, shape } in OVERRIDES {
        let key_place = |variable| {
            let origin = Origin::Variable(variable);
            place.at(origin).key(block, origin).key(key, origin)
        };
        let (variable, text) = match (set(environment, ours), set(environment, theirs)) {
            (Some(text), other) => {
                if other.is_some_and(|other| other != text) {
                    key_place(ours).warning(
                        format!("{theirs} says something else, and this one wins"),
                        format!("unset {theirs}"),
                    );
                }
                (*ours, text)
            }
            (None, Some(text)) => (*theirs, text),
            (None, None) => continue,
        };
        match shape.node(&text, Origin::Variable(variable)) {
            Some(node) => put(root, block, key, node),
            None => key_place(variable).error(
                format!("expected true or false, found {:?}", super::place::shortened(&text)),
                "write 1, t, true, 0, f or false",
            ),
        }
    }
    prefer_our_management_key(root, environment);
}

/// Reports the variables that ask for something that no key of the file can say and that this version does not run.
pub(super) fn refuse(place: &Place<'_>, environment: &dyn Fn(&str) -> Option<String>) {
    for (variable, what) in REFUSED {
        if set(environment, variable).is_some() {
            place.at(Origin::Variable(variable)).error(*what, "unset the variable");
        }
    }
}

fn set(environment: &dyn Fn(&str) -> Option<String>, variable: &str) -> Option<String> {
    environment(variable).filter(|value| !value.is_empty())
}

/// One key of the file, and the variables that stand for it.
struct Override {
    ours: &'static str,
    theirs: &'static str,
    block: &'static str,
    key: &'static str,
    shape: Shape,
}

macro_rules! overrides {
    ($($name:literal $block:ident . $key:ident $shape:ident;)*) => {
        &[$(Override {
            ours: concat!("KEYFERRY_", $name),
            theirs: concat!("IRON_", $name),
            block: stringify!($block),
            key: stringify!($key),
            shape: Shape::$shape,
        }),*]
    };
}

const OVERRIDES: &[Override] = overrides! {
    "DNS_ENABLED" dns.enabled GoBool;
    "DNS_LISTEN" dns.listen Text;
    "DNS_PROXY_IP" dns.proxy_ip Text;
    "DNS_UPSTREAM_RESOLVER" dns.upstream_resolver Text;
    "PROXY_HTTP_LISTEN" proxy.http_listen Text;
    "PROXY_HTTPS_LISTEN" proxy.https_listen Text;
    "PROXY_TUNNEL_LISTEN" proxy.tunnel_listen Text;
    "PROXY_MAX_REQUEST_BODY_BYTES" proxy.max_request_body_bytes Text;
    "PROXY_MAX_RESPONSE_BODY_BYTES" proxy.max_response_body_bytes Text;
    "PROXY_UPSTREAM_RESPONSE_HEADER_TIMEOUT" proxy.upstream_response_header_timeout Text;
    "PROXY_UPSTREAM_DENY_CIDRS" proxy.upstream_deny_cidrs CommaList;
    "TLS_MODE" tls.mode Text;
    "TLS_CA_CERT" tls.ca_cert Text;
    "TLS_CA_KEY" tls.ca_key Text;
    "TLS_CERT_CACHE_SIZE" tls.cert_cache_size Text;
    "TLS_LEAF_CERT_EXPIRY_HOURS" tls.leaf_cert_expiry_hours Text;
    "METRICS_LISTEN" metrics.listen Text;
    "MANAGEMENT_LISTEN" management.listen Text;
    "LOG_LEVEL" log.level Text;
    "CONTROL_PLANE_POLL_INTERVAL" control_plane.poll_interval Text;
};

const RETRY: &str = "belongs to iron-proxy's response retry, which this version does not run";

const REFUSED: &[(&str, &str)] = &[
    ("KEYFERRY_RESPONSE_RETRY_HANDLER_ALLOW_CIDRS", RETRY),
    ("IRON_RESPONSE_RETRY_HANDLER_ALLOW_CIDRS", RETRY),
];

/// `management.api_key_env` names the twin where that is set and the file does not choose.
fn prefer_our_management_key(root: &mut Node, environment: &dyn Fn(&str) -> Option<String>) {
    const OURS: &str = "KEYFERRY_MANAGEMENT_API_KEY";
    let Value::Map(blocks) = &root.value else { return };
    let Some(Value::Map(keys)) =
        blocks.iter().find(|entry| entry.key == "management").map(|entry| &entry.value.value)
    else {
        return;
    };
    let chosen = keys.iter().any(|entry| {
        entry.key == "api_key_env"
            && match &entry.value.value {
                Value::Null => false,
                Value::Scalar(scalar) => !scalar.text.is_empty(),
                Value::Seq(_) | Value::Map(_) => true,
            }
    });
    if !chosen && set(environment, OURS).is_some() {
        let value = Value::Scalar(Scalar { text: OURS.to_owned(), kind: Kind::Text });
        put(root, "management", "api_key_env", Node { value, origin: Origin::Variable(OURS) });
    }
}

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
