//! Which requests are meant, as the API writes it. The policy language says the same in its own words.

use keyferry_contract::sync::Tree;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use crate::details::Details;

/// A rule of a secret, or of a principal's or role's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = RequestRule)]
pub struct Rule {
    /// A name, `*`, or `*.suffix`. One of host and cidr.
    pub host: Option<String>,
    /// A range of addresses.
    pub cidr: Option<String>,
    /// GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT or `*`; any, if empty.
    pub http_methods: Option<Vec<String>>,
    /// Patterns that begin with `/`; any, if empty.
    pub paths: Option<Vec<String>>,
    /// Instead of 443 for https and 80 for http.
    pub ports: Option<Vec<u16>>,
    /// https, http.
    pub schemes: Option<Vec<String>>,
    /// allow or deny; a deny that matches always wins.
    pub action: Option<String>,
    /// What happens to an Authorization of the sandbox's own: allow, strip or deny.
    pub foreign_credentials: Option<String>,
    /// Given in answers; a list's order says it.
    #[schema(read_only)]
    pub position: Option<u64>,
}

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "*"];

impl Rule {
    /// What this API allows less of than the policy language does.
    pub(crate) fn check(&self, field: &str, details: &mut Details) {
        for method in self.http_methods.iter().flatten() {
            if !METHODS.contains(&method.as_str()) {
                details
                    .add(format!("{field}.http_methods"), format!("must be one of {}", METHODS.join(", ")));
            }
        }
        let longest = [&self.host, &self.cidr].into_iter().flatten().chain(self.paths.iter().flatten());
        if longest.map(String::len).max().is_some_and(|length| length > 2048)
            || [self.http_methods.as_ref().map(Vec::len), self.paths.as_ref().map(Vec::len)]
                .into_iter()
                .flatten()
                .any(|count| count > 200)
        {
            details.add(field, "is too long");
        }
    }

    /// As a document writes it.
    pub(crate) fn tree(&self) -> Tree {
        let mut entries = serde_json::Map::new();
        let mut put = |key: &str, value: Option<serde_json::Value>| {
            if let Some(value) = value {
                entries.insert(key.to_owned(), value);
            }
        };
        put("host", self.host.as_ref().map(|host| json!(host)));
        put("cidr", self.cidr.as_ref().map(|cidr| json!(cidr)));
        put("methods", some(&self.http_methods));
        put("paths", some(&self.paths));
        put("ports", some(&self.ports));
        put("schemes", some(&self.schemes));
        put("action", self.action.as_ref().map(|action| json!(action)));
        put("foreign_credentials", self.foreign_credentials.as_ref().map(|what| json!(what)));
        Tree::from(serde_json::Value::Object(entries))
    }

    /// Whether it refuses what it matches.
    pub fn denies(&self) -> bool {
        self.action.as_deref() == Some("deny")
    }
}

fn some<T: Serialize>(list: &Option<Vec<T>>) -> Option<serde_json::Value> {
    list.as_ref().filter(|list| !list.is_empty()).map(|list| json!(list))
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("host", &self.host)?;
        map.serialize_entry("cidr", &self.cidr)?;
        if let Some(position) = self.position {
            map.serialize_entry("position", &position)?;
        }
        map.serialize_entry("http_methods", self.http_methods.as_deref().unwrap_or_default())?;
        map.serialize_entry("paths", self.paths.as_deref().unwrap_or_default())?;
        if let Some(ports) = &self.ports {
            map.serialize_entry("ports", ports)?;
        }
        if let Some(schemes) = &self.schemes {
            map.serialize_entry("schemes", schemes)?;
        }
        if let Some(action) = &self.action {
            map.serialize_entry("action", action)?;
        }
        if let Some(what) = &self.foreign_credentials {
            map.serialize_entry("foreign_credentials", what)?;
        }
        map.end()
    }
}

/// Numbers the rules, as answers show them.
pub(crate) fn number(rules: &mut [Rule]) {
    for (position, rule) in (0..).zip(rules) {
        rule.position = Some(position);
    }
}
