//! What every kind of secret has in common, so that one path serves them all.

use keyferry_contract::sync::Tree;

use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// What the rest of the service asks a secret, whatever its kind.
pub(crate) trait Facts {
    /// Every source with the field that it stands in.
    fn sources(&mut self) -> Vec<(String, &mut Source)>;
    /// The requests that it is for.
    fn rules(&self) -> &[Rule];
    /// The same, where the kind has rules.
    fn rules_mut(&mut self) -> Option<&mut Vec<Rule>>;
    /// What is wrong with it and the policy language cannot see.
    fn check(&self, details: &mut Details);
    /// Where a document has it.
    fn place(&self) -> Place;
    /// Its entry in a document; `None` where a source has no value.
    fn render(&self, rules: Tree) -> Option<Tree>;
    /// Keys of that entry and what the API calls them.
    fn renames(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// What it writes in a request, which no second secret may write too.
    fn targets(&self) -> Vec<Target>;
}

/// Where a document has a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An entry of `secrets`.
    Secrets,
    /// A transform of its own.
    Transform(&'static str),
    /// An entry in the list of a transform that all of its kind share.
    Bundled {
        /// The transform.
        transform: &'static str,
        /// The list.
        list: &'static str,
    },
    /// An entry of `postgres`.
    Postgres,
}

/// What a secret writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A header, in lower case.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// The place of a placeholder.
    Placeholder(String),
    /// The connections to a database.
    Database(String),
}

impl Target {
    pub(crate) fn header(name: &str) -> Self {
        Self::Header(name.to_ascii_lowercase())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query parameter {name}"),
            Self::Placeholder(text) => write!(f, "placeholder {text}"),
            Self::Database(name) => write!(f, "database {name}"),
        }
    }
}

/// Sets a text that is there.
pub(super) fn set_some(tree: &mut Tree, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        tree.set(key, Tree::text(text));
    }
}

/// Reports a list with an empty text in it.
pub(super) fn texts(field: &str, list: &[String], details: &mut Details) {
    if list.iter().any(|text| text.trim().is_empty()) {
        details.add(field, "can't hold an empty text");
    }
    if list.len() > 200 || list.iter().any(|text| text.len() > 2048) {
        details.add(field, "is too long");
    }
}
