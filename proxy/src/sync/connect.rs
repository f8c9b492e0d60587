//! Requests to the control service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keyferry_dial::{Dialer, Guard, OwnListeners, Resolver, ResolverOptions, ServiceUrl};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::enforce::EnforceError;
use super::events::TooLarge;

/// From the request to the head of the answer, connecting included.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer that is no stream: more than any policy.
const MOST: usize = 64 << 20;

/// Asks the control service, as this proxy.
#[derive(Debug)]
pub(super) struct Requests {
    url: ServiceUrl,
    dialer: Dialer,
    tls: Arc<ClientConfig>,
    token: SecretString,
}

/// Why control was not heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    #[error("the control service cannot be reached: {0}")]
    Unreachable(String),
    #[error("the control service did not answer in {} s", ANSWER.as_secs())]
    Silent,
    #[error("the control service answered {status}{}", whose_fault(*status))]
    Refused { status: StatusCode },
    #[error("the control service has no stream")]
    NoStream,
    #[error("the control service has revoked this proxy")]
    Revoked,
    #[error("the control service sent what this version does not understand: {0}")]
    Malformed(String),
    #[error("the stream broke off")]
    Ended,
    #[error(transparent)]
    Enforce(#[from] EnforceError),
}

impl From<TooLarge> for SyncError {
    fn from(_: TooLarge) -> Self {
        Self::Malformed("an event has no end".to_owned())
    }
}

impl Requests {
    pub(super) fn new(url: ServiceUrl, token: SecretString, tls: Arc<ClientConfig>) -> Self {
        let resolver = Resolver::new(ResolverOptions::default());
        let dialer = Dialer::new(Guard::operator(), resolver, OwnListeners::default());
        Self { url, dialer, tls, token }
    }

    /// Asks; the answer is one of success.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(http::HeaderName, String)],
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, SyncError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() =
            self.url.target(path).parse().map_err(|_| SyncError::Malformed("a path".to_owned()))?;
        let bearer = Zeroizing::new(format!("Bearer {}", self.token.expose_secret()));
        let mut bearer = HeaderValue::try_from(&*bearer)
            .map_err(|_| SyncError::Malformed("the token is no header value".to_owned()))?;
        bearer.set_sensitive(true);
        let host = HeaderValue::try_from(self.url.authority());
        let all = request.headers_mut();
        all.insert(AUTHORIZATION, bearer);
        all.insert(HOST, host.unwrap_or(HeaderValue::from_static("control")));
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                all.insert(name, value);
            }
        }
        let answer = timeout(ANSWER, async {
            let mut sender = self.connect().await?;
            sender.send_request(request).await.map_err(unreachable)
        });
        let response = answer.await.map_err(|_| SyncError::Silent)??;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    async fn connect(&self) -> Result<http1::SendRequest<Full<Bytes>>, SyncError> {
        let stream =
            self.url.connect(&self.dialer, || Ok(Arc::clone(&self.tls))).await.map_err(unreachable)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
        tokio::spawn(async move {
            // The request that it carries reports the error.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// The body of an answer, wiped when it has been read.
pub(super) async fn whole(response: Response<Incoming>) -> Result<Zeroizing<Vec<u8>>, SyncError> {
    let collected = timeout(ANSWER, Limited::new(response.into_body(), MOST).collect()).await;
    let collected = collected.map_err(|_| SyncError::Silent)?;
    let body = collected.map_err(|error| SyncError::Unreachable(error.to_string()))?.to_bytes();
    Ok(Zeroizing::new(body.to_vec()))
}

/// What an answer that is none of success means.
async fn refused(response: Response<Incoming>) -> SyncError {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: Option<String>,
    }
    let status = response.status();
    let body = whole(response).await.ok();
    let error = body.and_then(|body| serde_json::from_slice::<Body>(&body).ok());
    match error.and_then(|body| body.error.code).as_deref() {
        Some("proxy_revoked") => SyncError::Revoked,
        Some(_) | None => SyncError::Refused { status },
    }
}

fn whose_fault(status: StatusCode) -> &'static str {
    if status == StatusCode::UNAUTHORIZED { ": the token is not one of a proxy that it knows" } else { "" }
}

fn unreachable(error: impl std::fmt::Display) -> SyncError {
    let text = error.to_string();
    SyncError::Unreachable(text.lines().next().unwrap_or_default().to_owned())
}
