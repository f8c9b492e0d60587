//! The service that the sandbox calls: TLS with an authority of its own, and a memory of what it received.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};

use super::world::World;
use crate::failure::Failure;
use crate::tls_service;

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
    repository: PathBuf,
    /// What `Authorization` must be for the repository.
    git_authorization: String,
    seen: Mutex<Vec<Seen>>,
}

impl Service {
    pub(super) async fn start(world: &World, repository: &Path) -> Result<Self, Failure> {
        let password = format!("agent:{}", world.git_password.real);
        let shared = Arc::new(Shared {
            repository: repository.to_owned(),
            git_authorization: format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(password)
            ),
            seen: Mutex::new(Vec::new()),
        });
        let answering = Arc::clone(&shared);
        let answer = move |request| answer(Arc::clone(&answering), request);
        let port = tls_service::start(&world.service_certificate(), &world.service_key(), answer).await?;
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

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Response<Either<Full<Bytes>, Channel<Bytes>>> {
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
    response.map(|body| if endless { Either::Right(greeting_without_end()) } else { Either::Left(body) })
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
