//! The `config` of an `oauth_token`: access tokens that the proxy asks for itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::field::{Block, Field, List};
use crate::document::header;
use crate::document::place::At;
use crate::document::rule::{self, Rule};
use crate::document::secrets::OnUnavailable;
use crate::document::source::{self, Source};
use crate::document::url::{ServiceUrl, Use};

/// The `config` of an `oauth_token`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OauthToken {
    /// The entries, in the order of the file.
    pub tokens: Vec<OauthEntry>,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OauthEntry {
    /// How the token is had.
    #[serde(flatten)]
    pub grant: OauthGrant,
    /// Who gives it out.
    pub token_endpoint: ServiceUrl,
    /// What is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The requests that may carry it.
    pub rules: Vec<Rule>,
    /// The header that it is set in.
    pub header: String,
    /// What stands before it there.
    pub value_prefix: String,
    /// The request is refused while the token cannot be had.
    pub require: bool,
    /// Headers that the endpoint wants.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub token_endpoint_headers: BTreeMap<String, Source>,
    /// Which of two entries for the same request wins: the greater one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// What happens to a request while the token cannot be had.
    pub on_unavailable: OnUnavailable,
}

/// The grants of RFC 6749 and RFC 7523, each with its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "grant", rename_all = "snake_case")]
pub enum OauthGrant {
    /// RFC 6749 section 6.
    RefreshToken {
        /// The token that buys access tokens.
        refresh_token: Source,
        /// The client.
        client_id: Source,
        /// Its secret; a public client has none.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_secret: Option<Source>,
    },
    /// RFC 6749 section 4.4.
    ClientCredentials {
        /// The client.
        client_id: Source,
        /// Its secret.
        client_secret: Source,
    },
    /// RFC 6749 section 4.3.
    Password {
        /// The user.
        username: Source,
        /// The user's password.
        password: Source,
        /// The client.
        client_id: Source,
        /// Its secret; a public client has none.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_secret: Option<Source>,
    },
    /// RFC 7523 section 2.1, signed with RS256.
    JwtBearer {
        /// Who signs.
        issuer: Source,
        /// For whom.
        subject: Source,
        /// The RSA key, PEM.
        private_key: Source,
        /// The key's name.
        #[serde(skip_serializing_if = "Option::is_none")]
        private_key_id: Option<Source>,
        /// Whom the assertion is meant for.
        audience: String,
    },
}

impl OauthGrant {
    /// Every place of a credential.
    pub fn sources(&self) -> Vec<&Source> {
        match self {
            Self::RefreshToken { refresh_token, client_id, client_secret } => {
                [refresh_token, client_id].into_iter().chain(client_secret).collect()
            }
            Self::ClientCredentials { client_id, client_secret } => vec![client_id, client_secret],
            Self::Password { username, password, client_id, client_secret } => {
                [username, password, client_id].into_iter().chain(client_secret).collect()
            }
            Self::JwtBearer { issuer, subject, private_key, private_key_id, audience: _ } => {
                [issuer, subject, private_key].into_iter().chain(private_key_id).collect()
            }
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "oauth_token", deny_unknown_fields)]
pub(super) struct Keys {
    /// The tokens; of two entries with the same or no priority the earlier one wins.
    #[serde(rename = "tokens")]
    #[schemars(with = "Option<Vec<EntryKeys>>")]
    _tokens: Block,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename = "grant", rename_all = "snake_case")]
enum GrantName {
    RefreshToken,
    ClientCredentials,
    Password,
    JwtBearer,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "oauth_token_entry", deny_unknown_fields)]
struct EntryKeys {
    /// How the token is had.
    grant: Field<GrantName>,
    /// Who gives it out.
    token_endpoint: Field<String>,
    /// What is asked for.
    scopes: Field<List<String>>,
    /// The requests that may carry the token.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// The header that it is set in.
    #[schemars(extend("default" = "Authorization"))]
    header: Field<String>,
    /// What stands before it there, a space included.
    #[schemars(extend("default" = "Bearer "))]
    value_prefix: Field<String>,
    /// Refuse a request while the token cannot be had.
    #[schemars(extend("default" = false))]
    require: Field<bool>,
    /// Headers that the endpoint wants, each with its source.
    #[serde(rename = "token_endpoint_headers")]
    #[schemars(with = "Option<BTreeMap<String, source::Keys>>")]
    _token_endpoint_headers: Block,
    /// Of two entries for the same request the greater one wins.
    priority: Field<i64>,
    /// What happens to a request while the token cannot be had.
    #[schemars(extend("default" = "deny"))]
    on_unavailable: Field<OnUnavailable>,
    /// Whom the assertion of jwt_bearer is meant for.
    audience: Field<String>,
    /// The refresh token.
    #[serde(rename = "refresh_token")]
    #[schemars(with = "Option<source::Keys>")]
    _refresh_token: Block,
    /// The client.
    #[serde(rename = "client_id")]
    #[schemars(with = "Option<source::Keys>")]
    _client_id: Block,
    /// The client's secret.
    #[serde(rename = "client_secret")]
    #[schemars(with = "Option<source::Keys>")]
    _client_secret: Block,
    /// The user of the password grant.
    #[serde(rename = "username")]
    #[schemars(with = "Option<source::Keys>")]
    _username: Block,
    /// The user's password.
    #[serde(rename = "password")]
    #[schemars(with = "Option<source::Keys>")]
    _password: Block,
    /// Who signs the assertion of jwt_bearer.
    #[serde(rename = "issuer")]
    #[schemars(with = "Option<source::Keys>")]
    _issuer: Block,
    /// For whom.
    #[serde(rename = "subject")]
    #[schemars(with = "Option<source::Keys>")]
    _subject: Block,
    /// The RSA key that signs, PEM.
    #[serde(rename = "private_key")]
    #[schemars(with = "Option<source::Keys>")]
    _private_key: Block,
    /// The key's name, which the assertion's header carries.
    #[serde(rename = "private_key_id")]
    #[schemars(with = "Option<source::Keys>")]
    _private_key_id: Block,
}

