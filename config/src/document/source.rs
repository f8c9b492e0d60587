//! Where a secret's value comes from. The document names the place; nothing here opens it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::duration::GoDuration;
use super::field::{Field, text};
use super::inline::InlineSecret;
use super::place::At;

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
    /// AWS Secrets Manager.
    AwsSecretsManager {
        /// The secret's name or ARN.
        secret_id: String,
        /// The region; the credential chain's own, if absent.
        region: Option<String>,
    },
    /// The parameter store of AWS Systems Manager.
    AwsParameterStore {
        /// The parameter's name or ARN.
        name: String,
        /// The region; the credential chain's own, if absent.
        region: Option<String>,
        /// A SecureString is decrypted.
        with_decryption: bool,
    },
    /// 1Password's service, through a service account.
    OnePassword {
        /// `op://vault/item/field`.
        secret_ref: String,
    },
    /// A 1Password Connect server.
    OnePasswordConnect {
        /// `op://vault/item/[section/]field`.
        secret_ref: String,
    },
    /// HashiCorp Vault's key-value engine.
    VaultKv {
        /// Where the engine is mounted.
        mount: String,
        /// The secret's path in it.
        path: String,
        /// The engine's version.
        kv_version: KvVersion,
    },
    /// The document itself: a control plane delivered the value.
    ControlPlane {
        /// The value.
        value: InlineSecret,
        /// Which secret it is the value of: a later value of the same is no other secret.
        id: Option<String>,
    },
}

/// The versions of Vault's key-value engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvVersion {
    /// One value for each key.
    One,
    /// Values with a history.
    #[default]
    Two,
}

impl Source {
    /// What records and messages call this secret: the variable's name, the file's path, the vendor's reference.
    pub fn display_name(&self) -> String {
        match &self.kind {
            SourceKind::Env { var } => var.clone(),
            SourceKind::File { path } => path.display().to_string(),
            SourceKind::AwsSecretsManager { secret_id, .. } => secret_id.clone(),
            SourceKind::AwsParameterStore { name, .. } => name.clone(),
            SourceKind::OnePassword { secret_ref } | SourceKind::OnePasswordConnect { secret_ref } => {
                secret_ref.clone()
            }
            SourceKind::VaultKv { mount, path, .. } => format!("vault_kv:{mount}/{path}"),
            SourceKind::ControlPlane { .. } => "control_plane".to_owned(),
        }
    }
}

impl SourceKind {
    /// The `type` that the file says.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Env { .. } => "env",
            Self::File { .. } => "file",
            Self::AwsSecretsManager { .. } => "aws_sm",
            Self::AwsParameterStore { .. } => "aws_ssm",
            Self::OnePassword { .. } => "1password",
            Self::OnePasswordConnect { .. } => "1password_connect",
            Self::VaultKv { .. } => "vault_kv",
            Self::ControlPlane { .. } => "control_plane",
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut block = serializer.serialize_map(None)?;
        block.serialize_entry("type", self.kind.type_name())?;
        match &self.kind {
            SourceKind::Env { var } => block.serialize_entry("var", var)?,
            SourceKind::File { path } => block.serialize_entry("path", path)?,
            SourceKind::AwsSecretsManager { secret_id, region } => {
                block.serialize_entry("secret_id", secret_id)?;
                entry(&mut block, "region", region.as_ref())?;
            }
            SourceKind::AwsParameterStore { name, region, with_decryption } => {
                block.serialize_entry("name", name)?;
                entry(&mut block, "region", region.as_ref())?;
                block.serialize_entry("with_decryption", with_decryption)?;
            }
            SourceKind::OnePassword { secret_ref } | SourceKind::OnePasswordConnect { secret_ref } => {
                block.serialize_entry("secret_ref", secret_ref)?;
            }
            SourceKind::VaultKv { mount, path, kv_version } => {
                block.serialize_entry("mount", mount)?;
                block.serialize_entry("path", path)?;
                block.serialize_entry("kv_version", &kv_version.number())?;
            }
            SourceKind::ControlPlane { value, id } => {
                block.serialize_entry("value", value)?;
                entry(&mut block, "id", id.as_ref())?;
            }
        }
        entry(&mut block, "json_key", self.json_key.as_ref())?;
        entry(&mut block, "ttl", self.ttl.map(GoDuration).as_ref())?;
        entry(&mut block, "failure_ttl", self.failure_ttl.map(GoDuration::from).as_ref())?;
        block.end()
    }
}

