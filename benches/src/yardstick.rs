//! The yardstick: hyper and rustls between a client and an upstream, with CONNECT and leafs made on the way, and nothing else. No policy,
//! no audit, no limits, no guard. What keyferry costs beyond it is what keyferry does.
//!
//! Builder options, TLS settings and the runtime are keyferry's, so that the difference is the work and not the settings.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority as UriAuthority, Parts, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn as client;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::{Authority, AuthorityError, Pair};
use crate::tls::{Protocol, TlsSetupError, client as tls_client, provider};

type Body = Either<Incoming, Empty<Bytes>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A proxy without policy and audit, on loopback
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The port for CONNECT
    #[arg(long)]
    pub port: u16,
    /// The certificate that its leafs are signed with
    #[arg(long)]
    pub certificate: PathBuf,
    /// The private key of that certificate
    #[arg(long)]
    pub key: PathBuf,
    /// Whom upstreams are verified against
    #[arg(long)]
    pub upstream_ca: PathBuf,
    /// A Unix socket for CONNECT as well
    #[arg(long)]
    pub socket: Option<PathBuf>,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum YardstickError {
    /// Its certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// TLS towards upstreams, or the leafs' key.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// The leafs' key.
    #[error("the key of the leafs cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The port, or the socket.
    #[error("the port or the socket cannot be listened on: {0}")]
    Listen(std::io::Error),
}

/// Serves until it is killed.
pub async fn serve(options: Options) -> Result<(), YardstickError> {
    let authority = Authority::load(&Pair { certificate: options.certificate, key: options.key })?;
    let resumption = Resumption::in_memory_sessions(1024);
    let yardstick = Arc::new(Yardstick {
        leafs: Leafs::new(authority)?,
        upstream: tls_client(&[options.upstream_ca], &[Protocol::H2, Protocol::H1], resumption)?,
        kept: Mutex::default(),
    });
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))
        .await
        .map_err(YardstickError::Listen)?;
    if let Some(path) = options.socket {
        let listener = UnixListener::bind(path).map_err(YardstickError::Listen)?;
        let yardstick = Arc::clone(&yardstick);
        tokio::spawn(async move {
            loop {
                let Ok((unix, _)) = listener.accept().await else { continue };
                tokio::spawn(outer(Arc::clone(&yardstick), unix));
            }
        });
    }
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let _ = tcp.set_nodelay(true);
        tokio::spawn(outer(Arc::clone(&yardstick), tcp));
    }
}

struct Yardstick {
    leafs: Leafs,
    upstream: Arc<ClientConfig>,
    /// Upstream connections that tunnels have left behind, by authority.
    kept: Mutex<HashMap<Arc<str>, Vec<Sender>>>,
}

/// The connection of a client: CONNECT, and nothing else.
async fn outer<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(yardstick: Arc<Yardstick>, socket: S) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let target = request.uri().authority().filter(|_| request.method() == Method::CONNECT).cloned();
        let granted = target.is_some();
        if let Some(target) = target {
            let yardstick = Arc::clone(&yardstick);
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                // A tunnel that fails is the load's to report.
                if let Ok(upgraded) = upgrade.await {
                    drop(inner::<S>(yardstick, target, upgraded).await);
                }
            });
        }
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = if granted { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        async { Ok::<_, Infallible>(response) }
    });
    drop(h1_server().serve_connection(TokioIo::new(socket), service).with_upgrades().await);
}

