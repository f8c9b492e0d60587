//! The words of the policy language: iron-proxy's YAML and our additions to it, as types.
//!
//! A [`Document`] says what its author wrote, checked for shape and for the things that make no sense on their own (two
//! modes in one secret, a path without a leading slash). What it *means* for a request is [`crate::policy`]'s business.
//!
//! A document may say more than a proxy of this version does: [`unsupported`] names what has no engine yet.
//!
//! [`parse`] goes through the file in four steps: `node` makes a tree in which every value knows its position,
//! `interpolate` and `overrides` put the environment in, `decode` turns blocks into structs, and each block's own
//! module checks what the block says. Problems are collected on the way, so that one run tells all of them.

mod audit;
mod cidr;
mod collisions;
mod control_plane;
mod decode;
mod dns;
mod duration;
mod effective;
mod field;
mod fixture;
mod formatter;
mod header;
mod inline;
mod interpolate;
mod listen;
mod load;
mod log;
mod management;
mod mcp;
mod mcp_gateway;
mod metrics;
mod misplaced;
pub(crate) mod nearest;
mod node;
mod overrides;
mod pattern;
mod place;
mod postgres;
mod problem;
mod proxy;
mod rendered;
mod rule;
mod schema;
mod secrets;
mod source;
mod tls;
mod transforms;
mod unsupported;
mod upstream_proxy;
mod url;

pub use audit::{Audit, AuditSink, OnFull, Rotate};
pub use control_plane::ControlPlane;
pub use dns::{Dns, DnsRecord};
pub use duration::GoDuration;
pub use effective::effective;
pub use fixture::{Case, CaseRequest, Expectation, ExpectedVerdict, Fixtures, ForeignOutcome};
pub use formatter::{Formatter, FormatterError};
pub use inline::InlineSecret;
pub use listen::{ListenAddr, OneOrMany};
pub use load::{KeyWarning, Loaded, Options, parse, warn_at};
pub use log::{Log, LogLevel};
pub use management::Management;
pub use mcp::{Clause, Mcp, McpError, McpServer, McpTool, Scalar, Test};
pub use mcp_gateway::{GatewayCredential, McpGateway, McpRoute};
pub use metrics::Metrics;
pub use postgres::{Postgres, PostgresClient, PostgresSetting, PostgresUpstream};
pub use problem::{Location, Problem, Problems, Severity, ValueError};
pub use proxy::{AllowedPorts, Auth, Proxy};
pub use rendered::parse_rendered;
pub use rule::{Action, ForeignCredentials, Rule, Scheme};
pub use schema::json_schema;
pub use secrets::{
    Inject, InjectTarget, OnUnavailable, Replace, SecretEntry, SecretMode, Secrets, TOO_SHORT, TOO_SHORT_HINT,
};
pub use source::{KvVersion, Source, SourceKind};
pub use tls::{Tls, TlsMode};
pub use transforms::{
    Allowlist, Annotate, Annotation, AwsAuth, AwsCredentials, AwsKeys, BodyCapture, CircuitBreaker, GcpAuth,
    GcpCredentials, GcpIdToken, Grpc, GrpcTls, HashAlgorithm, HeaderAllowlist, HmacSign, IdTokenHeader,
    Judge, JudgeFallback, JudgeProvider, KeyEncoding, OauthEntry, OauthGrant, OauthToken, OutputEncoding,
    ProviderKind, ProviderType, Signature, SignedHeader, SigningField, SigningPart, SigningTemplate,
    Timestamp, TimestampFormat, Transform,
};
pub(crate) use unsupported::is_read;
pub use unsupported::{Unsupported, unsupported};
pub use upstream_proxy::UpstreamProxy;
pub use url::ServiceUrl;

use serde::Serialize;

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Document {
    /// Listeners, limits and timeouts.
    pub proxy: Proxy,
    /// Certificates.
    pub tls: Tls,
    /// What happens where no `allowlist` is configured.
    pub default_action: Action,
    /// What is done with a request, in order.
    pub transforms: Vec<Transform>,
    /// How upstream names are resolved.
    pub dns: Dns,
    /// Which tools of MCP servers may be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp: Option<Mcp>,
    /// MCP servers that clients reach under another address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_gateway: Option<McpGateway>,
    /// Databases that clients reach with a shared password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
    /// How a managed proxy asks for its policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// The operators' listener.
    pub metrics: Metrics,
    /// The listener that reloads.
    pub management: Management,
    /// What the process says.
    pub log: Log,
    /// Where the record of each request goes.
    pub audit: Audit,
}

impl Default for Document {
    /// Nothing listens and nothing may leave.
    fn default() -> Self {
        Self {
            proxy: Proxy::default(),
            tls: Tls::default(),
            default_action: Action::Deny,
            transforms: Vec::new(),
            dns: Dns::default(),
            mcp: None,
            mcp_gateway: None,
            postgres: None,
            control_plane: None,
            metrics: Metrics::default(),
            management: Management::default(),
            log: Log::default(),
            audit: Audit::default(),
        }
    }
}
