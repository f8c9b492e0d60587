//! Where a secret's value comes from. The document names the place; nothing here opens it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

use super::duration::GoDuration;
use super::field::{Field, text};
use super::place::At;
use super::unsupported;

/// A source of one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Where it is.
    pub kind: SourceKind,
    /// The value is a JSON object, and this is the key of the text in it.
    pub json_key: Option<String>,
    /// How long a value is good for: absent or zero is for ever, negative is not at all.
    pub ttl: Option<SignedDuration>,
    /// How long a failure is remembered.
    pub failure_ttl: Option<Duration>,
}

/// The place of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// An environment variable of the proxy.
    Env {
        /// Its name.
        var: String,
    },
    /// A file, to the last byte.
    File {
        /// Its path.
        path: PathBuf,
    },
}

impl Source {
    /// What records and messages call this secret: the variable's name or the file's path.
    pub fn display_name(&self) -> String {
        match &self.kind {
            SourceKind::Env { var } => var.clone(),
            SourceKind::File { path } => path.display().to_string(),
        }
    }
}

const TYPES: [&str; 2] = ["env", "file"];

/// Every key of every type that iron-proxy has, so that a key of another type is told from a slip.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(rename = "type")]
    kind: Field<String>,
    var: Field<String>,
    path: Field<String>,
    json_key: Field<String>,
    #[serde(deserialize_with = "text")]
    ttl: Field<GoDuration>,
    #[serde(deserialize_with = "text")]
    failure_ttl: Field<GoDuration>,
    secret_id: Field<String>,
    region: Field<String>,
    name: Field<String>,
    with_decryption: Field<bool>,
    secret_ref: Field<String>,
    value: Field<String>,
    credential_id: Field<String>,
}

impl Source {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        if at.node().is_none() {
            at.error("required", "write { type: env, var: NAME } or { type: file, path: FILE }");
            return None;
        }
        let mut keys: Keys = at.decode()?;
        let kind = std::mem::take(&mut keys.kind).not_empty();
        if kind.is_absent() {
            at.key("type").error("required", format!("valid here: {}", TYPES.join(", ")));
        }
        let kind = match kind.get()?.as_str() {
            "env" => keys.env(at),
            "file" => keys.file(at),
            other if unsupported::SOURCES.contains(&other) => {
                at.key("type").error(
                    format!("`{other}` is an iron-proxy source that this version does not read"),
                    format!("valid here: {}", TYPES.join(", ")),
                );
                None
            }
            other => {
                let at = at.key("type");
                at.error(format!("unsupported source type {}", at.shown()), at.guess(other, &TYPES));
                None
            }
        };
        if let Field::Is(failure_ttl) = &keys.failure_ttl
            && failure_ttl.to_std().is_none()
        {
            let at = at.key("failure_ttl");
            at.error(format!("cannot be negative: {}", at.shown()), ());
        }
        Some(Self {
            kind: kind?,
            json_key: keys.json_key.not_empty().get(),
            ttl: keys.ttl.get().map(|ttl| ttl.0),
            failure_ttl: keys.failure_ttl.get().and_then(GoDuration::to_std),
        })
    }
}

impl Keys {
    fn env(&mut self, at: &At<'_>) -> Option<SourceKind> {
        self.refuse_keys_but(at, "env", &["var"]);
        let var = required(&mut self.var, at, "env", "var")?;
        if var.contains(['=', '\0']) {
            at.key("var")
                .error("not the name of an environment variable", "write the name alone, such as API_KEY");
            return None;
        }
        Some(SourceKind::Env { var })
    }

    fn file(&mut self, at: &At<'_>) -> Option<SourceKind> {
        self.refuse_keys_but(at, "file", &["path", "ttl", "failure_ttl"]);
        let path = required(&mut self.path, at, "file", "path")?;
        if path.contains('\0') {
            at.key("path").error("a path holds no NUL", ());
            return None;
        }
        Some(SourceKind::File { path: PathBuf::from(path) })
    }

    fn refuse_keys_but(&self, at: &At<'_>, kind: &str, own: &[&str]) {
        let present = [
            ("var", !self.var.is_absent()),
            ("path", !self.path.is_absent()),
            ("ttl", !self.ttl.is_absent()),
            ("failure_ttl", !self.failure_ttl.is_absent()),
            ("secret_id", !self.secret_id.is_absent()),
            ("region", !self.region.is_absent()),
            ("name", !self.name.is_absent()),
            ("with_decryption", !self.with_decryption.is_absent()),
            ("secret_ref", !self.secret_ref.is_absent()),
            ("value", !self.value.is_absent()),
            ("credential_id", !self.credential_id.is_absent()),
        ];
        for (key, _) in present.iter().filter(|(key, there)| *there && !own.contains(key)) {
            let hint = format!("valid here: type, json_key, {}", own.join(", "));
            at.key(key).error(format!("a source of type {kind} takes no \"{key}\""), hint);
        }
    }
}

fn required(field: &mut Field<String>, at: &At<'_>, kind: &str, key: &str) -> Option<String> {
    let field = std::mem::take(field).not_empty();
    if field.is_absent() {
        at.key(key).error(format!("{kind} source requires \"{key}\" field"), ());
    }
    field.get()
}
