//! The `config` of an `hmac_sign`: requests signed with a shared key, in a form that the file describes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::signing::{HEADER_FIELDS, MESSAGE_FIELDS, SigningTemplate};
use crate::document::field::{Block, Field};
use crate::document::header;
use crate::document::place::At;
use crate::document::rule::{self, Rule};
use crate::document::source::{self, Source};

/// The `config` of an `hmac_sign`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HmacSign {
    /// How the time is written.
    pub timestamp: Timestamp,
    /// What is signed, and how.
    pub signature: Signature,
    /// The key, under `secret`, and whatever else the headers say.
    pub credentials: BTreeMap<String, Source>,
    /// The headers that are set, in this order.
    pub headers: Vec<SignedHeader>,
    /// A body without a length may be held and signed.
    pub allow_chunked_body: bool,
    /// The requests that are signed.
    pub rules: Vec<Rule>,
}

/// The time of a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timestamp {
    /// How it is written.
    pub format: TimestampFormat,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "timestamp format", rename_all = "snake_case")]
pub enum TimestampFormat {
    /// Seconds since 1970.
    #[default]
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMillis,
    /// Nanoseconds since 1970.
    UnixNanos,
    /// `2006-01-02T15:04:05Z`.
    Rfc3339,
}

/// What is signed, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// The hash.
    pub algorithm: HashAlgorithm,
    /// How the key is written.
    pub key_encoding: KeyEncoding,
    /// How the signature is written.
    pub output_encoding: OutputEncoding,
    /// What is signed.
    pub message: SigningTemplate,
}

/// The hash under an HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "algorithm", rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
    /// SHA-1, for services that know no better.
    Sha1,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "key encoding", rename_all = "lowercase")]
pub enum KeyEncoding {
    /// Its bytes.
    #[default]
    Raw,
    /// Standard base64.
    Base64,
    /// Hexadecimal digits.
    Hex,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "output encoding", rename_all = "lowercase")]
pub enum OutputEncoding {
    /// Standard base64.
    #[default]
    Base64,
    /// Hexadecimal digits.
    Hex,
}

/// A header that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignedHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: SigningTemplate,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "hmac_sign", deny_unknown_fields)]
pub(super) struct Keys {
    /// The time of a signature.
    #[serde(rename = "timestamp")]
    #[schemars(with = "Option<TimestampKeys>")]
    _timestamp: Block,
    /// What is signed, and how.
    #[serde(rename = "signature")]
    #[schemars(with = "Option<SignatureKeys>")]
    _signature: Block,
    /// Sources by name; `secret` is the key.
    #[serde(rename = "credentials")]
    #[schemars(with = "Option<BTreeMap<String, source::Keys>>")]
    _credentials: Block,
    /// The headers that are set, in this order; at least one.
    #[serde(rename = "headers")]
    #[schemars(with = "Option<Vec<HeaderKeys>>")]
    _headers: Block,
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
#[schemars(rename = "hmac_timestamp", deny_unknown_fields)]
struct TimestampKeys {
    /// How the time is written.
    #[schemars(extend("default" = "unix_seconds"))]
    format: Field<TimestampFormat>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "hmac_signature", deny_unknown_fields)]
struct SignatureKeys {
    /// The hash.
    #[schemars(extend("default" = "sha256"))]
    algorithm: Field<HashAlgorithm>,
    /// How the key is written.
    #[schemars(extend("default" = "raw"))]
    key_encoding: Field<KeyEncoding>,
    /// How the signature is written.
    #[schemars(extend("default" = "base64"))]
    output_encoding: Field<OutputEncoding>,
    /// What is signed, such as {{ .Timestamp }}{{ .Method }}{{ .PathWithQuery }}{{ .Body }}.
    message: Field<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "hmac_header", deny_unknown_fields)]
struct HeaderKeys {
    /// The header's name.
    name: Field<String>,
    /// Its value, such as {{ .Signature }}.
    value: Field<String>,
}

impl HmacSign {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let timestamp: TimestampKeys = at.key("timestamp").decode().unwrap_or_default();
        let signature = Signature::read(&at.key("signature"));
        let named = at.key("credentials").entries();
        if !named.iter().any(|(name, _)| *name == "secret") {
            at.key("credentials").error("a credential \"secret\" is required", "it is the key that signs");
        }
        let credentials: BTreeMap<_, _> =
            named.into_iter().filter_map(|(name, at)| Some((name.to_owned(), Source::read(&at)?))).collect();
        let headers = at.key("headers");
        if headers.lists_nothing() {
            headers.error("at least one header is required", "write headers: [{ name: …, value: … }]");
        }
        let headers = headers.each().iter().filter_map(|at| SignedHeader::read(at, &credentials)).collect();
        let rules = Rule::read_some(&at.key("rules"));
        Some(Self {
            timestamp: Timestamp { format: timestamp.format.get().unwrap_or_default() },
            signature: signature?,
            credentials,
            headers,
            allow_chunked_body: keys.allow_chunked_body.get().unwrap_or(false),
            rules,
        })
    }
}

impl Signature {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: SignatureKeys = at.decode()?;
        let message = at.required_text(keys.message, "message", "what is signed, such as {{ .Body }}");
        let message = SigningTemplate::read(&message?, MESSAGE_FIELDS, &at.key("message"));
        Some(Self {
            algorithm: keys.algorithm.get().unwrap_or_default(),
            key_encoding: keys.key_encoding.get().unwrap_or_default(),
            output_encoding: keys.output_encoding.get().unwrap_or_default(),
            message: message?,
        })
    }
}

impl SignedHeader {
    fn read(at: &At<'_>, credentials: &BTreeMap<String, Source>) -> Option<Self> {
        let keys: HeaderKeys = at.decode()?;
        let name = at.required_text(keys.name, "name", "the header that is set");
        let value = at.required_text(keys.value, "value", "its value, such as {{ .Signature }}");
        if let Some(name) = &name {
            header::check_settable(name, &at.key("name"));
        }
        let place = at.key("value");
        let value = SigningTemplate::read(&value?, HEADER_FIELDS, &place)?;
        for name in value.credentials().filter(|name| !credentials.contains_key(*name)) {
            place.error(format!("there is no credential {name:?}"), "name it under \"credentials\"");
        }
        Some(Self { name: name?, value })
    }
}