impl OauthToken {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.decode::<Keys>()?;
        let tokens = at.key("tokens");
        if tokens.lists_nothing() {
            tokens.error("at least one token is required", "write tokens: [{ grant: …, token_endpoint: … }]");
        }
        Some(Self { tokens: tokens.each().iter().filter_map(OauthEntry::read).collect() })
    }
}

impl OauthEntry {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: EntryKeys = at.decode()?;
        let token_endpoint = ServiceUrl::read(keys.token_endpoint, &at.key("token_endpoint"), Use::Service);
        if token_endpoint.is_absent() {
            at.key("token_endpoint").error("required", "name the URL that gives out tokens");
        }
        if keys.grant.is_absent() {
            at.key("grant")
                .error("required", "valid here: refresh_token, client_credentials, password, jwt_bearer");
        }
        let header = keys.header.not_empty().get();
        if let Some(header) = &header {
            header::check_settable(header, &at.key("header"));
        }
        let headers = at.key("token_endpoint_headers");
        let token_endpoint_headers = headers.entries().into_iter().filter_map(|(name, at)| {
            header::check_key(name, &at);
            Some((name.to_owned(), Source::read(&at)?))
        });
        let token_endpoint_headers = token_endpoint_headers.collect();
        let rules = Rule::read_some(&at.key("rules"));
        let require = keys.require.get().unwrap_or(false);
        let on_unavailable = keys.on_unavailable.get().unwrap_or_default();
        on_unavailable.check(require, at);
        let grant = keys.grant.get().and_then(|grant| OauthGrant::read(grant, keys.audience, at));
        Some(Self {
            grant: grant?,
            token_endpoint: token_endpoint.get()?,
            scopes: keys.scopes.get().map(List::all).unwrap_or_default(),
            rules,
            header: header.unwrap_or_else(|| "Authorization".to_owned()),
            value_prefix: keys.value_prefix.get().unwrap_or_else(|| "Bearer ".to_owned()),
            require,
            token_endpoint_headers,
            priority: keys.priority.get(),
            on_unavailable,
        })
    }
}

/// Every key that is a credential of some grant.
const CREDENTIALS: [&str; 9] = [
    "refresh_token",
    "client_id",
    "client_secret",
    "username",
    "password",
    "issuer",
    "subject",
    "private_key",
    "private_key_id",
];

impl OauthGrant {
    fn read(grant: GrantName, audience: Field<String>, at: &At<'_>) -> Option<Self> {
        let (name, own): (&str, &[&str]) = match grant {
            GrantName::RefreshToken => ("refresh_token", &["refresh_token", "client_id", "client_secret"]),
            GrantName::ClientCredentials => ("client_credentials", &["client_id", "client_secret"]),
            GrantName::Password => ("password", &["username", "password", "client_id", "client_secret"]),
            GrantName::JwtBearer => ("jwt_bearer", &["issuer", "subject", "private_key", "private_key_id"]),
        };
        for key in CREDENTIALS.iter().filter(|key| !own.contains(key)) {
            let at = at.key(key);
            if at.node().is_some() {
                at.stray_key(
                    format!("the grant {name} takes no \"{key}\""),
                    format!("valid here: {}", own.join(", ")),
                );
            }
        }
        let audience = audience.not_empty();
        if !matches!(grant, GrantName::JwtBearer) && !audience.is_absent() {
            at.key("audience").stray_key(format!("the grant {name} takes no \"audience\""), ());
        }
        let credential = |key: &str| {
            let at = at.key(key);
            if at.node().is_none() {
                at.error(format!("the grant {name} requires \"{key}\""), source::SHAPE);
            }
            at.node().and_then(|_| Source::read(&at))
        };
        // One that is there and cannot be read is an error of its own; the entry is lost in any case.
        let optional = |key: &str| at.key(key).node().and_then(|_| Source::read(&at.key(key)));
        match grant {
            GrantName::RefreshToken => {
                let (refresh_token, client_id) = (credential("refresh_token"), credential("client_id"));
                Some(Self::RefreshToken {
                    client_secret: optional("client_secret"),
                    refresh_token: refresh_token?,
                    client_id: client_id?,
                })
            }
            GrantName::ClientCredentials => {
                let (client_id, client_secret) = (credential("client_id"), credential("client_secret"));
                Some(Self::ClientCredentials { client_id: client_id?, client_secret: client_secret? })
            }
            GrantName::Password => {
                let (username, password) = (credential("username"), credential("password"));
                let client_id = credential("client_id");
                Some(Self::Password {
                    client_secret: optional("client_secret"),
                    username: username?,
                    password: password?,
                    client_id: client_id?,
                })
            }
            GrantName::JwtBearer => {
                let (issuer, subject) = (credential("issuer"), credential("subject"));
                let (private_key, private_key_id) = (credential("private_key"), optional("private_key_id"));
                let audience = at.required_text(audience, "audience", "whom the assertion is meant for");
                Some(Self::JwtBearer {
                    issuer: issuer?,
                    subject: subject?,
                    private_key: private_key?,
                    private_key_id,
                    audience: audience?,
                })
            }
        }
    }
}
