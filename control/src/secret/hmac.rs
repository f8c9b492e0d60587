//! Requests that are signed with a shared key.

use std::collections::BTreeMap;

use keyferry_contract::sync::Tree;
use serde::{Deserialize, Serialize};

use super::kind::{Facts, Place, Target, set_some};
use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// The attributes of an `hmac` secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacSecret {
    /// unix_seconds, unix_millis, unix_nanos or rfc3339.
    #[serde(default)]
    pub timestamp_format: Option<String>,
    /// sha256, sha512 or sha1.
    #[serde(default)]
    pub signature_algorithm: Option<String>,
    /// raw, base64 or hex.
    #[serde(default)]
    pub signature_key_encoding: Option<String>,
    /// base64 or hex.
    #[serde(default)]
    pub signature_output_encoding: Option<String>,
    /// What is signed, such as `{{ .Timestamp }}.{{ .Body }}`.
    #[serde(default)]
    pub signature_message: Option<String>,
    /// Hold and sign a body without a length.
    #[serde(default)]
    pub allow_chunked_body: bool,
    /// The headers that are set; at least one.
    #[serde(default)]
    pub headers: Vec<SignedHeader>,
    /// The key, under `secret`, and whatever else the headers say.
    #[serde(default)]
    pub credentials: BTreeMap<String, Source>,
    /// The requests that are signed; at least one rule.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A header that is set.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HmacHeader)]
pub struct SignedHeader {
    /// Its name.
    pub name: String,
    /// Its value, such as `{{ .Signature }}`.
    pub value: String,
}

impl Facts for HmacSecret {
    fn sources(&mut self) -> Vec<(String, &mut Source)> {
        self.credentials.iter_mut().map(|(name, source)| (format!("credentials.{name}"), source)).collect()
    }

    fn rules_mut(&mut self) -> Option<&mut Vec<Rule>> {
        Some(&mut self.rules)
    }

    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn check(&self, details: &mut Details) {
        for (field, text) in [
            ("timestamp_format", &self.timestamp_format),
            ("signature_algorithm", &self.signature_algorithm),
            ("signature_key_encoding", &self.signature_key_encoding),
            ("signature_output_encoding", &self.signature_output_encoding),
            ("signature_message", &self.signature_message),
        ] {
            if text.as_deref().is_none_or(str::is_empty) {
                details.add(field, "can't be blank");
            }
        }
    }

    fn place(&self) -> Place {
        Place::Transform("hmac_sign")
    }

    fn render(&self, rules: Tree) -> Option<Tree> {
        let mut timestamp = Tree::map::<String>([]);
        set_some(&mut timestamp, "format", self.timestamp_format.as_deref());
        let mut signature = Tree::map::<String>([]);
        for (key, text) in [
            ("algorithm", &self.signature_algorithm),
            ("key_encoding", &self.signature_key_encoding),
            ("output_encoding", &self.signature_output_encoding),
            ("message", &self.signature_message),
        ] {
            set_some(&mut signature, key, text.as_deref());
        }
        let header = |header: &SignedHeader| {
            Tree::map([("name", Tree::text(&header.name)), ("value", Tree::text(&header.value))])
        };
        let mut credentials = Tree::map::<String>([]);
        for (name, source) in &self.credentials {
            credentials.set(name, source.tree()?);
        }
        let mut tree = Tree::map([
            ("timestamp", timestamp),
            ("signature", signature),
            ("headers", Tree::list(self.headers.iter().map(header))),
            ("credentials", credentials),
            ("rules", rules),
        ]);
        if self.allow_chunked_body {
            tree.set("allow_chunked_body", Tree::Bool(true));
        }
        Some(tree)
    }

    fn renames(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("timestamp.format", "timestamp_format"),
            ("signature.algorithm", "signature_algorithm"),
            ("signature.key_encoding", "signature_key_encoding"),
            ("signature.output_encoding", "signature_output_encoding"),
            ("signature.message", "signature_message"),
        ]
    }

    fn targets(&self) -> Vec<Target> {
        self.headers.iter().map(|header| Target::header(&header.name)).collect()
    }
}
