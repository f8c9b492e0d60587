//! The one typed destination of a request: policy, choice of secret, dialling, pooling and audit all take it (invariant 3).

use std::fmt;

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

impl Destination {
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
