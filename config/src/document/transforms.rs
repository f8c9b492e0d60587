//! `transforms`: what is done with a request, in order.

mod annotate;
mod aws_auth;
mod body_capture;
mod gcp;
mod grpc;
mod header_allowlist;
mod hmac_sign;
mod judge;
mod oauth_token;
mod signing;
mod workload;

use std::borrow::Cow;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use annotate::{Annotate, Annotation};
pub use aws_auth::{AwsAuth, AwsCredentials, AwsKeys};
pub use body_capture::BodyCapture;
pub use gcp::{GcpAuth, GcpCredentials, GcpIdToken, IdTokenHeader};
pub use grpc::{Grpc, GrpcTls};
pub use header_allowlist::HeaderAllowlist;
pub use hmac_sign::{
    HashAlgorithm, HmacSign, KeyEncoding, OutputEncoding, Signature, SignedHeader, Timestamp, TimestampFormat,
};
pub use judge::{CircuitBreaker, Judge, JudgeFallback, JudgeProvider, ProviderKind};
pub use oauth_token::{OauthEntry, OauthGrant, OauthToken};
pub use signing::{SigningField, SigningPart, SigningTemplate};
pub use workload::ProviderType;

use super::cidr::Cidr;
use super::collisions;
use super::field::{Block, Field, List, Parsed};
use super::place::At;
use super::rule::{self, Rule};
use super::secrets::{SecretEntry, Secrets, SecretsKeys};

/// One element of `transforms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "name", content = "config", rename_all = "snake_case")]
pub enum Transform {
    /// Which destinations may be reached.
    Allowlist(Allowlist),
    /// Which placeholders become which credentials, and where.
    Secrets(Secrets),
    /// Google's access tokens.
    GcpAuth(GcpAuth),
    /// Google's identity tokens.
    GcpIdToken(GcpIdToken),
    /// OAuth access tokens that the proxy asks for itself.
    OauthToken(OauthToken),
    /// Requests signed anew for AWS.
    AwsAuth(AwsAuth),
    /// Requests signed with a shared key.
    HmacSign(HmacSign),
    /// Request headers that go into the record.
    Annotate(Annotate),
    /// Request headers that stay.
    HeaderAllowlist(HeaderAllowlist),
    /// Request bodies that go into the record.
    BodyCapture(BodyCapture),
    /// A service of the operator's that judges and changes requests.
    Grpc(Grpc),
    /// A language model that allows or denies.
    Judge(Judge),
}

/// The `config` of an `allowlist`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Allowlist {
    /// Hosts that may be reached with any method and path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Ranges of addresses that may be reached with any method and path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<IpNet>,
    /// What may be reached in particular.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// A request that nothing matches is let through, and its record says so.
    pub warn: bool,
}

const NAMES: [&str; 12] = [
    "allowlist",
    "secrets",
    "gcp_auth",
    "gcp_id_token",
    "oauth_token",
    "aws_auth",
    "hmac_sign",
    "annotate",
    "header_allowlist",
    "body_capture",
    "grpc",
    "judge",
];

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Keys {
    name: Field<String>,
    #[serde(rename = "config")]
    _config: Block,
}

type ConfigSchema = fn(&mut SchemaGenerator) -> Schema;

const CONFIGS: [(&str, ConfigSchema); NAMES.len()] = [
    ("allowlist", SchemaGenerator::subschema_for::<Option<AllowlistKeys>>),
    ("secrets", SchemaGenerator::subschema_for::<Option<SecretsKeys>>),
    ("gcp_auth", SchemaGenerator::subschema_for::<Option<gcp::AuthKeys>>),
    ("gcp_id_token", SchemaGenerator::subschema_for::<Option<gcp::IdTokenKeys>>),
    ("oauth_token", SchemaGenerator::subschema_for::<Option<oauth_token::Keys>>),
    ("aws_auth", SchemaGenerator::subschema_for::<Option<aws_auth::Keys>>),
    ("hmac_sign", SchemaGenerator::subschema_for::<Option<hmac_sign::Keys>>),
    ("annotate", SchemaGenerator::subschema_for::<Option<annotate::Keys>>),
    ("header_allowlist", SchemaGenerator::subschema_for::<Option<header_allowlist::Keys>>),
    ("body_capture", SchemaGenerator::subschema_for::<Option<body_capture::Keys>>),
    ("grpc", SchemaGenerator::subschema_for::<Option<grpc::Keys>>),
    ("judge", SchemaGenerator::subschema_for::<Option<judge::Keys>>),
];

