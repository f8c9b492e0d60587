//! Secrets: seven kinds, one path.
//!
//! A [`Spec`] is what a write says beside the attributes that all resources have. It is checked by rendering it and giving the
//! result to the policy language, so that what is stored here is what a proxy compiles; only what that language cannot see (a
//! method that this API does not name, a second mechanism) is checked by the kinds themselves.

mod aws_auth;
mod gcp_auth;
mod gcp_id_token;
mod hmac;
mod kind;
mod oauth_token;
mod pg_dsn;
mod rule;
mod source;
mod static_secret;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use keyferry_config::document::{Problem, Severity, parse_rendered};
use keyferry_contract::sync::Tree;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub use aws_auth::AwsAuthSecret;
pub use gcp_auth::{CredentialsProvider, GcpAuthSecret};
pub use gcp_id_token::GcpIdTokenSecret;
pub use hmac::{HmacSecret, SignedHeader};
pub(crate) use kind::Facts;
pub use kind::{Place, Target};
pub use oauth_token::OauthTokenSecret;
pub use pg_dsn::{PgDsnSecret, Setting, ValueFrom};
pub use rule::Rule;
pub(crate) use rule::number;
pub use source::{Source, SourceType};
pub use static_secret::{InjectConfig, ReplaceConfig, StaticSecret};

use crate::details::Details;
use crate::id::IdOf;

/// A kind of secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretKind {
    /// `static_secrets`
    Static,
    /// `gcp_auth_secrets`
    GcpAuth,
    /// `gcp_id_token_secrets`
    GcpIdToken,
    /// `aws_auth_secrets`
    AwsAuth,
    /// `oauth_token_secrets`
    OauthToken,
    /// `pg_dsn_secrets`
    PgDsn,
    /// `hmac_secrets`
    Hmac,
}

impl SecretKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Static,
        Self::GcpAuth,
        Self::GcpIdToken,
        Self::AwsAuth,
        Self::OauthToken,
        Self::PgDsn,
        Self::Hmac,
    ];

    /// Its name in the database; `_secrets` makes the route of it, `_secret_id` the key of a grant.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::GcpAuth => "gcp_auth",
            Self::GcpIdToken => "gcp_id_token",
            Self::AwsAuth => "aws_auth",
            Self::OauthToken => "oauth_token",
            Self::PgDsn => "pg_dsn",
            Self::Hmac => "hmac",
        }
    }

    /// By its name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The key that names such a secret in a grant.
    pub fn grant_key(self) -> String {
        format!("{}_secret_id", self.name())
    }

    /// What the API's description calls such a secret.
    pub const fn schema(self) -> &'static str {
        match self {
            Self::Static => "StaticSecret",
            Self::GcpAuth => "GcpAuthSecret",
            Self::GcpIdToken => "GcpIdTokenSecret",
            Self::AwsAuth => "AwsAuthSecret",
            Self::OauthToken => "OauthTokenSecret",
            Self::PgDsn => "PgDsnSecret",
            Self::Hmac => "HmacSecret",
        }
    }

    /// And what it calls a write of one.
    pub const fn write_schema(self) -> &'static str {
        match self {
            Self::Static => "StaticSecretWrite",
            Self::GcpAuth => "GcpAuthSecretWrite",
            Self::GcpIdToken => "GcpIdTokenSecretWrite",
            Self::AwsAuth => "AwsAuthSecretWrite",
            Self::OauthToken => "OauthTokenSecretWrite",
            Self::PgDsn => "PgDsnSecretWrite",
            Self::Hmac => "HmacSecretWrite",
        }
    }

    /// What its ids begin with.
    pub const fn id_of(self) -> IdOf {
        match self {
            Self::Static => IdOf::StaticSecret,
            Self::GcpAuth => IdOf::GcpAuthSecret,
            Self::GcpIdToken => IdOf::GcpIdTokenSecret,
            Self::AwsAuth => IdOf::AwsAuthSecret,
            Self::OauthToken => IdOf::OauthTokenSecret,
            Self::PgDsn => IdOf::PgDsnSecret,
            Self::Hmac => IdOf::HmacSecret,
        }
    }
}

/// What a secret is, by kind.
#[derive(Clone, Debug)]
pub enum Spec {
    /// A fixed value.
    Static(StaticSecret),
    /// Google access tokens.
    GcpAuth(GcpAuthSecret),
    /// Google identity tokens.
    GcpIdToken(GcpIdTokenSecret),
    /// AWS signatures.
    AwsAuth(AwsAuthSecret),
    /// OAuth access tokens.
    OauthToken(OauthTokenSecret),
    /// A database.
    PgDsn(PgDsnSecret),
    /// Signatures with a shared key.
    Hmac(HmacSecret),
}

/// Something that works and is probably not meant.
pub type Warning = String;

