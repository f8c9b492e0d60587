//! Where a control service is, and a connection to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use keyferry_config::policy::Host;
use keyferry_dial::{Dialer, Guard, OwnListeners, Resolver, ResolverOptions};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use super::error::ClientError;

/// An address that was checked: nothing travels in the clear to another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    door: Door,
    /// What stands before `/api/v1`.
    prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Door {
    Unix(PathBuf),
    Http { host: Host, port: u16 },
    Https { host: Host, port: u16 },
}

/// Why a text is no address of a control service.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EndpointError {
    #[error(
        "{0:?} is no address of a control service\nhint: write https://HOST, http://127.0.0.1:7443 or unix:PATH"
    )]
    Malformed(String),
    #[error(
        "{0:?} would carry the API key in the clear to another machine\nhint: write https://, or reach it through a tunnel at 127.0.0.1"
    )]
    InTheClear(String),
}

impl Endpoint {
    /// The owner's door of a data directory.
    pub(crate) fn socket(path: PathBuf) -> Self {
        Self { door: Door::Unix(path), prefix: String::new() }
    }

    pub(super) fn target(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// What HTTP calls it.
    pub(super) fn authority(&self) -> String {
        match &self.door {
            Door::Unix(_) => "control".to_owned(),
            Door::Http { host, port } | Door::Https { host, port } => format!("{host}:{port}"),
        }
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { endpoint: self.to_string(), reason };
        match &self.door {
            Door::Unix(path) => {
                let stream =
                    UnixStream::connect(path).await.map_err(|error| unreachable(error.to_string()))?;
                Ok(Box::new(stream))
            }
            Door::Http { host, port } => {
                let connected = dialer().connect(host, *port, &[]).await;
                Ok(Box::new(connected.map_err(|error| unreachable(error.to_string()))?.stream))
            }
            Door::Https { host, port } => {
                let connected = dialer().connect(host, *port, &[]).await;
                let stream = connected.map_err(|error| unreachable(error.to_string()))?.stream;
                let name = match host {
                    Host::Ip(ip) => ServerName::from(*ip),
                    Host::Name(name) => ServerName::try_from(name.to_string())
                        .map_err(|error| unreachable(error.to_string()))?,
                };
                let connector = TlsConnector::from(Arc::new(tls().map_err(unreachable)?));
                let stream = connector.connect(name, stream).await;
                Ok(Box::new(stream.map_err(|error| unreachable(error.to_string()))?))
            }
        }
    }
}

/// The operator names it, so no class of address is refused.
fn dialer() -> Dialer {
    Dialer::new(Guard::operator(), Resolver::new(ResolverOptions::default()), OwnListeners::default())
}

fn tls() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Some(path).filter(|path| !path.is_empty()).ok_or_else(malformed)?;
            return Ok(Self::socket(PathBuf::from(path)));
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        if uri.query().is_some() {
            return Err(malformed());
        }
        let (host, port) = Host::parse_authority(authority).map_err(|_| malformed())?;
        let door = match uri.scheme_str() {
            Some("https") => Door::Https { host, port: port.unwrap_or(443) },
            Some("http") if is_this_machine(&host) => Door::Http { host, port: port.unwrap_or(80) },
            Some("http") => return Err(EndpointError::InTheClear(text.to_owned())),
            _ => return Err(malformed()),
        };
        // Some write the address with the version of the API, which is ours to say.
        let prefix = uri.path().trim_end_matches('/');
        let prefix = prefix.strip_suffix("/api/v1").unwrap_or(prefix);
        Ok(Self { door, prefix: prefix.to_owned() })
    }
}

/// RFC 6761 section 6.3: `localhost` is loopback, and our resolver holds to it.
fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Name(name) => name.as_str() == "localhost",
        Host::Ip(ip) => ip.is_loopback(),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.door {
            Door::Unix(path) => write!(f, "unix:{}", path.display()),
            Door::Http { .. } => write!(f, "http://{}{}", self.authority(), self.prefix),
            Door::Https { .. } => write!(f, "https://{}{}", self.authority(), self.prefix),
        }
    }
}

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t83_an_api_key_leaves_this_machine_over_tls_alone() {
        let read = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        for (text, shown) in [
            ("http://127.0.0.1:7443", "http://127.0.0.1:7443"),
            ("http://localhost/", "http://localhost:80"),
            ("http://[::1]:7443/api/v1/", "http://[::1]:7443"),
            ("https://control.example/keyferry/api/v1", "https://control.example:443/keyferry"),
            ("unix:/run/keyferry/control.sock", "unix:/run/keyferry/control.sock"),
        ] {
            assert_eq!(read(text), Ok(shown.to_owned()), "{text}");
        }
        for text in ["http://control.example", "http://10.0.0.1:7443", "http://localhost.example"] {
            assert_eq!(read(text), Err(EndpointError::InTheClear(text.to_owned())), "{text}");
        }
        for text in ["", "unix:", "control.example", "ftp://x", "https://u:p@host", "https://host?x=1"] {
            assert_eq!(read(text), Err(EndpointError::Malformed(text.to_owned())), "{text}");
        }
    }
}
