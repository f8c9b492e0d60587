//! A fixed value that is set in a request, or takes the place of a placeholder.

use keyferry_contract::sync::Tree;
use serde::{Deserialize, Serialize};

use super::kind::{Facts, Place, Target};
use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// The attributes of a static secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticSecret {
    /// Set the value. One of this and replace_config.
    #[serde(default)]
    pub inject_config: Option<InjectConfig>,
    /// Put the value where the sandbox sent a placeholder.
    #[serde(default)]
    pub replace_config: Option<ReplaceConfig>,
    /// Where the value comes from.
    #[serde(default)]
    pub source: Option<Source>,
    /// The requests that may carry it.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Where a value is set.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectConfig {
    /// A header. One of this and query_param.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A parameter of the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_param: Option<String>,
    /// The text around the value, such as `Bearer {{ .Value }}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formatter: Option<String>,
    /// Refuse a request while the value cannot be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require: Option<bool>,
}

/// Where a placeholder is looked for.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceConfig {
    /// The placeholder.
    pub proxy_value: String,
    /// Headers, by name or as `/regex/`; all of them, if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_headers: Option<Vec<String>>,
    /// The body too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_body: Option<bool>,
    /// The path too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_path: Option<bool>,
    /// The query too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_query: Option<bool>,
    /// Refuse a request without the placeholder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require: Option<bool>,
}

impl Facts for StaticSecret {
    fn sources(&mut self) -> Vec<(String, &mut Source)> {
        self.source.iter_mut().map(|source| ("source".to_owned(), source)).collect()
    }

    fn rules_mut(&mut self) -> Option<&mut Vec<Rule>> {
        Some(&mut self.rules)
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn check(&self, details: &mut Details) {
        if self.inject_config.is_some() == self.replace_config.is_some() {
            details.add("base", "must define one of inject_config or replace_config");
        }
        if self.source.is_none() {
            details.add("source", "can't be blank");
        }
    }

    fn place(&self) -> Place {
        Place::Secrets
    }

    fn render(&self, rules: Tree) -> Option<Tree> {
        let mut tree = Tree::map([("source", self.source.as_ref()?.tree()?), ("rules", rules)]);
        let plain = |shape: Result<serde_json::Value, _>| shape.map_or(Tree::Null, Tree::from);
        if let Some(inject) = &self.inject_config {
            tree.set("inject", plain(serde_json::to_value(inject)));
        }
        if let Some(replace) = &self.replace_config {
            tree.set("replace", plain(serde_json::to_value(replace)));
        }
        Some(tree)
    }

    fn renames(&self) -> &'static [(&'static str, &'static str)] {
        &[("inject", "inject_config"), ("replace", "replace_config")]
    }

    fn targets(&self) -> Vec<Target> {
        let inject = self.inject_config.iter().flat_map(|inject| {
            let header = inject.header.as_deref().map(Target::header);
            header.into_iter().chain(inject.query_param.clone().map(Target::Query))
        });
        let replace =
            self.replace_config.iter().map(|replace| Target::Placeholder(replace.proxy_value.clone()));
        inject.chain(replace).collect()
    }
}
