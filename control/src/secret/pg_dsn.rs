//! Databases that sandboxes reach with the real credentials and a fixed role.

use keyferry_contract::sync::Tree;
use serde::{Deserialize, Serialize};

use super::kind::{Facts, Place, Target, set_some};
use super::rule::Rule;
use super::source::Source;
use crate::details::Details;

/// The attributes of a `pg_dsn` secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PgDsnSecret {
    /// The name that clients ask for, which is the DSN's.
    #[serde(default)]
    pub database: Option<String>,
    /// The role that every session has.
    #[serde(default)]
    pub role: Option<String>,
    /// Settings that no session can change, in this order.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// Where the connection string comes from.
    #[serde(default)]
    pub dsn: Option<Source>,
}

/// A setting of every session.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PgSetting)]
pub struct Setting {
    /// `name` or `class.name`.
    pub name: String,
    /// Its value. One of this and value_from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whose value it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

/// Something that is known about who connects.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ValueFrom {
    /// A label of the principal; empty where it has none, which row-level security takes for nobody.
    PrincipalLabel(String),
    /// id, namespace, foreign_id, name, kind or a Slack field of the principal.
    PrincipalField(String),
    /// A label of the proxy.
    ProxyLabel(String),
}

/// The fields that a setting may take.
pub(crate) const PRINCIPAL_FIELDS: [&str; 9] = [
    "id",
    "namespace",
    "foreign_id",
    "name",
    "kind",
    "slack_user_id",
    "slack_channel_id",
    "slack_team_id",
    "slack_email",
];

impl PgDsnSecret {
    /// The entry, with the settings' values from whoever connects.
    pub(crate) fn resolved(&self, value_of: &dyn Fn(&ValueFrom) -> String) -> Option<Tree> {
        let mut tree = self.render(Tree::Null)?;
        if !self.settings.is_empty() {
            let setting = |setting: &Setting| {
                let value = match (&setting.value, &setting.value_from) {
                    (Some(value), _) => value.clone(),
                    (None, Some(from)) => value_of(from),
                    (None, None) => String::new(),
                };
                Tree::map([("name", Tree::text(&setting.name)), ("value", Tree::Text(value))])
            };
            tree.set("settings", Tree::list(self.settings.iter().map(setting)));
        }
        Some(tree)
    }
}

impl Facts for PgDsnSecret {
    fn sources(&mut self) -> Vec<(String, &mut Source)> {
        self.dsn.iter_mut().map(|source| ("dsn".to_owned(), source)).collect()
    }

    fn rules_mut(&mut self) -> Option<&mut Vec<Rule>> {
        None
    }

    fn rules(&self) -> &[Rule] {
        &[]
    }

    fn check(&self, details: &mut Details) {
        if self.database.as_deref().is_none_or(|database| database.trim().is_empty()) {
            details.add("database", "can't be blank");
        }
        match &self.dsn {
            None => details.add("dsn", "can't be blank"),
            Some(Source { secret: Some(dsn), .. }) => {
                let named = database_of(secrecy::ExposeSecret::expose_secret(dsn));
                if named.is_some_and(|named| Some(named.as_str()) != self.database.as_deref()) {
                    details.add("database", "must be the database that the DSN names");
                }
            }
            Some(Source { secret: None, .. }) => {}
        }
        for (index, setting) in self.settings.iter().enumerate() {
            if setting.value.is_some() == setting.value_from.is_some() {
                details.add(format!("settings[{index}]"), "must define exactly one of value or value_from");
            }
            if let Some(ValueFrom::PrincipalField(field)) = &setting.value_from
                && !PRINCIPAL_FIELDS.contains(&field.as_str())
            {
                details.add(
                    format!("settings[{index}].value_from"),
                    format!("principal_field must be one of {}", PRINCIPAL_FIELDS.join(", ")),
                );
            }
        }
    }

    fn place(&self) -> Place {
        Place::Postgres
    }

    fn render(&self, _: Tree) -> Option<Tree> {
        let mut tree = Tree::map::<String>([]);
        if let Some(dsn) = &self.dsn {
            tree.set("dsn", dsn.tree()?);
        }
        set_some(&mut tree, "database", self.database.as_deref());
        set_some(&mut tree, "role", self.role.as_deref());
        let setting = |setting: &Setting| {
            let value = setting.value.clone().unwrap_or_default();
            Tree::map([("name", Tree::text(&setting.name)), ("value", Tree::Text(value))])
        };
        if !self.settings.is_empty() {
            tree.set("settings", Tree::list(self.settings.iter().map(setting)));
        }
        Some(tree)
    }

    fn targets(&self) -> Vec<Target> {
        self.database.clone().map(Target::Database).into_iter().collect()
    }
}

/// The database of a connection URL; a keyword string names it as `dbname=`.
fn database_of(dsn: &str) -> Option<String> {
    match dsn.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => {
            let (_, path) = rest.split_once('/')?;
            let name = path.split(['?', '#']).next().unwrap_or_default();
            let name = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
            (!name.is_empty()).then(|| name.into_owned())
        }
        Some(_) => None,
        None => {
            let named = dsn.split_whitespace().find_map(|pair| pair.strip_prefix("dbname="))?;
            Some(named.trim_matches('\'').to_owned())
        }
    }
}
