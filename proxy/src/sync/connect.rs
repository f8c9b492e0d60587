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
use keyferry_config::policy::{Destination, Host};
use keyferry_dial::{Dialer, Guard, OwnListeners, Resolver, ResolverOptions};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::address::{ControlUrl, Kind};
use super::enforce::EnforceError;
use super::events::TooLarge;

/// From the request to the head of the answer, connecting included.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest answer that is no stream: more than any policy.
const MOST: usize = 64 << 20;

/// Asks the control service, as this proxy.
#[derive(Debug)]
pub(super) struct Requests {
    url: ControlUrl,
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
    pub(super) fn new(url: ControlUrl, token: SecretString, tls: Arc<ClientConfig>) -> Self {
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
        *request.uri_mut() = path.parse().map_err(|_| SyncError::Malformed("a path".to_owned()))?;
        let bearer = Zeroizing::new(format!("Bearer {}", self.token.expose_secret()));
        let mut bearer = HeaderValue::try_from(&*bearer)
            .map_err(|_| SyncError::Malformed("the token is no header value".to_owned()))?;
        bearer.set_sensitive(true);
        let host = match &self.url.0 {
            Kind::Https(to) | Kind::Loopback(to) => to.authority(),
            Kind::Unix(_) => "control".to_owned(),
        };
        let all = request.headers_mut();
        all.insert(AUTHORIZATION, bearer);
        all.insert(HOST, HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("control")));
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
        match &self.url.0 {
            Kind::Unix(path) => http1(UnixStream::connect(path).await.map_err(unreachable)?).await,
            Kind::Loopback(to) => http1(self.dial(to).await?).await,
            Kind::Https(to) => {
                let name = match &to.host {
                    Host::Name(name) => {
                        ServerName::try_from(name.as_str().to_owned()).map_err(unreachable)?
                    }
                    Host::Ip(ip) => ServerName::from(*ip),
                };
                let tcp = self.dial(to).await?;
                let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await;
                http1(tls.map_err(unreachable)?).await
            }
        }
    }

    async fn dial(&self, to: &Destination) -> Result<tokio::net::TcpStream, SyncError> {
        let connected = self.dialer.connect(&to.host, to.port, &[]).await.map_err(unreachable)?;
        Ok(connected.stream)
    }
}

/// The body of an answer, wiped when it has been read.
pub(super) async fn whole(response: Response<Incoming>) -> Result<Zeroizing<Vec<u8>>, SyncError> {
    let collected = timeout(ANSWER, Limited::new(response.into_body(), MOST).collect()).await;
    let collected = collected.map_err(|_| SyncError::Silent)?;
    let body = collected.map_err(|error| SyncError::Unreachable(error.to_string()))?.to_bytes();
    Ok(Zeroizing::new(body.to_vec()))
}

async fn http1<IO>(io: IO) -> Result<http1::SendRequest<Full<Bytes>>, SyncError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(unreachable)?;
    tokio::spawn(async move {
        // The request that it carries reports the error.
        let _ = connection.await;
    });
    Ok(sender)
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
