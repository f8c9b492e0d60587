//! `postgres`: databases that clients reach with a shared password, each with its real credentials and a fixed role.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Block, Field, text};
use super::listen::ListenAddr;
use super::place::At;
use super::source::{self, Source};

/// The `postgres` block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Postgres {
    /// Where clients connect.
    pub listen: ListenAddr,
    /// What every client shows.
    pub client: PostgresClient,
    /// The databases.
    pub upstreams: Vec<PostgresUpstream>,
}

/// What every client shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PostgresClient {
    /// The user.
    pub user: String,
    /// The environment variable with the password. Only its name is here.
    pub password_env: String,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PostgresUpstream {
    /// The name that clients ask for, which is the DSN's.
    pub database: String,
    /// Where it is and with which credentials.
    pub dsn: Source,
    /// The role that every session has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Settings that every session has, applied in order before the role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<PostgresSetting>,
}

/// A setting that a session cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PostgresSetting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "postgres", deny_unknown_fields)]
pub(super) struct Keys {
    /// Where clients connect.
    #[serde(deserialize_with = "text")]
    listen: Field<ListenAddr>,
    /// What every client shows.
    #[serde(rename = "client")]
    #[schemars(with = "Option<ClientKeys>")]
    _client: Block,
    /// The databases; at least one.
    #[serde(rename = "upstreams")]
    #[schemars(with = "Option<Vec<UpstreamKeys>>")]
    _upstreams: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "postgres_client", deny_unknown_fields)]
struct ClientKeys {
    /// The user.
    user: Field<String>,
    /// The environment variable with the password.
    password_env: Field<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "postgres_upstream", deny_unknown_fields)]
struct UpstreamKeys {
    /// The name that clients ask for, which is the DSN's.
    database: Field<String>,
    /// Where the database is and with which credentials.
    #[serde(rename = "dsn")]
    #[schemars(with = "Option<source::Keys>")]
    _dsn: Block,
    /// The role that every session has.
    role: Field<String>,
    /// Settings that no session can change, applied in order before the role.
    #[serde(rename = "settings")]
    #[schemars(with = "Option<Vec<SettingKeys>>")]
    _settings: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "postgres_setting", deny_unknown_fields)]
struct SettingKeys {
    /// The setting: name or class.name.
    name: Field<String>,
    /// Its value.
    value: Field<String>,
}

impl Postgres {
    /// `None` where the block is absent or empty, which asks for nothing.
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.block()?;
        if keys.listen.is_absent() {
            at.key("listen").error("required", "name the address that clients connect to, such as :5432");
        }
        let client = PostgresClient::read(&at.key("client"));
        let upstreams = at.key("upstreams");
        if upstreams.lists_nothing() {
            upstreams
                .error("at least one upstream is required", "write upstreams: [{ database: …, dsn: … }]");
        }
        let mut databases = HashSet::new();
        let upstreams = upstreams.each();
        Some(Self {
            upstreams: upstreams.iter().filter_map(|at| PostgresUpstream::read(at, &mut databases)).collect(),
            listen: keys.listen.get()?,
            client: client?,
        })
    }
}

impl PostgresClient {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: ClientKeys = at.decode()?;
        let user = at.required_text(keys.user, "user", "the user that clients send");
        let password_env =
            at.required_text(keys.password_env, "password_env", "the environment variable with the password");
        if let Some(name) = &password_env {
            at.key("password_env").check_variable_name(name);
        }
        Some(Self { user: user?, password_env: password_env? })
    }
}

impl PostgresUpstream {
    fn read(at: &At<'_>, databases: &mut HashSet<String>) -> Option<Self> {
        let keys: UpstreamKeys = at.decode()?;
        let database = at.required_text(keys.database, "database", "the name that clients ask for");
        if let Some(database) = &database {
            at.key("database").check_new(database, databases, "database");
        }
        let dsn = Source::read(&at.key("dsn"));
        let mut names = HashSet::new();
        let settings = at.key("settings").each();
        let settings = settings.iter().filter_map(|at| PostgresSetting::read(at, &mut names)).collect();
        Some(Self { database: database?, dsn: dsn?, role: keys.role.not_empty().get(), settings })
    }
}

impl PostgresSetting {
    fn read(at: &At<'_>, names: &mut HashSet<String>) -> Option<Self> {
        let keys: SettingKeys = at.decode()?;
        let name = at.required_text(keys.name, "name", "the setting, such as app.tenant")?;
        let place = at.key("name");
        if !is_setting_name(&name) {
            place.error(
                format!("not the name of a setting: {}", place.shown()),
                "write name or class.name, of ASCII letters, digits and `_`",
            );
        }
        // They are what the block fixes by other means.
        if matches!(name.to_ascii_lowercase().as_str(), "role" | "session_authorization") {
            place.error(
                format!("this setting is not for the file: {}", place.shown()),
                "give the upstream a `role`",
            );
        }
        place.check_new(&name.to_ascii_lowercase(), names, "setting");
        Some(Self { name, value: keys.value.get().unwrap_or_default() })
    }
}

fn is_setting_name(name: &str) -> bool {
    let identifier = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match name.split_once('.') {
        Some((class, name)) => identifier(class) && identifier(name),
        None => identifier(name),
    }
}
