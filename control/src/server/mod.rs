//! Where the API is reached. Its answers carry live values, so nothing but TLS, loopback or a Unix socket is served.

mod connections;

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

pub(crate) use connections::Arrival;
pub use connections::Limits;

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `HOST:PORT`, an address of this machine.
    Tcp(SocketAddr),
    /// `unix:PATH`, a socket that its owner alone may use.
    Unix(PathBuf),
}

/// Certificate and key, PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Values would travel in the clear.
    #[error(
        "{0} is reached from other machines, and the answers of this service carry live values\nhint: give --tls-cert and --tls-key, or listen on 127.0.0.1 or unix:PATH"
    )]
    InTheClear(SocketAddr),
    /// No address.
    #[error(
        "{0:?} is no address to listen on\nhint: write 127.0.0.1:7443 or unix:/run/keyferry/control.sock"
    )]
    Address(String),
    /// A certificate that cannot be used.
    #[error("the certificate {} cannot be used: {reason}", .file.display())]
    Certificate {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The address is taken, or not ours.
    #[error("{listen} cannot be listened on: {error}")]
    Listen {
        /// Which.
        listen: String,
        /// What the system said.
        error: io::Error,
    },
}

impl FromStr for Listen {
    type Err = ServeError;

    fn from_str(text: &str) -> Result<Self, ServeError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ServeError::Address(text.to_owned())),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| ServeError::Address(text.to_owned())),
        }
    }
}

/// An open door.
pub struct Server {
    door: Door,
    limits: Limits,
    /// Where it is, with the port that the system chose.
    pub address: String,
}

enum Door {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix(UnixListener),
    /// For callers of this process's own user.
    Owner(UnixListener),
}

impl Server {
    /// Opens a socket that serves this process's own user and nobody else, whatever becomes of its mode: connections of others,
    /// root's too, are closed.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub fn open_for_owner(path: &Path) -> Result<Self, ServeError> {
        let listen = Listen::Unix(path.to_owned());
        let failed = |error| ServeError::Listen { listen: listen.to_string(), error };
        let listener = open_socket(path).map_err(failed)?;
        Ok(Self { door: Door::Owner(listener), limits: Limits::default(), address: listen.to_string() })
    }

    /// Opens the door.
    ///
    /// # Errors
    ///
    /// Values would travel in the clear; the certificate cannot be used; the address cannot be listened on.
    pub async fn open(listen: &Listen, tls: Option<&TlsFiles>) -> Result<Self, ServeError> {
        let failed = |error| ServeError::Listen { listen: listen.to_string(), error };
        match (listen, tls) {
            (Listen::Tcp(address), None) if !address.ip().is_loopback() => {
                Err(ServeError::InTheClear(*address))
            }
            (Listen::Tcp(address), tls) => {
                let acceptor = tls.map(acceptor).transpose()?;
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?.to_string();
                let door = match acceptor {
                    Some(acceptor) => Door::Tls(listener, acceptor),
                    None => Door::Tcp(listener),
                };
                Ok(Self { door, limits: Limits::default(), address })
            }
            (Listen::Unix(path), _) => {
                let listener = open_socket(path).map_err(failed)?;
                Ok(Self {
                    door: Door::Unix(listener),
                    limits: Limits::default(),
                    address: listen.to_string(),
                })
            }
        }
    }

    /// With other limits than the usual ones.
    #[must_use]
    pub fn within(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `ended`, and then as long as short requests may take; streams are cut.
    pub async fn run(self, router: Router, ended: impl Future<Output = ()> + Send + 'static) {
        connections::serve(self.door, router, self.limits, ended).await;
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that a dead process left behind is taken over; one that somebody answers is not.
fn open_socket(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no socket")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let bad = |file: &Path, reason: String| ServeError::Certificate { file: file.to_owned(), reason };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| bad(&files.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad(&files.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| bad(&files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
