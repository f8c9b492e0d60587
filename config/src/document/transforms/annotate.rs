//! The `config` of an `annotate`: request headers that go into the record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::field::{Block, Field, List};
use crate::document::header;
use crate::document::place::At;
use crate::document::rule::{self, Rule};

/// The `config` of an `annotate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Annotate {
    /// Which headers of which requests.
    pub annotations: Vec<Annotation>,
}

/// Headers of the requests that its rules name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Annotation {
    /// The requests.
    pub rules: Vec<Rule>,
    /// The headers.
    pub headers: Vec<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "annotate", deny_unknown_fields)]
pub(super) struct Keys {
    /// Which headers of which requests; at least one.
    #[serde(rename = "annotations")]
    #[schemars(with = "Option<Vec<AnnotationKeys>>")]
    _annotations: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "annotation", deny_unknown_fields)]
struct AnnotationKeys {
    /// The requests; at least one rule.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// The headers whose first value is recorded; at least one.
    headers: Field<List<String>>,
}

impl Annotate {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.decode::<Keys>()?;
        let annotations = at.key("annotations");
        if annotations.lists_nothing() {
            annotations.error(
                "at least one annotation is required",
                "write annotations: [{ rules: [{ host: … }], headers: [X-Session] }]",
            );
        }
        Some(Self { annotations: annotations.each().iter().filter_map(Annotation::read).collect() })
    }
}

impl Annotation {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: AnnotationKeys = at.decode()?;
        let rules = Rule::read_some(&at.key("rules"));
        let headers: Vec<_> = keys.headers.get().into_iter().flat_map(List::indexed).collect();
        if at.key("headers").lists_nothing() {
            at.key("headers").error("at least one header is required", ());
        }
        for (index, name) in &headers {
            header::check_name(name, &at.key("headers").index(*index));
        }
        Some(Self { rules, headers: headers.into_iter().map(|(_, name)| name).collect() })
    }
}
