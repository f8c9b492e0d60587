//! The service that the sandbox calls: TLS with an authority of its own, and a memory of what it received.

use std::convert::Infallible;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keyferry_config::policy::Host;
use keyferry_proxy::tls::{Authority, LeafCache, LeafSettings};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

use super::world::World;
use crate::failure::Failure;

/// A TLS service on loopback that answers for every name.
pub(super) struct Service {
    port: u16,
    shared: Arc<Shared>,
}

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) host: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) api_key: Option<String>,
    pub(super) body: String,
    pub(super) status: u16,
}

struct Shared {
    leafs: LeafCache,
    repository: PathBuf,
    /// What `Authorization` must be for the repository.
    git_authorization: String,
    seen: Mutex<Vec<Seen>>,
}

impl Service {
    pub(super) async fn start(world: &World, repository: &Path) -> Result<Self, Failure> {
        let authority =
            Authority::load(&world.service_certificate(), &world.service_key()).map_err(Failure::fatal)?;
        let settings = LeafSettings { capacity: 16, lifetime: Duration::from_secs(24 * 3600) };
        let leafs = LeafCache::new(authority, settings).map_err(Failure::fatal)?;
        let password = format!("agent:{}", world.git_password.real);
        let shared = Arc::new(Shared {
            leafs,
            repository: repository.to_owned(),
            git_authorization: format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(password)
            ),
            seen: Mutex::new(Vec::new()),
        });
        let failure =
            |error: std::io::Error| Failure::fatal(format!("the service cannot listen on loopback: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failure)?;
        let port = listener.local_addr().map_err(failure)?.port();
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Everything that arrived, in order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last request to `host`.
    pub(super) fn seen_last(&self, host: &str) -> Option<Seen> {
        self.seen().into_iter().rfind(|seen| seen.host == host)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        // A connection that fails shows as a request that did not arrive.
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.ok()?;
    let host: Host = start.client_hello().server_name()?.parse().ok()?;
    let config = shared.leafs.server_config(&host).await.ok()?;
    let stream = start.into_stream(config).await.ok()?;
    let answer = service_fn(|request| answer(Arc::clone(&shared), request));
    auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await.ok()
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Either<Full<Bytes>, Channel<Bytes>>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let authority = match head.uri.authority() {
        Some(authority) => authority.to_string(),
        None => text(&head.headers, HOST.as_str()).unwrap_or_default(),
    };
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned();
    let authorization = text(&head.headers, AUTHORIZATION.as_str());
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();

    let response = if host == "git.localhost" {
        shared.file(head.uri.path(), authorization.as_deref())
    } else {
        Response::new(Full::from(format!("{{\"hello\":\"from {host}\"}}\n")))
    };
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
        host,
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        authorization,
        api_key: text(&head.headers, "x-api-key"),
        body: String::from_utf8_lossy(&body).into_owned(),
        status: response.status().as_u16(),
    });
    let endless = head.uri.path() == "/v1/stream";
    Ok(response.map(|body| if endless { Either::Right(greeting_without_end()) } else { Either::Left(body) }))
}

fn greeting_without_end() -> Channel<Bytes> {
    let (mut sender, body) = Channel::new(1);
    tokio::spawn(async move {
        // Whoever leaves hears nothing more.
        let _ = sender.send_data(Bytes::from_static(b"hello, and more to come\n")).await;
        std::future::pending::<()>().await;
        drop(sender);
    });
    body
}

impl Shared {
    /// A file of the repository, for whoever has the password.
    fn file(&self, path: &str, authorization: Option<&str>) -> Response<Full<Bytes>> {
        let answer = |status, body: Vec<u8>| {
            let mut response = Response::new(Full::from(body));
            *response.status_mut() = status;
            response
        };
        if authorization != Some(&self.git_authorization) {
            let mut response = answer(StatusCode::UNAUTHORIZED, Vec::new());
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Basic realm=\"demo\""));
            return response;
        }
        let inside = path.strip_prefix("/demo.git/").map(Path::new).filter(|path| {
            // The proxy is not the only thing on this machine that can reach the port.
            path.components().all(|component| matches!(component, Component::Normal(_)))
        });
        match inside.and_then(|inside| std::fs::read(self.repository.join(inside)).ok()) {
            Some(content) => answer(StatusCode::OK, content),
            None => answer(StatusCode::NOT_FOUND, Vec::new()),
        }
    }
}
