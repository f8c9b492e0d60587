//! The `config` of a `header_allowlist`: every other request header is taken away.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::field::{Block, Field, List};
use crate::document::header;
use crate::document::place::At;
use crate::document::rule::{self, Rule};

/// The `config` of a `header_allowlist`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeaderAllowlist {
    /// Headers that stay, by name or as `/regex/`.
    pub headers: Vec<String>,
    /// The requests; every one, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "header_allowlist", deny_unknown_fields)]
pub(super) struct Keys {
    /// Headers that stay: names, or regular expressions between slashes that ignore case; at least one.
    headers: Field<List<String>>,
    /// The requests; empty is every one.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
}

impl HeaderAllowlist {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let headers: Vec<_> = keys.headers.get().into_iter().flat_map(List::indexed).collect();
        if at.key("headers").lists_nothing() {
            at.key("headers").error("at least one header is required", "name the headers that stay");
        }
        for (index, pattern) in &headers {
            header::check_pattern(pattern, &at.key("headers").index(*index));
        }
        Some(Self {
            headers: headers.into_iter().map(|(_, pattern)| pattern).collect(),
            rules: Rule::read_list(&at.key("rules")),
        })
    }
}