impl Spec {
    /// Reads and checks what a write says. The warnings are the policy language's own.
    pub fn read(kind: SecretKind, attributes: Map<String, Value>) -> Result<(Self, Vec<Warning>), Details> {
        let mut spec = Self::decode(kind, attributes)?;
        if let Self::GcpAuth(spec) = &mut spec {
            spec.bind();
        }
        if let Some(rules) = spec.facts_mut().rules_mut() {
            number(rules);
        }
        let mut details = Details::default();
        spec.facts().check(&mut details);
        let rules_are_needed = !matches!(spec, Self::Static(_) | Self::GcpAuth(_) | Self::PgDsn(_));
        if rules_are_needed && spec.facts().rules().is_empty() {
            details.add("rules", "must hold at least one rule");
        }
        if spec.facts().rules().len() > 200 {
            details.add("rules", "at most 200 rules");
        }
        for (index, rule) in spec.facts().rules().iter().enumerate() {
            rule.check(&format!("rules[{index}]"), &mut details);
        }
        for (field, source) in spec.facts_mut().sources() {
            source.check(&field, &mut details);
        }
        let warnings = spec.judge(&mut details);
        details.unless(|| (spec, warnings))
    }

    /// What was stored: read before, so it is not judged again.
    pub fn stored(kind: SecretKind, spec: &str) -> Result<Self, serde_json::Error> {
        let attributes: Map<String, Value> = serde_json::from_str(spec)?;
        let mut spec = Self::typed(kind, attributes).map_err(serde_path_to_error::Error::into_inner)?;
        if let Some(rules) = spec.facts_mut().rules_mut() {
            number(rules);
        }
        Ok(spec)
    }

    /// For the answer and for the database: no value is in it.
    pub fn shown(&self) -> Map<String, Value> {
        let shown = match self {
            Self::Static(spec) => json!(spec),
            Self::GcpAuth(spec) => json!(spec),
            Self::GcpIdToken(spec) => json!(spec),
            Self::AwsAuth(spec) => json!(spec),
            Self::OauthToken(spec) => json!(spec),
            Self::PgDsn(spec) => json!(spec),
            Self::Hmac(spec) => json!(spec),
        };
        match shown {
            Value::Object(shown) => shown,
            _ => unreachable!("a struct is an object"),
        }
    }

    /// Takes the values out, each with the field that it stands in.
    pub fn take_values(&mut self) -> Vec<(String, SecretString)> {
        let sources = self.facts_mut().sources().into_iter();
        sources.filter_map(|(field, source)| Some((field, source.secret.take()?))).collect()
    }

    /// Puts stored values back.
    pub fn put_values(&mut self, values: &mut HashMap<String, SecretString>) {
        for (field, source) in self.facts_mut().sources() {
            if source.source_type == SourceType::ControlPlane {
                source.secret = values.remove(&field);
            }
        }
    }

    /// The type of each source, by the field that it stands in.
    pub(crate) fn source_types(&mut self) -> Vec<(String, SourceType)> {
        let sources = self.facts_mut().sources().into_iter();
        sources.map(|(field, source)| (field, source.source_type)).collect()
    }

    /// What is asked of any kind.
    pub(crate) fn facts(&self) -> &dyn Facts {
        match self {
            Self::Static(spec) => spec,
            Self::GcpAuth(spec) => spec,
            Self::GcpIdToken(spec) => spec,
            Self::AwsAuth(spec) => spec,
            Self::OauthToken(spec) => spec,
            Self::PgDsn(spec) => spec,
            Self::Hmac(spec) => spec,
        }
    }

    fn facts_mut(&mut self) -> &mut dyn Facts {
        match self {
            Self::Static(spec) => spec,
            Self::GcpAuth(spec) => spec,
            Self::GcpIdToken(spec) => spec,
            Self::AwsAuth(spec) => spec,
            Self::OauthToken(spec) => spec,
            Self::PgDsn(spec) => spec,
            Self::Hmac(spec) => spec,
        }
    }

    fn decode(kind: SecretKind, attributes: Map<String, Value>) -> Result<Self, Details> {
        // Left out and null are the same, but for a list that must not be null in the answer either.
        let attributes: Map<_, _> = attributes.into_iter().filter(|(_, value)| !value.is_null()).collect();
        if let Some(field) = attributes.iter().find_map(|(key, value)| nul(value).then(|| key.clone())) {
            return Err(Details::one(&field, "cannot hold a NUL character"));
        }
        Self::typed(kind, attributes).map_err(|error| {
            let field = match error.path().to_string() {
                path if path == "." => "base".to_owned(),
                path => path.chars().take(200).collect(),
            };
            Details::one(&field, shape_fault(error.inner()))
        })
    }

