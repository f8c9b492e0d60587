//! Google identity tokens.

use keyferry_contract::sync::Tree;
use serde::{Deserialize, Serialize};

use super::kind::{Facts, Place, Target, set_some};
use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// The attributes of a `gcp_id_token` secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpIdTokenSecret {
    /// Whom the token is for.
    #[serde(default)]
    pub audience: Option<String>,
    /// `authorization` or `x-serverless-authorization`.
    #[serde(default)]
    pub header: Option<String>,
    /// The service account's key file.
    #[serde(default)]
    pub keyfile: Option<Source>,
    /// The requests that carry a token; at least one rule.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

impl Facts for GcpIdTokenSecret {
    fn sources(&mut self) -> Vec<(String, &mut Source)> {
        self.keyfile.iter_mut().map(|source| ("keyfile".to_owned(), source)).collect()
    }

    fn rules_mut(&mut self) -> Option<&mut Vec<Rule>> {
        Some(&mut self.rules)
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn check(&self, details: &mut Details) {
        if self.audience.as_deref().is_none_or(|audience| audience.trim().is_empty()) {
            details.add("audience", "can't be blank");
        }
        if self.keyfile.is_none() {
            details.add("keyfile", "can't be blank");
        }
    }

    fn place(&self) -> Place {
        Place::Transform("gcp_id_token")
    }

    fn render(&self, rules: Tree) -> Option<Tree> {
        let mut tree = Tree::map([("rules", rules)]);
        if let Some(keyfile) = &self.keyfile {
            tree.set("keyfile", keyfile.tree()?);
        }
        set_some(&mut tree, "audience", self.audience.as_deref());
        set_some(&mut tree, "header", self.header.as_deref());
        Some(tree)
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::header(self.header.as_deref().unwrap_or("authorization"))]
    }
}
