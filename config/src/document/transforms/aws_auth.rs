//! The `config` of an `aws_auth`: requests signed anew with AWS Signature Version 4.

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::workload::{self, ProviderType};
use crate::document::field::{Block, Field, List};
use crate::document::place::At;
use crate::document::rule::{self, Rule};
use crate::document::source::{self, Source};

/// The `config` of an `aws_auth`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AwsAuth {
    /// What signs.
    #[serde(flatten)]
    pub credentials: AwsCredentials,
    /// Regions that may be signed for; any, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_regions: Vec<String>,
    /// Services that may be signed for; any, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_services: Vec<String>,
    /// The body is left out of the signature.
    pub unsigned_payload: bool,
    /// A body without a length may be held and signed.
    pub allow_chunked_body: bool,
    /// The requests that are signed.
    pub rules: Vec<Rule>,
}

/// What signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsCredentials {
    /// A pair of keys.
    Static(Box<AwsKeys>),
    /// What the machine has.
    Provider {
        /// Where from.
        kind: ProviderType,
        /// Whom to ask; the chain's own idea, if absent.
        region: Option<String>,
    },
}

/// A pair of keys, with a session or without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AwsKeys {
    /// The access key's name.
    pub access_key_id: Source,
    /// The access key.
    pub secret_access_key: Source,
    /// The session that the pair belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Source>,
}

impl Serialize for AwsCredentials {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Provider<'a> {
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            region: &'a Option<String>,
        }
        match self {
            Self::Static(keys) => keys.serialize(serializer),
            Self::Provider { kind, region } => {
                let mut block = serializer.serialize_map(Some(1))?;
                block.serialize_entry("credentials_provider", &Provider { r#type: kind.name(), region })?;
                block.end()
            }
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "aws_auth", deny_unknown_fields)]
pub(super) struct Keys {
    /// The access key's name; together with secret_access_key, or credentials_provider instead.
    #[serde(rename = "access_key_id")]
    #[schemars(with = "Option<source::Keys>")]
    _access_key_id: Block,
    /// The access key.
    #[serde(rename = "secret_access_key")]
    #[schemars(with = "Option<source::Keys>")]
    _secret_access_key: Block,
    /// The session that the pair belongs to.
    #[serde(rename = "session_token")]
    #[schemars(with = "Option<source::Keys>")]
    _session_token: Block,
    /// Credentials that the machine has.
    #[serde(rename = "credentials_provider")]
    #[schemars(with = "Option<ProviderKeys>")]
    _credentials_provider: Block,
    /// Regions that may be signed for; empty is any.
    allowed_regions: Field<List<String>>,
    /// Services that may be signed for; empty is any.
    allowed_services: Field<List<String>>,
    /// Leave the body out of the signature.
    #[schemars(extend("default" = false))]
    unsigned_payload: Field<bool>,
    /// Hold and sign a body without a length.
    #[schemars(extend("default" = false))]
    allow_chunked_body: Field<bool>,
    /// The requests that are signed; at least one rule.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "aws_provider", deny_unknown_fields)]
struct ProviderKeys {
    /// Where the machine has them from.
    #[serde(rename = "type")]
    kind: Field<ProviderType>,
    /// Whom to ask.
    region: Field<String>,
}

impl AwsAuth {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let credentials = AwsCredentials::read(at);
        let rules = Rule::read_some(&at.key("rules"));
        Some(Self {
            credentials: credentials?,
            allowed_regions: keys.allowed_regions.get().map(List::all).unwrap_or_default(),
            allowed_services: keys.allowed_services.get().map(List::all).unwrap_or_default(),
            unsigned_payload: keys.unsigned_payload.get().unwrap_or(false),
            allow_chunked_body: keys.allow_chunked_body.get().unwrap_or(false),
            rules,
        })
    }
}

impl AwsCredentials {
    /// Every place of a credential.
    pub fn sources(&self) -> Vec<&Source> {
        match self {
            Self::Static(keys) => [&keys.access_key_id, &keys.secret_access_key]
                .into_iter()
                .chain(&keys.session_token)
                .collect(),
            Self::Provider { .. } => Vec::new(),
        }
    }

    fn read(at: &At<'_>) -> Option<Self> {
        let [id, secret, session] =
            ["access_key_id", "secret_access_key", "session_token"].map(|key| at.key(key));
        let provided = at.key("credentials_provider");
        let fixed = [&id, &secret, &session].iter().any(|at| at.node().is_some());
        match (fixed, provided.node().is_some()) {
            (true, true) => {
                at.error("access keys and credentials_provider are mutually exclusive", "keep one of them");
                None
            }
            (false, false) => {
                at.error(
                    "access_key_id and secret_access_key, or credentials_provider, are required",
                    "write credentials_provider: { type: workload_identity } for the machine's own",
                );
                None
            }
            (false, true) => {
                let keys: ProviderKeys = provided.decode()?;
                let kind = workload::provider(keys.kind, &provided);
                Some(Self::Provider { kind: kind?, region: keys.region.not_empty().get() })
            }
            (true, false) => {
                let (access_key_id, secret_access_key) = (Source::read(&id), Source::read(&secret));
                let session_token = session.node().and_then(|_| Source::read(&session));
                Some(Self::Static(Box::new(AwsKeys {
                    access_key_id: access_key_id?,
                    secret_access_key: secret_access_key?,
                    session_token,
                })))
            }
        }
    }
}
