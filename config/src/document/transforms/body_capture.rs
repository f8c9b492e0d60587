//! The `config` of a `body_capture`: request bodies that go into the record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::field::{Block, Field};
use crate::document::place::At;
use crate::document::rule::{self, Rule};

/// The `config` of a `body_capture`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BodyCapture {
    /// How much of a body is recorded.
    pub max_request_body_bytes: u64,
    /// The requests; none, if empty.
    pub rules: Vec<Rule>,
}

const DEFAULT_BYTES: u64 = 16 * 1024;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "body_capture", deny_unknown_fields)]
pub(super) struct Keys {
    /// How much of a body is recorded; 0 is the default.
    #[schemars(extend("default" = DEFAULT_BYTES))]
    max_request_body_bytes: Field<u64>,
    /// The requests; none, if empty.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
}

impl BodyCapture {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        if at.key("rules").lists_nothing() {
            at.key("rules").warning(
                "no rules, so no body is recorded",
                "say which requests are meant: rules: [{ host: … }]",
            );
        }
        let bytes = keys.max_request_body_bytes.get().filter(|bytes| *bytes != 0);
        Some(Self {
            max_request_body_bytes: bytes.unwrap_or(DEFAULT_BYTES),
            rules: Rule::read_list(&at.key("rules")),
        })
    }
}