fn entry<B: SerializeMap, T: Serialize>(block: &mut B, key: &str, value: Option<&T>) -> Result<(), B::Error> {
    value.map_or(Ok(()), |value| block.serialize_entry(key, value))
}

impl KvVersion {
    const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// What a source looks like, for the hint where one is missing.
pub(super) const SHAPE: &str = "write { type: env, var: NAME } or { type: file, path: FILE }";

const TYPES: [&str; 8] =
    ["env", "file", "aws_sm", "aws_ssm", "1password", "1password_connect", "vault_kv", "control_plane"];

/// Every key of every type, so that a key of another type is told from a slip.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "source", deny_unknown_fields, extend("required" = ["type"]))]
pub(super) struct Keys {
    /// Where the value is.
    #[serde(rename = "type")]
    #[schemars(extend("examples" = TYPES))]
    kind: Field<String>,
    /// env: the environment variable.
    var: Field<String>,
    /// file: the file, read to its last byte. vault_kv: the secret's path in the mount.
    path: Field<String>,
    /// The value is a JSON object, and the text under this key is meant.
    json_key: Field<String>,
    /// How long a value is good for; absent or 0s is for ever, negative is not at all.
    #[serde(deserialize_with = "text")]
    ttl: Field<GoDuration>,
    /// How long a failure is remembered.
    #[serde(deserialize_with = "text")]
    failure_ttl: Field<GoDuration>,
    /// aws_sm: the secret's name or ARN.
    secret_id: Field<String>,
    /// aws_sm, aws_ssm: the region.
    region: Field<String>,
    /// aws_ssm: the parameter's name or ARN.
    name: Field<String>,
    /// aws_ssm: decrypt a SecureString; true, if absent.
    with_decryption: Field<bool>,
    /// 1password, 1password_connect: op://vault/item/field.
    secret_ref: Field<String>,
    /// vault_kv: where the engine is mounted.
    mount: Field<String>,
    /// vault_kv: the engine's version, 1 or 2; 2, if absent.
    kv_version: Field<u8>,
    /// control_plane: the value itself.
    value: Field<String>,
    /// control_plane: which secret it is the value of.
    id: Field<String>,
    /// token_broker, which iron-proxy no longer has.
    credential_id: Field<String>,
}

impl Source {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        if at.node().is_none() {
            at.error("required", SHAPE);
            return None;
        }
        let mut keys: Keys = at.decode()?;
        let kind = std::mem::take(&mut keys.kind).not_empty();
        if kind.is_absent() {
            at.key("type").error("required", format!("valid here: {}", TYPES.join(", ")));
        }
        let kind = keys.kind(&kind.get()?, at);
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
    fn kind(&mut self, kind: &str, at: &At<'_>) -> Option<SourceKind> {
        let own: &[&str] = match kind {
            "env" => &["var"],
            "file" => &["path", "ttl", "failure_ttl"],
            "aws_sm" => &["secret_id", "region", "ttl", "failure_ttl"],
            "aws_ssm" => &["name", "region", "with_decryption", "ttl", "failure_ttl"],
            "1password" | "1password_connect" => &["secret_ref", "ttl", "failure_ttl"],
            "vault_kv" => &["mount", "path", "kv_version", "ttl", "failure_ttl"],
            "control_plane" => &["value", "id"],
            "token_broker" => {
                at.key("type").error(
                    "iron-proxy itself no longer has the source `token_broker`",
                    format!("valid here: {}", TYPES.join(", ")),
                );
                return None;
            }
            other => {
                let at = at.key("type");
                at.error(format!("unsupported source type {}", at.shown()), at.guess(other, &TYPES));
                return None;
            }
        };
        self.refuse_keys_but(at, kind, own);
        let mut required = |field: fn(&mut Self) -> &mut Field<String>, key: &str| {
            let field = std::mem::take(field(self)).not_empty();
            if field.is_absent() {
                at.key(key).error(format!("{kind} source requires \"{key}\" field"), ());
            }
            field.get()
        };
        match kind {
            "env" => {
                let var = required(|keys| &mut keys.var, "var")?;
                at.key("var").check_variable_name(&var).then_some(SourceKind::Env { var })
            }
            "file" => {
                let path = required(|keys| &mut keys.path, "path")?;
                if path.contains('\0') {
                    at.key("path").error("a path holds no NUL", ());
                    return None;
                }
                Some(SourceKind::File { path: PathBuf::from(path) })
            }
            "aws_sm" => {
                let secret_id = required(|keys| &mut keys.secret_id, "secret_id")?;
                Some(SourceKind::AwsSecretsManager { secret_id, region: self.region() })
            }
            "aws_ssm" => {
                let name = required(|keys| &mut keys.name, "name")?;
                let with_decryption = std::mem::take(&mut self.with_decryption).get().unwrap_or(true);
                Some(SourceKind::AwsParameterStore { name, region: self.region(), with_decryption })
            }
            "1password" => {
                let secret_ref = required(|keys| &mut keys.secret_ref, "secret_ref")?;
                check_reference(&secret_ref, None, &at.key("secret_ref"))
                    .then_some(SourceKind::OnePassword { secret_ref })
            }
            "1password_connect" => {
                let secret_ref = required(|keys| &mut keys.secret_ref, "secret_ref")?;
                check_reference(&secret_ref, Some(3..=4), &at.key("secret_ref"))
                    .then_some(SourceKind::OnePasswordConnect { secret_ref })
            }
            "vault_kv" => {
                let (mount, path) =
                    (required(|keys| &mut keys.mount, "mount"), required(|keys| &mut keys.path, "path"));
                let kv_version = self.kv_version(&at.key("kv_version"));
                Some(SourceKind::VaultKv { mount: mount?, path: path?, kv_version: kv_version? })
            }
            _ => {
                let value = required(|keys| &mut keys.value, "value")?;
                let id = std::mem::take(&mut self.id).not_empty().get();
                Some(SourceKind::ControlPlane { value: value.into(), id })
            }
        }
    }

