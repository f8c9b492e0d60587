//! One HTTP/1.1 connection to a collector, made anew when it is gone.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keyferry_config::policy::Host;
use keyferry_dial::{Dialer, Guard, OwnListeners, Resolver, ResolverOptions};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{OtlpEndpoint, OtlpError};
use crate::tls::crypto_provider;

/// A collector's answer is a few bytes.
const MAX_ANSWER: usize = 64 * 1024;

type Sender = http1::SendRequest<Full<Bytes>>;

/// Speaks to one endpoint.
pub(super) struct Transport {
    target: String,
    host: Host,
    port: u16,
    headers: HeaderMap,
    timeout: Duration,
    gzip: bool,
    dialer: Dialer,
    tls: Option<TlsConnector>,
    connection: Option<Sender>,
}

/// Why a batch was not taken.
pub(super) enum Failure {
    /// It will not be, however often it is sent.
    Final(String),
    /// It may be later, or after the time that the collector asked for.
    Passing(String, Option<Duration>),
}

impl Failure {
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Final(words) | Self::Passing(words, _) => words,
        }
    }
}

impl Transport {
    pub(super) fn new(endpoint: OtlpEndpoint, own: OwnListeners) -> Result<Self, OtlpError> {
        let OtlpEndpoint { url, headers: given, timeout, gzip, certificate } = endpoint;
        let authority = url.authority().ok_or_else(|| OtlpError("its address names no host".to_owned()))?;
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        let bare = authority.as_str().rsplit('@').next().unwrap_or_default();
        let (host, port) = Host::parse_authority(bare).map_err(|error| OtlpError(error.to_string()))?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure { Some(tls(certificate.as_deref())?) } else { None };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::try_from(bare).map_err(|error| OtlpError(error.to_string()))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("keyferry/", env!("CARGO_PKG_VERSION"))));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.extend(given);
        Ok(Self {
            target: url.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            host,
            port,
            headers,
            timeout,
            gzip,
            dialer: Dialer::new(Guard::operator(), Resolver::new(ResolverOptions::default()), own),
            tls,
            connection: None,
        })
    }

    /// The collector as the log names it.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Sends one request and returns the body of the answer that accepts it.
    pub(super) async fn post(&mut self, body: &[u8]) -> Result<Bytes, Failure> {
        let body = if self.gzip { compressed(body) } else { Bytes::copy_from_slice(body) };
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.exchange(body)).await {
            Ok(answered) => answered,
            Err(_) => {
                self.connection = None;
                Err(Failure::Passing(format!("no answer within {} s", timeout.as_secs_f64()), None))
            }
        }
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Bytes, Failure> {
        let passing = |error: &dyn std::fmt::Display| Failure::Passing(error.to_string(), None);
        let kept = match self.connection.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut sender = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let mut request = Request::post(&self.target)
            .body(Full::new(body))
            .map_err(|error| Failure::Final(error.to_string()))?;
        request.headers_mut().clone_from(&self.headers);
        let response = sender.send_request(request).await.map_err(|error| passing(&error))?;
        let (parts, body) = response.into_parts();
        let body =
            Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| passing(&error))?.to_bytes();
        self.connection = Some(sender);
        match parts.status {
            status if status.is_success() => Ok(body),
            // What the specification of OTLP/HTTP calls retryable.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => {
                Err(Failure::Passing(format!("it answered {status}"), retry_after(&parts.headers)))
            }
            status => Err(Failure::Final(format!("it answered {status}"))),
        }
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let passing = |error: &dyn std::fmt::Display| Failure::Passing(error.to_string(), None);
        let connected =
            self.dialer.connect(&self.host, self.port, &[]).await.map_err(|error| passing(&error))?;
        let Some(tls) = &self.tls else { return speak(connected.stream).await };
        let name = match &self.host {
            Host::Name(name) => {
                ServerName::try_from(name.as_str().to_owned()).map_err(|error| passing(&error))?
            }
            Host::Ip(ip) => ServerName::from(*ip),
        };
        speak(tls.connect(name, connected.stream).await.map_err(|error| passing(&error))?).await
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("collector", &self.shown()).finish_non_exhaustive()
    }
}

async fn speak<IO>(io: IO) -> Result<Sender, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| Failure::Passing(error.to_string(), None))?;
    tokio::spawn(async move {
        // The request on it reports the error.
        let _ = connection.await;
    });
    Ok(sender)
}

/// In seconds; a date is taken for no word at all.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn compressed(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default().into()
}

/// The system's roots, and the operator's.
fn tls(certificate: Option<&std::path::Path>) -> Result<TlsConnector, OtlpError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = certificate {
        let unreadable = |error: &dyn std::fmt::Display| OtlpError(format!("{}: {error}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
    }
    if roots.is_empty() {
        return Err(OtlpError("there are no root certificates to verify it with".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| OtlpError(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
