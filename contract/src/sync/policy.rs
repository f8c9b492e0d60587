//! What one principal may do, as it is delivered.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::tree::Tree;

/// Rules and credentials of one principal, each entry as the policy language writes it, with three keys of ours beside:
/// `id` and `name` say whose the entry is, `not_after` when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// What may be reached: the rules of an `allowlist`.
    pub rules: Vec<Tree>,
    /// Entries of a `secrets` transform, the weakest first.
    pub secrets: Vec<Tree>,
    /// Other transforms, `{name, config}`.
    pub transforms: Vec<Tree>,
    /// Databases, `{foreign_id, database, dsn, role, settings}`.
    pub postgres: Vec<Tree>,
}

/// What an entry says beside the policy language.
const OURS: [&str; 3] = ["id", "name", "not_after"];

impl Policy {
    /// The document that a proxy compiles at `now`: what has ended is left out, so that an expiry holds also while control is away.
    ///
    /// A delivered value keeps its secret's identity beside it (`source.id`), so that a new value is not another secret.
    pub fn document(&self, now: Timestamp) -> Tree {
        let transform = |name: &str, key: &str, list: Vec<Tree>| {
            Tree::map([("name", Tree::text(name)), ("config", Tree::map([(key, Tree::List(list))]))])
        };
        let plain = |entries: &[Tree]| -> Vec<Tree> {
            entries.iter().filter(|entry| lives(entry, now)).map(|entry| stripped(entry, &OURS)).collect()
        };
        let mut transforms = vec![
            transform("allowlist", "rules", plain(&self.rules)),
            transform("secrets", "secrets", self.live_secrets(now).map(secret).collect()),
        ];
        for entry in self.transforms.iter().filter(|entry| lives(entry, now)) {
            // The name of a transform is the language's own key.
            let mut entry = stripped(entry, &["id", "not_after"]);
            bundled(&mut entry, now);
            transforms.push(entry);
        }
        Tree::map([("transforms", Tree::List(transforms))])
    }

    /// The delivered values of [`Policy::document`], each with the `source.id` that it has there.
    pub fn values(&self, now: Timestamp) -> Vec<(String, SecretString)> {
        let value = |entry: &Tree| match entry.get("source")?.get("value")? {
            Tree::Secret(value) => Some((identity(entry), value.clone())),
            Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) | Tree::List(_) | Tree::Map(_) => {
                None
            }
        };
        self.live_secrets(now).filter_map(value).collect()
    }

    fn live_secrets(&self, now: Timestamp) -> impl Iterator<Item = &Tree> {
        self.secrets.iter().filter(move |entry| lives(entry, now))
    }

    /// When the next entry ends after `now`, and the document is another one.
    pub fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        let lists = [&self.rules, &self.secrets, &self.transforms, &self.postgres];
        let entries = lists.into_iter().flatten();
        let tokens = self.transforms.iter().filter_map(tokens).flatten();
        entries.chain(tokens).filter_map(not_after).filter(|end| *end > now).min()
    }

    /// Nothing may leave.
    pub fn is_empty(&self) -> bool {
        [&self.rules, &self.secrets, &self.transforms, &self.postgres].iter().all(|list| list.is_empty())
    }

    /// The members of a payload.
    pub fn into_members(self) -> [(&'static str, Tree); 4] {
        [
            ("rules", Tree::List(self.rules)),
            ("secrets", Tree::List(self.secrets)),
            ("transforms", Tree::List(self.transforms)),
            ("postgres", Tree::List(self.postgres)),
        ]
    }
}

/// Entries that one transform holds for several secrets, as `oauth_token` does.
fn tokens(transform: &Tree) -> Option<&[Tree]> {
    match transform.get("config")?.get("tokens")? {
        Tree::List(tokens) => Some(tokens),
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) | Tree::Secret(_) | Tree::Map(_) => None,
    }
}

fn bundled(transform: &mut Tree, now: Timestamp) {
    let Some(tokens) = tokens(transform) else { return };
    let live = tokens.iter().filter(|entry| lives(entry, now)).map(|entry| stripped(entry, &OURS));
    let live = Tree::List(live.collect());
    if let Some(mut config) = transform.remove("config") {
        config.set("tokens", live);
        transform.set("config", config);
    }
}

/// An entry of `secrets` as the language has it, with a name and with the identity of what is delivered.
fn secret(entry: &Tree) -> Tree {
    let mut plain = stripped(entry, &["id", "not_after"]);
    if let (None, Some(id)) = (entry.get("name"), entry.get("id")) {
        plain.set("name", id.clone());
    }
    if let Some(mut source) = plain.remove("source") {
        if let Some(Tree::Secret(_)) = source.get("value") {
            source.set("id", Tree::Text(identity(entry)));
        }
        plain.set("source", source);
    }
    plain
}

/// Which secret an entry is of. Where nobody says, it is what is written about it but for the value.
fn identity(entry: &Tree) -> String {
    match entry.get("id").and_then(Tree::as_text) {
        Some(id) => id.to_owned(),
        None => serde_json::to_string(entry).unwrap_or_default(),
    }
}

fn stripped(entry: &Tree, keys: &[&str]) -> Tree {
    let mut entry = entry.clone();
    for key in keys {
        entry.remove(key);
    }
    entry
}

/// An end that cannot be read is one that has passed.
fn lives(entry: &Tree, now: Timestamp) -> bool {
    entry.get("not_after").is_none() || not_after(entry).is_some_and(|end| end > now)
}

fn not_after(entry: &Tree) -> Option<Timestamp> {
    entry.get("not_after")?.as_text()?.parse().ok()
}
