//! OAuth access tokens that the proxy asks for itself.

use std::collections::BTreeMap;

use keyferry_contract::sync::Tree;
use serde::{Deserialize, Serialize};

use super::kind::{Facts, Place, Target, set_some, texts};
use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// The attributes of an `oauth_token` secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthTokenSecret {
    /// refresh_token, client_credentials, password or jwt_bearer.
    #[serde(default)]
    pub grant: Option<String>,
    /// The URL that gives out tokens.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// Whom the assertion is for; with jwt_bearer alone.
    #[serde(default)]
    pub audience: Option<String>,
    /// What is asked for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The header that the token is set in; Authorization, if absent.
    #[serde(default)]
    pub header: Option<String>,
    /// What stands before it there; `Bearer`, if absent.
    #[serde(default)]
    pub value_prefix: Option<String>,
    /// What the grant needs, each with its source.
    #[serde(default)]
    pub credentials: BTreeMap<String, Source>,
    /// Headers that the endpoint wants, each with its source.
    #[serde(default)]
    pub token_endpoint_headers: BTreeMap<String, Source>,
    /// The requests that may carry the token; at least one rule.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// The credentials that any grant takes, which are keys of the entry in the policy language.
const CREDENTIALS: [&str; 9] = [
    "refresh_token",
    "client_id",
    "client_secret",
    "username",
    "password",
    "issuer",
    "subject",
    "private_key",
    "private_key_id",
];

impl Facts for OauthTokenSecret {
    fn sources(&mut self) -> Vec<(String, &mut Source)> {
        let credentials =
            self.credentials.iter_mut().map(|(name, source)| (format!("credentials.{name}"), source));
        let headers = self.token_endpoint_headers.iter_mut();
        credentials
            .chain(headers.map(|(name, source)| (format!("token_endpoint_headers.{name}"), source)))
            .collect()
    }

    fn rules_mut(&mut self) -> Option<&mut Vec<Rule>> {
        Some(&mut self.rules)
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn check(&self, details: &mut Details) {
        texts("scopes", &self.scopes, details);
        if self.grant.is_none() {
            details.add("grant", "can't be blank");
        }
        if self.token_endpoint.is_none() {
            details.add("token_endpoint", "can't be blank");
        }
        for name in self.credentials.keys().filter(|name| !CREDENTIALS.contains(&name.as_str())) {
            let name: String = name.chars().take(64).collect();
            details.add("credentials", format!("{name:?} is no credential of any grant"));
        }
    }

    fn place(&self) -> Place {
        Place::Bundled { transform: "oauth_token", list: "tokens" }
    }

    fn render(&self, rules: Tree) -> Option<Tree> {
        let mut tree = Tree::map([("rules", rules)]);
        for (name, source) in &self.credentials {
            tree.set(name, source.tree()?);
        }
        if !self.scopes.is_empty() {
            tree.set("scopes", Tree::list(self.scopes.iter().map(Tree::text)));
        }
        if !self.token_endpoint_headers.is_empty() {
            let mut headers = Tree::map::<String>([]);
            for (name, source) in &self.token_endpoint_headers {
                headers.set(name, source.tree()?);
            }
            tree.set("token_endpoint_headers", headers);
        }
        for (key, text) in [
            ("grant", &self.grant),
            ("token_endpoint", &self.token_endpoint),
            ("audience", &self.audience),
            ("header", &self.header),
        ] {
            set_some(&mut tree, key, text.as_deref());
        }
        // iron-proxy puts nothing between the two, so "Bearer" as its own control service documents it would be useless.
        let prefix = self.value_prefix.as_deref().map(|prefix| match prefix {
            "" => String::new(),
            prefix if prefix.ends_with(' ') => prefix.to_owned(),
            prefix => format!("{prefix} "),
        });
        set_some(&mut tree, "value_prefix", prefix.as_deref());
        Some(tree)
    }

    fn renames(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("refresh_token", "credentials.refresh_token"),
            ("client_id", "credentials.client_id"),
            ("client_secret", "credentials.client_secret"),
            ("username", "credentials.username"),
            ("password", "credentials.password"),
            ("issuer", "credentials.issuer"),
            ("subject", "credentials.subject"),
            ("private_key_id", "credentials.private_key_id"),
            ("private_key", "credentials.private_key"),
        ]
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::header(self.header.as_deref().unwrap_or("authorization"))]
    }
}