/// The inside of a tunnel.
async fn inner<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    yardstick: Arc<Yardstick>,
    target: UriAuthority,
    upgraded: Upgraded,
) -> Result<(), Failure> {
    let parts = upgraded.downcast::<TokioIo<S>>().map_err(|_| "another connection")?;
    // Clients wait for the answer to CONNECT, so nothing was read past it.
    let socket = parts.io.into_inner();
    let leaf = yardstick.leafs.of(target.host())?;
    let stream = TlsAcceptor::from(leaf).accept(socket).await?;
    let protocol = Protocol::negotiated(stream.get_ref().1.alpn_protocol());
    let lane = Arc::new(Lane {
        host: HeaderValue::from_str(target.as_str())?,
        key: target.as_str().into(),
        target,
        yardstick,
        idle: Mutex::default(),
    });
    let service = service_fn(|request: Request<Incoming>| {
        let lane = Arc::clone(&lane);
        async move {
            let response = match lane.forward(request).await {
                Ok(response) => response.map(Either::Left),
                Err(_) => {
                    let mut response = Response::new(Either::Right(Empty::new()));
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                    response
                }
            };
            Ok::<Response<Body>, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    let ended = match protocol {
        Protocol::H1 => h1_server().serve_connection(io, service).await,
        Protocol::H2 => h2_server().serve_connection(io, service).await,
    };
    let left = std::mem::take(&mut *lock(&lane.idle));
    lock(&lane.yardstick.kept).entry(Arc::clone(&lane.key)).or_default().extend(left);
    Ok(ended?)
}

/// One tunnel's way to its upstream.
struct Lane {
    yardstick: Arc<Yardstick>,
    target: UriAuthority,
    host: HeaderValue,
    key: Arc<str>,
    idle: Mutex<Vec<Sender>>,
}

enum Sender {
    H1(client::http1::SendRequest<Incoming>),
    H2(client::http2::SendRequest<Incoming>),
}

impl Lane {
    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Failure> {
        let mut sender = self.sender().await?;
        self.adapt(&mut request, &sender)?;
        let response = match &mut sender {
            Sender::H1(sender) => sender.send_request(request).await?,
            Sender::H2(sender) => sender.send_request(request).await?,
        };
        if matches!(sender, Sender::H1(_)) {
            // It says by itself when its response has been read.
            lock(&self.idle).push(sender);
        }
        let (mut parts, body) = response.into_parts();
        parts.version = Version::HTTP_11;
        Ok(Response::from_parts(parts, body))
    }

    /// This tunnel's connection, one that another left behind, or a new one.
    async fn sender(&self) -> Result<Sender, Failure> {
        loop {
            let kept = {
                let mut idle = lock(&self.idle);
                match idle.last() {
                    // All requests of a tunnel share it.
                    Some(Sender::H2(sender)) => Some(Sender::H2(sender.clone())),
                    Some(Sender::H1(_)) => idle.pop(),
                    None => None,
                }
            };
            let kept = match kept {
                Some(kept) => Some(kept),
                None => {
                    let left = lock(&self.yardstick.kept).get_mut(&self.key).and_then(Vec::pop);
                    if let Some(Sender::H2(sender)) = &left {
                        lock(&self.idle).push(Sender::H2(sender.clone()));
                    }
                    left
                }
            };
            let ready = match kept {
                None => return self.connect().await,
                Some(Sender::H1(mut sender)) => sender.ready().await.map(|()| Sender::H1(sender)),
                Some(Sender::H2(mut sender)) => sender.ready().await.map(|()| Sender::H2(sender)),
            };
            match ready {
                Ok(sender) => return Ok(sender),
                Err(_) => lock(&self.idle).clear(),
            }
        }
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        // Every name of the bench is on loopback.
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target.port_u16().unwrap_or(443))).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.target.host().to_owned())?;
        let tls = TlsConnector::from(Arc::clone(&self.yardstick.upstream)).connect(name, tcp).await?;
        let protocol = Protocol::negotiated(tls.get_ref().1.alpn_protocol());
        let io = TokioIo::new(tls);
        match protocol {
            Protocol::H1 => {
                let mut builder = client::http1::Builder::new();
                let (sender, connection) = builder.preserve_header_case(true).handshake(io).await?;
                tokio::spawn(connection.with_upgrades());
                Ok(Sender::H1(sender))
            }
            Protocol::H2 => {
                let mut builder = client::http2::Builder::new(TokioExecutor::new());
                builder.timer(TokioTimer::new());
                builder.initial_stream_window_size(2 << 20).initial_connection_window_size(4 << 20);
                let (sender, connection) = builder.handshake(io).await?;
                tokio::spawn(connection);
                lock(&self.idle).push(Sender::H2(sender.clone()));
                Ok(Sender::H2(sender))
            }
        }
    }

    /// Origin form with `Host`, or a whole URI without.
    fn adapt(&self, request: &mut Request<Incoming>, sender: &Sender) -> Result<(), http::Error> {
        let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        match sender {
            Sender::H1(_) => {
                *request.version_mut() = Version::HTTP_11;
                *request.uri_mut() = Uri::from(target);
                request.headers_mut().insert(HOST, self.host.clone());
            }
            Sender::H2(_) => {
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().remove(HOST);
                let mut parts = Parts::default();
                parts.scheme = Some(Scheme::HTTPS);
                parts.authority = Some(self.target.clone());
                parts.path_and_query = Some(target);
                *request.uri_mut() = Uri::from_parts(parts)?;
            }
        }
        Ok(())
    }
}

fn h1_server() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.max_buf_size(256 * 1024).preserve_header_case(true);
    builder
}

fn h2_server() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    builder.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
    builder
}

/// A leaf for each name, made when it is first asked for.
struct Leafs {
    authority: Authority,
    public_key: SubjectPublicKeyInfo,
    key: Arc<dyn rustls::sign::SigningKey>,
    ticketer: Arc<dyn rustls::server::ProducesTickets>,
    made: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Leafs {
    fn new(authority: Authority) -> Result<Self, YardstickError> {
        let pair = KeyPair::generate()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        Ok(Self {
            authority,
            public_key: SubjectPublicKeyInfo::from_der(&pair.subject_public_key_info())?,
            key: rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(TlsSetupError::from)?,
            ticketer: rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsSetupError::from)?,
            made: Mutex::default(),
        })
    }

    fn of(&self, name: &str) -> Result<Arc<ServerConfig>, YardstickError> {
        if let Some(leaf) = lock(&self.made).get(name) {
            return Ok(Arc::clone(leaf));
        }
        let certificate = self.authority.sign(name, &self.public_key)?;
        let chain = vec![certificate, self.authority.certificate().clone()];
        let certified = CertifiedKey::new(chain, Arc::clone(&self.key));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::from)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = [Protocol::H2, Protocol::H1].map(|protocol| protocol.alpn().to_vec()).into();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::clone(&self.ticketer);
        config.send_tls13_tickets = 1;
        let config = Arc::new(config);
        lock(&self.made).insert(name.to_owned(), Arc::clone(&config));
        Ok(config)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