    fn typed(
        kind: SecretKind,
        attributes: Map<String, Value>,
    ) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
        fn read<T: DeserializeOwned>(
            attributes: Map<String, Value>,
        ) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
            serde_path_to_error::deserialize(Value::Object(attributes))
        }
        match kind {
            SecretKind::Static => read(attributes).map(Self::Static),
            SecretKind::GcpAuth => read(attributes).map(Self::GcpAuth),
            SecretKind::GcpIdToken => read(attributes).map(Self::GcpIdToken),
            SecretKind::AwsAuth => read(attributes).map(Self::AwsAuth),
            SecretKind::OauthToken => read(attributes).map(Self::OauthToken),
            SecretKind::PgDsn => read(attributes).map(Self::PgDsn),
            SecretKind::Hmac => read(attributes).map(Self::Hmac),
        }
    }

    /// Gives the secret to the policy language, as a proxy will get it, and tells what it finds in the API's own words.
    fn judge(&self, details: &mut Details) -> Vec<Warning> {
        let facts = self.facts();
        let rules = Tree::list(facts.rules().iter().map(Rule::tree));
        // What has no value cannot be rendered, and that was said already.
        let Some(entry) = facts.render(rules) else { return Vec::new() };
        let (document, prefix) = match facts.place() {
            Place::Secrets => {
                (transform("secrets", Tree::map([("secrets", Tree::list([entry]))])), SECRETS_ENTRY)
            }
            Place::Transform(name) => (transform(name, entry), TRANSFORM_CONFIG),
            Place::Bundled { transform: name, list } => {
                (transform(name, Tree::map([(list, Tree::list([entry]))])), BUNDLED_ENTRY)
            }
            Place::Postgres => (database(entry), POSTGRES_ENTRY),
        };
        let renames = facts.renames();
        let field =
            |problem: &Problem| api_field(problem.path.strip_prefix(prefix).unwrap_or("base"), renames);
        match parse_rendered("secret", &document.reveal()) {
            Ok(loaded) => {
                let of = |problem: &Problem| format!("{}: {}", field(problem), said(problem));
                loaded.warnings.iter().map(of).collect()
            }
            Err(problems) => {
                for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
                    details.add(field(problem), said(problem));
                }
                Vec::new()
            }
        }
    }
}

const SECRETS_ENTRY: &str = "transforms[0].config.secrets[0].";
const TRANSFORM_CONFIG: &str = "transforms[0].config.";
const BUNDLED_ENTRY: &str = "transforms[0].config.tokens[0].";
const POSTGRES_ENTRY: &str = "postgres.upstreams[0].";

/// Judges the rules of a principal's or role's own.
pub(crate) fn judge_rules(rules: &[Rule], details: &mut Details) -> Vec<Warning> {
    for (index, rule) in rules.iter().enumerate() {
        rule.check(&format!("rules[{index}]"), details);
    }
    let list = Tree::list(rules.iter().map(Rule::tree));
    let document = transform("allowlist", Tree::map([("rules", list)]));
    let field =
        |problem: &Problem| api_field(problem.path.strip_prefix(TRANSFORM_CONFIG).unwrap_or("base"), &[]);
    match parse_rendered("rules", &document.reveal()) {
        Ok(loaded) => {
            loaded.warnings.iter().map(|problem| format!("{}: {}", field(problem), said(problem))).collect()
        }
        Err(problems) => {
            for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
                details.add(field(problem), said(problem));
            }
            Vec::new()
        }
    }
}

fn transform(name: &str, config: Tree) -> Tree {
    Tree::map([("transforms", Tree::list([Tree::map([("name", Tree::text(name)), ("config", config)])]))])
}

/// The listener is each proxy's own; here it is any.
fn database(entry: Tree) -> Tree {
    let client = Tree::map([("user", Tree::text("any")), ("password_env", Tree::text("ANY"))]);
    let postgres = Tree::map([
        ("listen", Tree::text("127.0.0.1:5432")),
        ("client", client),
        ("upstreams", Tree::list([entry])),
    ]);
    Tree::map([("postgres", postgres)])
}

fn said(problem: &Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{} ({hint})", problem.message),
        None => problem.message.clone(),
    }
}

/// The API's name of a key of the document.
fn api_field(path: &str, renames: &[(&str, &str)]) -> String {
    let path = match renames.iter().find(|(key, _)| {
        path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }) {
        Some((key, name)) => format!("{name}{}", &path[key.len()..]),
        None => path.to_owned(),
    };
    match path.rsplit_once('.') {
        Some((rule, "methods")) if rule.starts_with("rules") => format!("{rule}.http_methods"),
        Some((rule, key)) if rule.starts_with("rules") && key.starts_with("methods[") => {
            format!("{rule}.http_methods{}", &key["methods".len()..])
        }
        _ => path,
    }
}

/// serde's message without what it quotes of the value (T46).
fn shape_fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.split_once(':') {
        Some(("invalid type", rest)) | Some(("invalid value", rest)) => {
            let expected = rest.rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
            format!("has the wrong type; expected {expected}")
        }
        _ if message.starts_with("unknown field") => "is not an attribute of this resource".to_owned(),
        _ if message.starts_with("unknown variant") => {
            let expected = message.split_once("expected ").map_or("", |(_, expected)| expected);
            format!("must be {}", expected.replace('`', ""))
        }
        _ if message.starts_with("missing field") => {
            format!("{} is required", message.trim_start_matches("missing field ").replace('`', "\""))
        }
        _ => "cannot be read".to_owned(),
    }
}

/// No text of a resource holds one: PostgreSQL could not store it.
fn nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(nul),
        Value::Object(entries) => entries.iter().any(|(key, value)| key.contains('\0') || nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
