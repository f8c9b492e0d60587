//! The one typed destination of a request: policy, choice of secret, dialling, pooling and audit all take it (invariant 3).

use std::fmt;

use http::Uri;
use http::uri::{Authority, InvalidUri, PathAndQuery};

use super::host::{Host, HostError};
pub use crate::document::Scheme;

/// Scheme, host and port in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// `https` where TLS was ended by the proxy, else `http`.
    pub scheme: Scheme,
    /// The canonical host.
    pub host: Host,
    /// The port, never left out.
    pub port: u16,
}

/// Why a text is not the URL of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    Syntax(String),
    /// Neither `https` nor `http`.
    #[error("a URL begins with https:// or http://")]
    Scheme,
    /// `user@host`: clients make a header of it.
    #[error("a user in a URL is for the client to send; give it as a header, Authorization: Basic …")]
    User,
    /// The host or the port is none.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Destination {
    /// The destination of a URL, and the path and query that are asked for there.
    pub fn of_url(url: &str) -> Result<(Self, String), UrlError> {
        let uri: Uri = url.parse().map_err(|error: InvalidUri| UrlError::Syntax(error.to_string()))?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(UrlError::Scheme),
        };
        let authority = uri.authority().map_or("", Authority::as_str);
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let (host, port) = Host::parse_authority(authority)?;
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        Ok((Self { scheme, host, port: port.unwrap_or(scheme.default_port()) }, target))
    }

    /// Whether `authority` (a `Host` header, an `:authority`) names this destination; the default port may be left out.
    pub fn is_named_by(&self, authority: &str) -> Result<bool, HostError> {
        let (host, port) = Host::parse_authority(authority)?;
        Ok(host == self.host && port.unwrap_or(self.scheme.default_port()) == self.port)
    }

    /// `HOST`, with `:PORT` unless it is the scheme's default: what goes into `Host` and `:authority` (RFC 9110 section 4.2.3).
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

impl Scheme {
    /// 443 or 80.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }

    /// `https` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}
