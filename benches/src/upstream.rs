//! The service behind every proxy: TLS, HTTP/1.1 and HTTP/2, cheap answers.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Protocol, TlsSetupError, provider, read_certificates};

/// How much of a large body is handed over at once.
pub const CHUNK: usize = 64 * 1024;

/// Serves what the load asks for, on loopback
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The port that speaks HTTP/1.1 alone
    #[arg(long)]
    pub h1_port: u16,
    /// The port that offers HTTP/2 and HTTP/1.1
    #[arg(long)]
    pub h2_port: u16,
    /// The certificate, in PEM
    #[arg(long)]
    pub certificate: PathBuf,
    /// Its private key, in PEM
    #[arg(long)]
    pub key: PathBuf,
    /// The credential that requests must carry
    #[arg(long)]
    pub credential: String,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// A port.
    #[error("port {port} cannot be listened on: {source}")]
    Listen {
        /// Which.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
}

/// A body of one chunk over and over, `left` bytes of it.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    chunk: Bytes,
    left: u64,
}

impl Payload {
    /// Those bytes, once.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let chunk = bytes.into();
        Self { left: chunk.len() as u64, chunk }
    }

    /// So many bytes of nothing in particular.
    pub fn of_length(length: u64) -> Self {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        Self { chunk: Bytes::from_static(&ZEROS), left: length }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.chunk.len());
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.slice(..length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Serves until it is killed.
pub async fn serve(options: Options) -> Result<(), UpstreamError> {
    let credential = Arc::new(Credential::new(&options.credential));
    let h1 = listen(&options, options.h1_port, &[Protocol::H1]).await?;
    let h2 = listen(&options, options.h2_port, &[Protocol::H2, Protocol::H1]).await?;
    tokio::join!(accept(h1, Arc::clone(&credential)), accept(h2, credential));
    Ok(())
}

struct Credential {
    header: HeaderValue,
    text: String,
}

impl Credential {
    fn new(text: &str) -> Self {
        let header = HeaderValue::try_from(format!("Bearer {text}"));
        Self { header: header.unwrap_or(HeaderValue::from_static("unusable")), text: text.to_owned() }
    }
}

async fn listen(
    options: &Options,
    port: u16,
    offers: &[Protocol],
) -> Result<(TcpListener, TlsAcceptor), UpstreamError> {
    let pem = |source| TlsSetupError::Pem { path: options.key.clone(), source };
    let key = PrivateKeyDer::from_pem_file(&options.key).map_err(pem)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::from)?
        .with_no_client_auth()
        .with_single_cert(read_certificates(&options.certificate)?, key)
        .map_err(TlsSetupError::from)?;
    config.alpn_protocols = offers.iter().map(|protocol| protocol.alpn().to_vec()).collect();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .await
        .map_err(|source| UpstreamError::Listen { port, source })?;
    Ok((listener, TlsAcceptor::from(Arc::new(config))))
}

async fn accept((listener, tls): (TcpListener, TlsAcceptor), credential: Arc<Credential>) {
    loop {
        // A connection that fails is the load's to report.
        let Ok((tcp, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(tcp, tls.clone(), Arc::clone(&credential)));
    }
}

async fn connection(tcp: TcpStream, tls: TlsAcceptor, credential: Arc<Credential>) {
    let _ = tcp.set_nodelay(true);
    let Ok(stream) = tls.accept(tcp).await else { return };
    let protocol = Protocol::negotiated(stream.get_ref().1.alpn_protocol());
    let service = service_fn(move |request| {
        let credential = Arc::clone(&credential);
        async move { Ok::<_, Infallible>(answer(request, &credential).await) }
    });
    let io = TokioIo::new(stream);
    // A connection that breaks off is the load's to report.
    match protocol {
        Protocol::H1 => drop(http1::Builder::new().serve_connection(io, service).await),
        Protocol::H2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(2 << 20).initial_connection_window_size(4 << 20);
            builder.max_concurrent_streams(1024);
            drop(builder.serve_connection(io, service).await);
        }
    }
}

async fn answer(request: Request<Incoming>, credential: &Credential) -> Response<Payload> {
    let path = request.uri().path();
    let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match (request.method(), first) {
        (&Method::GET, "open") => json(StatusCode::OK, MODELS),
        (&Method::GET, "v1") if request.headers().get(AUTHORIZATION) != Some(&credential.header) => {
            json(StatusCode::UNAUTHORIZED, r#"{"error":"the credential is not the real one"}"#)
        }
        (&Method::GET, "v1") => json(StatusCode::OK, MODELS),
        (&Method::GET, "bytes") => match rest.parse() {
            Ok(length) => Response::new(Payload::of_length(length)),
            Err(_) => json(StatusCode::BAD_REQUEST, r#"{"error":"how many?"}"#),
        },
        (&Method::POST, "sink") => match drain(request.into_body()).await {
            Ok(()) => json(StatusCode::OK, r#"{"stored":true}"#),
            Err(_) => json(StatusCode::BAD_REQUEST, r#"{"error":"the body broke off"}"#),
        },
        (&Method::POST, "swap") => match request.into_body().collect().await.map(Collected::to_bytes) {
            Ok(body) if holds(&body, &credential.text) => json(StatusCode::OK, r#"{"stored":true}"#),
            Ok(_) => json(StatusCode::UNAUTHORIZED, r#"{"error":"the body holds no credential"}"#),
            Err(_) => json(StatusCode::BAD_REQUEST, r#"{"error":"the body broke off"}"#),
        },
        _ => json(StatusCode::NOT_FOUND, r#"{"error":"no such path"}"#),
    }
}

const MODELS: &str = r#"{"object":"list","data":[{"id":"large","object":"model","created":1767225600,"owned_by":"bench"},{"id":"small","object":"model","created":1767225600,"owned_by":"bench"}]}"#;

fn json(status: StatusCode, text: &'static str) -> Response<Payload> {
    let mut response = Response::new(Payload::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn drain(mut body: Incoming) -> Result<(), hyper::Error> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

fn holds(body: &[u8], text: &str) -> bool {
    memchr::memmem::find(body, text.as_bytes()).is_some()
}
