//! Google access tokens.

use keyferry_contract::sync::Tree;
use serde::{Deserialize, Serialize};

use super::kind::{Facts, Place, Target, set_some, texts};
use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// The attributes of a `gcp_auth` secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpAuthSecret {
    /// `{ "type": "workload_identity" }`. One of this and keyfile.
    #[serde(default)]
    pub credentials_provider: Option<CredentialsProvider>,
    /// Whom the service account stands in for; only with keyfile.
    #[serde(default)]
    pub subject: Option<String>,
    /// What is asked for; at least one.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The service account's key file.
    #[serde(default)]
    pub keyfile: Option<Source>,
    /// The requests that carry a token; those to `*.googleapis.com`, if empty.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Credentials that the proxy's machine has.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialsProvider {
    /// `workload_identity`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl GcpAuthSecret {
    /// The policy language takes an empty list for every request, as iron-proxy does; a token for Google is for Google.
    pub(super) fn bind(&mut self) {
        if self.rules.is_empty() {
            self.rules.push(Rule { host: Some("*.googleapis.com".to_owned()), ..Rule::default() });
        }
    }
}

impl Facts for GcpAuthSecret {
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
        texts("scopes", &self.scopes, details);
        if self.scopes.is_empty() {
            details.add("scopes", "can't be blank");
        }
        if self.keyfile.is_some() == self.credentials_provider.is_some() {
            details.add("base", "must define exactly one of keyfile or credentials_provider");
        }
        if self.credentials_provider.as_ref().is_some_and(|provider| provider.kind != "workload_identity") {
            details.add("credentials_provider", "type must be workload_identity");
        }
        if self.subject.is_some() && self.credentials_provider.is_some() {
            details.add("subject", "is only allowed with keyfile");
        }
    }

    fn place(&self) -> Place {
        Place::Transform("gcp_auth")
    }

    fn render(&self, rules: Tree) -> Option<Tree> {
        let mut tree =
            Tree::map([("scopes", Tree::list(self.scopes.iter().map(Tree::text))), ("rules", rules)]);
        if let Some(keyfile) = &self.keyfile {
            tree.set("keyfile", keyfile.tree()?);
        }
        if let Some(provider) = &self.credentials_provider {
            tree.set("credentials_provider", Tree::map([("type", Tree::text(&provider.kind))]));
        }
        set_some(&mut tree, "subject", self.subject.as_deref());
        Some(tree)
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::header("authorization")]
    }
}
