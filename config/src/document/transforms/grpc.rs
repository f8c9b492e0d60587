//! The `config` of a `grpc`: a service of the operator's that judges and changes requests.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::field::{Block, Field};
use crate::document::place::At;
use crate::document::rule::{self, Rule};

/// The `config` of a `grpc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grpc {
    /// What records call it.
    pub name: String,
    /// The service, as gRPC names it: `host:port`.
    pub target: String,
    /// It sees request bodies.
    pub send_request_body: bool,
    /// It sees response bodies.
    pub send_response_body: bool,
    /// The requests; every one, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// How the connection to it is secured.
    pub tls: GrpcTls,
}

/// TLS to the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GrpcTls {
    /// Whether there is any.
    pub enabled: bool,
    /// PEM file with the authorities that it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<PathBuf>,
    /// PEM file with our certificate; there with `key` or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "grpc", deny_unknown_fields)]
pub(super) struct Keys {
    /// What records call it.
    name: Field<String>,
    /// The service: host:port.
    target: Field<String>,
    /// Whether it sees request bodies.
    #[schemars(extend("default" = false))]
    send_request_body: Field<bool>,
    /// Whether it sees response bodies.
    #[schemars(extend("default" = false))]
    send_response_body: Field<bool>,
    /// The requests; empty is every one.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// How the connection to it is secured.
    #[serde(rename = "tls")]
    #[schemars(with = "Option<TlsKeys>")]
    _tls: Block,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "grpc_tls", deny_unknown_fields)]
struct TlsKeys {
    /// Whether there is any.
    #[schemars(extend("default" = false))]
    enabled: Field<bool>,
    /// PEM file with the authorities that the service may use.
    ca_cert: Field<String>,
    /// PEM file with our certificate; together with key.
    cert: Field<String>,
    /// PEM file with its key.
    key: Field<String>,
}

impl Grpc {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let name = at.required_text(keys.name, "name", "what records call the service");
        let target = at.required_text(keys.target, "target", "the service, host:port");
        let rules = Rule::read_list(&at.key("rules"));
        let tls = GrpcTls::read(&at.key("tls"));
        Some(Self {
            name: name?,
            target: target?,
            send_request_body: keys.send_request_body.get().unwrap_or(false),
            send_response_body: keys.send_response_body.get().unwrap_or(false),
            rules,
            tls,
        })
    }
}

impl GrpcTls {
    fn read(at: &At<'_>) -> Self {
        let keys: TlsKeys = at.decode().unwrap_or_default();
        let (cert, key) = (keys.cert.not_empty(), keys.key.not_empty());
        for (name, this, other) in [("cert", &cert, &key), ("key", &key, &cert)] {
            if this.is_absent() && !other.is_absent() {
                at.key(name).error("required with the other of cert and key", ());
            }
        }
        let path = |field: Field<String>| field.not_empty().get().map(PathBuf::from);
        Self {
            enabled: keys.enabled.get().unwrap_or(false),
            ca_cert: path(keys.ca_cert),
            cert: path(cert),
            key: path(key),
        }
    }
}
