//! Where a secret's value comes from, as the API writes it.

use keyferry_contract::sync::Tree;
use secrecy::SecretString;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::details::Details;

/// A source of one value.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretSource)]
pub struct Source {
    /// Where the value is.
    pub source_type: SourceType,
    /// What the type needs: see the table of sources.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config: Map<String, Value>,
    /// `control_plane`: the value itself. It is written, never read.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = Option<String>, write_only)]
    pub secret: Option<SecretString>,
}

/// For answers and for the database. By hand, so that the document names `secret` and nothing ever writes it.
impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("Source", 2)?;
        shown.serialize_field("source_type", &self.source_type)?;
        shown.serialize_field("config", &self.config)?;
        shown.end()
    }
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// An environment variable of the proxy: `var`.
    Env,
    /// A file of the proxy's machine: `path`.
    File,
    /// AWS Secrets Manager: `secret_id`, and perhaps `region`.
    AwsSm,
    /// The parameter store of AWS: `name`, and perhaps `region`, `with_decryption`.
    AwsSsm,
    /// 1Password's service: `secret_ref`.
    #[serde(rename = "1password")]
    OnePassword,
    /// A 1Password Connect server: `secret_ref`.
    #[serde(rename = "1password_connect")]
    OnePasswordConnect,
    /// Vault's key-value engine: `mount`, `path`, and perhaps `kv_version`.
    VaultKv,
    /// Here: `secret`.
    ControlPlane,
    /// A credential of the broker: `credential_id`, and perhaps `credential_namespace`.
    TokenBroker,
}

/// The keys of every type.
const EVERY: [&str; 2] = ["json_key", "ttl"];

impl SourceType {
    /// The keys of this type that proxies read.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Env => &["var"],
            Self::File => &["path"],
            Self::AwsSm => &["secret_id", "region"],
            Self::AwsSsm => &["name", "region", "with_decryption"],
            Self::OnePassword | Self::OnePasswordConnect => &["secret_ref"],
            Self::VaultKv => &["mount", "path", "kv_version"],
            Self::ControlPlane => &[],
            Self::TokenBroker => &["credential_id", "credential_namespace"],
        }
    }

    /// Keys that iron-control takes and no proxy reads.
    const fn idle_keys(self) -> &'static [&'static str] {
        match self {
            Self::OnePassword => &["token_env"],
            Self::OnePasswordConnect => &["host_env", "token_env"],
            Self::Env
            | Self::File
            | Self::AwsSm
            | Self::AwsSsm
            | Self::VaultKv
            | Self::ControlPlane
            | Self::TokenBroker => &[],
        }
    }

    /// Its name in requests and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::File => "file",
            Self::AwsSm => "aws_sm",
            Self::AwsSsm => "aws_ssm",
            Self::OnePassword => "1password",
            Self::OnePasswordConnect => "1password_connect",
            Self::VaultKv => "vault_kv",
            Self::ControlPlane => "control_plane",
            Self::TokenBroker => "token_broker",
        }
    }
}

/// A value can be as large as a service account's key file, not as a database dump.
const LONGEST_VALUE: usize = 64 * 1024;

impl Source {
    /// What the policy language cannot find wrong, because it never sees it.
    pub(super) fn check(&self, field: &str, details: &mut Details) {
        let kind = self.source_type;
        for key in self.config.keys() {
            if !kind.keys().contains(&key.as_str())
                && !kind.idle_keys().contains(&key.as_str())
                && !EVERY.contains(&key.as_str())
            {
                let key: String = key.chars().take(64).collect();
                let valid: Vec<_> = kind.keys().iter().chain(&EVERY).copied().collect();
                details.add(
                    format!("{field}.config"),
                    format!("{key:?} is no key of {}; valid are {}", kind.name(), valid.join(", ")),
                );
            }
        }
        match (kind, &self.secret) {
            (SourceType::ControlPlane, None) => {
                details.add(format!("{field}.secret"), "is required for control_plane");
            }
            (SourceType::ControlPlane, Some(secret)) => {
                let length = secrecy::ExposeSecret::expose_secret(secret).len();
                if length == 0 || length > LONGEST_VALUE {
                    details.add(format!("{field}.secret"), "must have from 1 to 65536 bytes");
                }
            }
            (_, Some(_)) => details.add(format!("{field}.secret"), "is only for control_plane"),
            (SourceType::TokenBroker, None) => {
                details.add(format!("{field}.config"), "credential_id names no broker credential");
            }
            (_, None) => {}
        }
    }

    /// As a document writes it; `None` where there is no value to deliver.
    pub(super) fn tree(&self) -> Option<Tree> {
        let mut tree = Tree::map([("type", Tree::text(self.source_type.name()))]);
        match self.source_type {
            SourceType::ControlPlane => tree.set("value", Tree::Secret(self.secret.clone()?)),
            SourceType::TokenBroker => return None,
            SourceType::Env
            | SourceType::File
            | SourceType::AwsSm
            | SourceType::AwsSsm
            | SourceType::OnePassword
            | SourceType::OnePasswordConnect
            | SourceType::VaultKv => {}
        }
        // A value that cannot change while the proxy holds it has no lifetime in the language.
        let lasting = matches!(self.source_type, SourceType::Env | SourceType::ControlPlane);
        for (key, value) in &self.config {
            let read = self.source_type.keys().contains(&key.as_str()) || key == "json_key" || !lasting;
            if read && !self.source_type.idle_keys().contains(&key.as_str()) {
                tree.set(key, Tree::from(value.clone()));
            }
        }
        Some(tree)
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}
