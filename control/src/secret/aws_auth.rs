//! Requests that are signed anew for AWS.

use keyferry_contract::sync::Tree;
use serde::{Deserialize, Serialize};

use super::kind::{Facts, Place, Target, texts};
use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// The attributes of an `aws_auth` secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsAuthSecret {
    /// Regions that may be signed for; any, if empty.
    #[serde(default)]
    pub allowed_regions: Vec<String>,
    /// Services that may be signed for; any, if empty.
    #[serde(default)]
    pub allowed_services: Vec<String>,
    /// The access key's name.
    #[serde(default)]
    pub access_key_id: Option<Source>,
    /// The access key.
    #[serde(default)]
    pub secret_access_key: Option<Source>,
    /// The session that the pair belongs to.
    #[serde(default)]
    pub session_token: Option<Source>,
    /// The requests that are signed; at least one rule.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

impl Facts for AwsAuthSecret {
    fn sources(&mut self) -> Vec<(String, &mut Source)> {
        [
            ("access_key_id", &mut self.access_key_id),
            ("secret_access_key", &mut self.secret_access_key),
            ("session_token", &mut self.session_token),
        ]
        .into_iter()
        .filter_map(|(slot, source)| Some((slot.to_owned(), source.as_mut()?)))
        .collect()
    }

    fn rules_mut(&mut self) -> Option<&mut Vec<Rule>> {
        Some(&mut self.rules)
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn check(&self, details: &mut Details) {
        texts("allowed_regions", &self.allowed_regions, details);
        texts("allowed_services", &self.allowed_services, details);
        for (field, source) in
            [("access_key_id", &self.access_key_id), ("secret_access_key", &self.secret_access_key)]
        {
            if source.is_none() {
                details.add(field, "can't be blank");
            }
        }
    }

    fn place(&self) -> Place {
        Place::Transform("aws_auth")
    }

    fn render(&self, rules: Tree) -> Option<Tree> {
        let mut tree = Tree::map([("rules", rules)]);
        for (key, list) in
            [("allowed_regions", &self.allowed_regions), ("allowed_services", &self.allowed_services)]
        {
            if !list.is_empty() {
                tree.set(key, Tree::list(list.iter().map(Tree::text)));
            }
        }
        for (key, source) in [
            ("access_key_id", &self.access_key_id),
            ("secret_access_key", &self.secret_access_key),
            ("session_token", &self.session_token),
        ] {
            if let Some(source) = source {
                tree.set(key, source.tree()?);
            }
        }
        Some(tree)
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::header("authorization")]
    }
}
