//! The `config` of a `gcp_auth` and of a `gcp_id_token`: Google's access tokens and identity tokens.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::workload::{self, ProviderType};
use crate::document::field::{Block, Field, List};
use crate::document::place::At;
use crate::document::rule::{self, Rule};
use crate::document::source::{self, Source};

/// The `config` of a `gcp_auth`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GcpAuth {
    /// Who the proxy is to Google.
    #[serde(flatten)]
    pub credentials: GcpCredentials,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Whom a service account stands in for (domain-wide delegation).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The requests that carry a token. Empty means every request that is allowed, as in iron-proxy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// Who the proxy is to Google.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum GcpCredentials {
    /// A service account, whose key file is at a path.
    #[serde(rename = "keyfile_path")]
    KeyfilePath(PathBuf),
    /// A service account, whose key file is a secret.
    #[serde(rename = "keyfile")]
    Keyfile(Source),
    /// What the machine says.
    #[serde(rename = "credentials_provider")]
    Provider(ProviderType),
}

/// The `config` of a `gcp_id_token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GcpIdToken {
    /// The service account: a path or a secret, never a provider.
    #[serde(flatten)]
    pub credentials: GcpCredentials,
    /// Whom the token is meant for.
    pub audience: String,
    /// The header that it is set in.
    pub header: IdTokenHeader,
    /// The requests that carry it.
    pub rules: Vec<Rule>,
}

/// The headers that Google takes an identity token from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "header", rename_all = "kebab-case")]
pub enum IdTokenHeader {
    /// `Authorization`.
    #[default]
    Authorization,
    /// `X-Serverless-Authorization`, where `Authorization` belongs to the application.
    XServerlessAuthorization,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "gcp_auth", deny_unknown_fields)]
pub(super) struct AuthKeys {
    /// The key file of a service account. One of keyfile_path, keyfile and credentials_provider.
    keyfile_path: Field<String>,
    /// The source of a key file.
    #[serde(rename = "keyfile")]
    #[schemars(with = "Option<source::Keys>")]
    _keyfile: Block,
    /// Credentials that the machine has.
    #[serde(rename = "credentials_provider")]
    #[schemars(with = "Option<GcpProviderKeys>")]
    _credentials_provider: Block,
    /// What is asked for; at least one.
    scopes: Field<List<String>>,
    /// Whom the service account stands in for.
    subject: Field<String>,
    /// The requests that carry a token; empty is every request that is allowed.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "gcp_provider", deny_unknown_fields)]
struct GcpProviderKeys {
    /// Where the machine has them from.
    #[serde(rename = "type")]
    kind: Field<ProviderType>,
}

impl GcpAuth {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: AuthKeys = at.decode()?;
        let credentials = GcpCredentials::read(keys.keyfile_path, true, at);
        let scopes = keys.scopes.get().map(List::all).unwrap_or_default();
        if at.key("scopes").lists_nothing() {
            at.key("scopes").error(
                "at least one scope is required",
                "write scopes: [https://www.googleapis.com/auth/cloud-platform]",
            );
        }
        let subject = keys.subject.not_empty().get();
        if subject.is_some() && at.key("credentials_provider").node().is_some() {
            at.key("subject").error(
                "only a service account with a key file stands in for others",
                "leave the subject out, or give a keyfile",
            );
        }
        let rules = Rule::read_list(&at.key("rules"));
        if at.key("rules").lists_nothing() {
            at.key("rules").warning(
                "no rules, so every allowed host receives a token of Google's",
                "say where it may go: rules: [{ host: \"*.googleapis.com\" }]",
            );
        }
        Some(Self { credentials: credentials?, scopes, subject, rules })
    }
}

impl GcpCredentials {
    /// The secret, if this is one.
    pub fn source(&self) -> Option<&Source> {
        match self {
            Self::Keyfile(source) => Some(source),
            Self::KeyfilePath(_) | Self::Provider(_) => None,
        }
    }

    fn read(keyfile_path: Field<String>, provider: bool, at: &At<'_>) -> Option<Self> {
        let path = keyfile_path.not_empty();
        let (keyfile, provided) = (at.key("keyfile"), at.key("credentials_provider"));
        let given = [!path.is_absent(), keyfile.node().is_some(), provided.node().is_some()];
        let valid = match provider {
            true => "keyfile_path, keyfile and credentials_provider",
            false => "keyfile_path and keyfile",
        };
        if given.iter().filter(|given| **given).count() != 1 {
            at.error(format!("exactly one of {valid} is required"), ());
            return None;
        }
        if keyfile.node().is_some() {
            return Source::read(&keyfile).map(Self::Keyfile);
        }
        if provided.node().is_some() {
            let keys: GcpProviderKeys = provided.decode()?;
            return workload::provider(keys.kind, &provided).map(Self::Provider);
        }
        path.get().map(|path| Self::KeyfilePath(PathBuf::from(path)))
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "gcp_id_token", deny_unknown_fields)]
pub(super) struct IdTokenKeys {
    /// The key file of a service account. One of keyfile_path and keyfile.
    keyfile_path: Field<String>,
    /// The source of a key file.
    #[serde(rename = "keyfile")]
    #[schemars(with = "Option<source::Keys>")]
    _keyfile: Block,
    /// Whom the token is meant for.
    audience: Field<String>,
    /// The header that it is set in.
    #[schemars(extend("default" = "authorization"))]
    header: Field<IdTokenHeader>,
    /// The requests that carry the token; at least one rule.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
}

impl GcpIdToken {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: IdTokenKeys = at.decode()?;
        let credentials = GcpCredentials::read(keys.keyfile_path, false, at);
        let audience = at.required_text(keys.audience, "audience", "whom the token is meant for");
        let rules = Rule::read_some(&at.key("rules"));
        Some(Self {
            credentials: credentials?,
            audience: audience?,
            header: keys.header.get().unwrap_or_default(),
            rules,
        })
    }
}
