//! Where one of our own services is, and a connection to it. What is said to it and what it answers is confidential, so it is
//! reached over TLS, over loopback or through a Unix socket, and nothing else is an address (T75, T83).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use keyferry_config::policy::Host;
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::{DialError, Dialer};

/// `https://HOST`, `http://127.0.0.1:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    door: Door,
    /// What stands before `/api/v1`.
    prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Door {
    Unix(PathBuf),
    Loopback { host: Host, port: u16 },
    Tls { host: Host, port: u16 },
}

/// Why a text is no address of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceUrlError {
    /// It is no URL of these kinds.
    #[error(
        "{0:?} is no address of a control service\nhint: write https://HOST, http://127.0.0.1:PORT or unix:PATH"
    )]
    Malformed(String),
    /// Keys and values would travel in the clear.
    #[error(
        "{0:?} would carry keys and live values in the clear to another machine\nhint: write https://HOST, or reach it through a tunnel at http://127.0.0.1:PORT"
    )]
    InTheClear(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The socket, or TLS.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The way to its host.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS cannot be spoken at all.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// No certificate can be for this name.
    #[error(transparent)]
    Name(#[from] InvalidDnsNameError),
}

/// Bytes in both directions.
pub trait ServiceStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ServiceStream for S {}

impl ServiceUrl {
    /// A socket of this machine.
    pub fn socket(path: PathBuf) -> Self {
        Self { door: Door::Unix(path), prefix: String::new() }
    }

    /// What a request for `path` names.
    pub fn target(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// What HTTP calls it.
    pub fn authority(&self) -> String {
        match &self.door {
            Door::Unix(_) => "control".to_owned(),
            Door::Loopback { host, port } | Door::Tls { host, port } => format!("{host}:{port}"),
        }
    }

    /// A connection. `tls`, which is asked for over a network alone, says who is believed there.
    pub async fn connect(
        &self,
        dialer: &Dialer,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, rustls::Error>,
    ) -> Result<Box<dyn ServiceStream>, ServiceError> {
        match &self.door {
            Door::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Door::Loopback { host, port } => Ok(Box::new(dialer.connect(host, *port, &[]).await?.stream)),
            Door::Tls { host, port } => {
                let name = match host {
                    Host::Ip(ip) => ServerName::from(*ip),
                    Host::Name(name) => ServerName::try_from(name.as_str().to_owned())?,
                };
                let stream = dialer.connect(host, *port, &[]).await?.stream;
                Ok(Box::new(TlsConnector::from(tls()?).connect(name, stream).await?))
            }
        }
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(text: &str) -> Result<Self, ServiceUrlError> {
        let malformed = || ServiceUrlError::Malformed(text.to_owned());
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
            Some("https") => Door::Tls { host, port: port.unwrap_or(443) },
            Some("http") if is_this_machine(&host) => Door::Loopback { host, port: port.unwrap_or(80) },
            Some("http") => return Err(ServiceUrlError::InTheClear(text.to_owned())),
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
        Host::Ip(ip) => ip.to_canonical().is_loopback(),
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.door {
            Door::Unix(path) => write!(f, "unix:{}", path.display()),
            Door::Loopback { .. } => write!(f, "http://{}{}", self.authority(), self.prefix),
            Door::Tls { .. } => write!(f, "https://{}{}", self.authority(), self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t75_t83_keys_and_values_travel_over_tls_loopback_or_a_socket_and_over_nothing_else() {
        let read = |text: &str| text.parse::<ServiceUrl>().map(|url| url.to_string());
        for (text, shown) in [
            ("http://127.0.0.1:7443", "http://127.0.0.1:7443"),
            ("http://localhost/", "http://localhost:80"),
            ("http://[::1]:7443/api/v1/", "http://[::1]:7443"),
            ("https://10.0.0.1:8443/", "https://10.0.0.1:8443"),
            ("https://control.example/keyferry/api/v1", "https://control.example:443/keyferry"),
            ("unix:/run/keyferry/control.sock", "unix:/run/keyferry/control.sock"),
        ] {
            assert_eq!(read(text), Ok(shown.to_owned()), "{text}");
        }
        for text in
            ["http://control.example", "http://10.0.0.1:7443", "http://[::]:7443", "http://localhost.example"]
        {
            assert_eq!(read(text), Err(ServiceUrlError::InTheClear(text.to_owned())), "{text}");
        }
        for text in [
            "",
            "unix:",
            "control.example",
            "control:7443",
            "ftp://127.0.0.1",
            "https://user:pass@control.example",
            "https://control.example?x=1",
        ] {
            assert_eq!(read(text), Err(ServiceUrlError::Malformed(text.to_owned())), "{text}");
        }
    }
}