impl JsonSchema for Keys {
    fn schema_name() -> Cow<'static, str> {
        "transform".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let configs = CONFIGS.map(|(name, config)| {
            json!({
                "if": { "properties": { "name": { "const": name } }, "required": ["name"] },
                "then": { "properties": { "config": config(generator) } },
            })
        });
        schemars::json_schema!({
            "type": "object",
            "properties": {
                "name": {
                    "description": "What is done with requests.",
                    "anyOf": [{ "enum": NAMES }, { "type": "string", "pattern": r"\$\{" }],
                },
                "config": { "description": "How." },
            },
            "required": ["name"],
            "additionalProperties": false,
            "allOf": configs,
        })
    }
}

impl Transform {
    /// What the file calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Allowlist(_) => "allowlist",
            Self::Secrets(_) => "secrets",
            Self::GcpAuth(_) => "gcp_auth",
            Self::GcpIdToken(_) => "gcp_id_token",
            Self::OauthToken(_) => "oauth_token",
            Self::AwsAuth(_) => "aws_auth",
            Self::HmacSign(_) => "hmac_sign",
            Self::Annotate(_) => "annotate",
            Self::HeaderAllowlist(_) => "header_allowlist",
            Self::BodyCapture(_) => "body_capture",
            Self::Grpc(_) => "grpc",
            Self::Judge(_) => "judge",
        }
    }

    pub(super) fn read_list(at: &At<'_>) -> Vec<Self> {
        let places = at.each();
        let mut entries: Vec<(At<'_>, SecretEntry)> = Vec::new();
        let mut transforms = Vec::new();
        for place in &places {
            let Some(transform) = Self::read(place) else { continue };
            if let Self::Secrets(secrets) = &transform {
                let places = place.key("config").key("secrets").each();
                if places.len() == secrets.secrets.len() {
                    entries.extend(places.into_iter().zip(secrets.secrets.iter().cloned()));
                }
            }
            transforms.push(transform);
        }
        collisions::warn(&entries);
        transforms
    }

    fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let name = keys.name.not_empty();
        if name.is_absent() {
            at.key("name").error("required", format!("valid here: {}", NAMES.join(", ")));
        }
        let config = at.key("config");
        match name.get()?.as_str() {
            "allowlist" => Allowlist::read(&config).map(Self::Allowlist),
            "secrets" => Secrets::read(&config).map(Self::Secrets),
            "gcp_auth" => GcpAuth::read(&config).map(Self::GcpAuth),
            "gcp_id_token" => GcpIdToken::read(&config).map(Self::GcpIdToken),
            "oauth_token" => OauthToken::read(&config).map(Self::OauthToken),
            "aws_auth" => AwsAuth::read(&config).map(Self::AwsAuth),
            "hmac_sign" => HmacSign::read(&config).map(Self::HmacSign),
            "annotate" => Annotate::read(&config).map(Self::Annotate),
            "header_allowlist" => HeaderAllowlist::read(&config).map(Self::HeaderAllowlist),
            "body_capture" => BodyCapture::read(&config).map(Self::BodyCapture),
            "grpc" => Grpc::read(&config).map(Self::Grpc),
            "judge" => Judge::read(&config).map(Self::Judge),
            other => {
                let name = at.key("name");
                name.error(format!("unknown transform: {}", name.shown()), name.guess(other, &NAMES));
                None
            }
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "allowlist", deny_unknown_fields)]
struct AllowlistKeys {
    /// Hosts that may be reached with any method and path.
    domains: Field<List<String>>,
    /// Ranges of addresses that may be reached with any method and path.
    cidrs: Field<List<Parsed<Cidr>>>,
    /// What may be reached in particular.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// Let through what nothing matches, and say so in its record.
    #[schemars(extend("default" = false))]
    warn: Field<bool>,
}

impl Allowlist {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: AllowlistKeys = at.decode()?;
        let domains: Vec<_> = keys.domains.get().into_iter().flat_map(List::indexed).collect();
        for (index, domain) in &domains {
            let at = at.key("domains").index(*index);
            rule::check_host(domain, &at);
            rule::warn_on_public_suffix(Some(domain), &at);
        }
        let cidrs = keys.cidrs.get().map(List::all).unwrap_or_default();
        Some(Self {
            domains: domains.into_iter().map(|(_, domain)| domain).collect(),
            cidrs: cidrs.into_iter().map(|range| range.0.0).collect(),
            rules: Rule::read_list(&at.key("rules")),
            warn: keys.warn.get().unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transform_has_a_schema() {
        assert_eq!(CONFIGS.map(|(name, _)| name), NAMES);
    }
}