    fn region(&mut self) -> Option<String> {
        std::mem::take(&mut self.region).not_empty().get()
    }

    fn kv_version(&self, at: &At<'_>) -> Option<KvVersion> {
        match self.kv_version {
            Field::Absent | Field::Is(0 | 2) => Some(KvVersion::Two),
            Field::Is(1) => Some(KvVersion::One),
            Field::Is(_) => {
                at.error(format!("kv_version must be 1 or 2, got {}", at.shown()), ());
                None
            }
            Field::Invalid => None,
        }
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
            ("mount", !self.mount.is_absent()),
            ("kv_version", !self.kv_version.is_absent()),
            ("value", !self.value.is_absent()),
            ("credential_id", !self.credential_id.is_absent()),
        ];
        for (key, _) in present.iter().filter(|(key, there)| *there && !own.contains(key)) {
            let hint = format!("valid here: type, json_key, {}", own.join(", "));
            at.key(key).stray_key(format!("a source of type {kind} takes no \"{key}\""), hint);
        }
    }
}

fn check_reference(reference: &str, segments: Option<std::ops::RangeInclusive<usize>>, at: &At<'_>) -> bool {
    const SHAPE: &str = "write op://vault/item/field";
    let Some(path) = reference.strip_prefix("op://") else {
        at.error(format!("a 1Password reference begins with op://: {}", at.shown()), SHAPE);
        return false;
    };
    let parts: Vec<&str> = path.split('/').collect();
    if segments.is_some_and(|segments| !segments.contains(&parts.len()) || parts.contains(&"")) {
        at.error(
            format!("a reference for Connect has three or four parts, none of them empty: {}", at.shown()),
            "write op://vault/item/field or op://vault/item/section/field",
        );
        return false;
    }
    true
}
