//! Where the API is reached. Its answers carry live values, so nothing but TLS, loopback or a Unix socket is served.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
    /// Where it is, with the port that the system chose.
    pub address: String,
}

enum Door {
    Tcp(TcpListener),
    Tls(TlsListener),
    Unix(UnixListener),
    Owner(OwnersListener),
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
        Ok(Self { door: Door::Owner(OwnersListener(listener)), address: listen.to_string() })
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
                    Some(acceptor) => Door::Tls(TlsListener::start(listener, acceptor)),
                    None => Door::Tcp(listener),
                };
                Ok(Self { door, address })
            }
            (Listen::Unix(path), _) => {
                let listener = open_socket(path).map_err(failed)?;
                Ok(Self { door: Door::Unix(listener), address: listen.to_string() })
            }
        }
    }

    /// Serves until `ended`, and then as long as short requests may take; streams are cut.
    pub async fn run(self, router: Router, ended: impl Future<Output = ()> + Send + 'static) {
        const LAST_REQUESTS: Duration = Duration::from_secs(2);
        let (told, mut heard) = tokio::sync::watch::channel(false);
        let until = async move {
            ended.await;
            let _ = told.send(true);
        };
        let served = async {
            let result = match self.door {
                Door::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(until).await,
                Door::Tls(listener) => axum::serve(listener, router).with_graceful_shutdown(until).await,
                Door::Unix(listener) => axum::serve(listener, router).with_graceful_shutdown(until).await,
                Door::Owner(listener) => axum::serve(listener, router).with_graceful_shutdown(until).await,
            };
            if let Err(error) = result {
                tracing::error!(%error, "the API is no longer served");
            }
        };
        let patience = async {
            let _ = heard.wait_for(|told| *told).await;
            tokio::time::sleep(LAST_REQUESTS).await;
        };
        tokio::select! {
            () = served => {}
            () = patience => {}
        }
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

/// Knows its callers by what the kernel says of them.
struct OwnersListener(UnixListener);

impl axum::serve::Listener for OwnersListener {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let owner = rustix::process::geteuid().as_raw();
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            if stream.peer_cred().is_ok_and(|peer| peer.uid() == owner) {
                return (stream, address);
            }
            tracing::warn!("another user connected to the owner's socket and was turned away");
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let bad = |file: &Path, reason: String| ServeError::Certificate { file: file.to_owned(), reason };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| bad(&files.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad(&files.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| bad(&files.certificate, error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Handshakes happen beside each other, so that one that dawdles keeps nobody waiting (T32).
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: Option<SocketAddr>,
}

const HANDSHAKE: Duration = Duration::from_secs(10);
const WAITING: usize = 128;

impl TlsListener {
    fn start(listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let (sender, ready) = mpsc::channel(WAITING);
        let address = listener.local_addr().ok();
        tokio::spawn(async move {
            let handshakes = Arc::new(tokio::sync::Semaphore::new(WAITING));
            loop {
                let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
                let (socket, peer) = accepted(&listener).await;
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                if sender.is_closed() {
                    return;
                }
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
                        let _ = sender.send((stream, peer)).await;
                    }
                    drop(permit);
                });
            }
        });
        Self { ready, address }
    }
}

/// What goes wrong with one connection, or for lack of descriptors, ends nothing.
async fn accepted(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}
