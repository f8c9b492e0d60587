//! The control API as commands use it: one request after the other, over TLS, loopback or the owner's socket.

mod error;
mod resource;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use keyferry_dial::{Dialer, Guard, OwnListeners, Resolver, ResolverOptions, ServiceUrl};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::Mutex;

pub(crate) use error::{ClientError, Refusal};
pub(crate) use resource::{Grantee, Resource, SecretRef};

/// A control service, and who asks it about which namespace.
pub(crate) struct ControlClient {
    endpoint: ServiceUrl,
    /// `None` at the owner's door.
    authorization: Option<HeaderValue>,
    namespace: String,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// What a request that was done brought.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    body: Value,
}

/// A key that no header can carry.
#[derive(Debug, thiserror::Error)]
#[error("the API key holds characters that no key holds")]
pub(crate) struct BadKey;

/// The largest page of the API is far below it.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl ControlClient {
    pub(crate) fn new(
        endpoint: ServiceUrl,
        key: Option<&SecretString>,
        namespace: String,
    ) -> Result<Self, BadKey> {
        let header = |key: &SecretString| {
            let mut value =
                HeaderValue::try_from(format!("Bearer {}", key.expose_secret())).map_err(|_| BadKey)?;
            value.set_sensitive(true);
            Ok(value)
        };
        let authorization = key.map(header).transpose()?;
        Ok(Self { endpoint, authorization, namespace, connection: Mutex::new(None) })
    }

    pub(crate) fn endpoint(&self) -> &ServiceUrl {
        &self.endpoint
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// One resource.
    pub(crate) async fn get(&self, path: &str) -> Result<Resource, ClientError> {
        self.send(Method::GET, path, None).await?.resource()
    }

    /// One resource, where there is one.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Resource>, ClientError> {
        match self.get(path).await {
            Err(ClientError::Refused(refusal)) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            other => other.map(Some),
        }
    }

    /// All of a list, whatever the number of its pages.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Resource>, ClientError> {
        let mut all = Vec::new();
        for page in 1.. {
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}limit=200&page={page}");
            let Answer { mut body, .. } = self.send(Method::GET, &path, None).await?;
            let Value::Array(data) = body["data"].take() else { return Err(self.odd("no list came")) };
            all.extend(data.into_iter().map(Resource::from));
            if body["meta"]["total_pages"].as_u64().is_none_or(|pages| page >= pages) {
                break;
            }
        }
        Ok(all)
    }

    pub(crate) async fn post(&self, path: &str, data: Value) -> Result<Answer, ClientError> {
        self.send(Method::POST, path, Some(data)).await
    }

    pub(crate) async fn put(&self, path: &str, data: Value) -> Result<Answer, ClientError> {
        self.send(Method::PUT, path, Some(data)).await
    }

    /// Does what takes no data.
    pub(crate) async fn act(&self, path: &str) -> Result<Resource, ClientError> {
        self.send(Method::POST, path, None).await?.resource()
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, None).await.map(|_| ())
    }

    /// Whether a key is one of this service.
    pub(crate) async fn is_good(&self, key: &SecretString) -> Result<bool, ClientError> {
        let Ok(other) = Self::new(self.endpoint.clone(), Some(key), self.namespace.clone()) else {
            return Ok(false);
        };
        match other.list(&path(["api_keys"])).await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused(refusal)) if refusal.status == StatusCode::UNAUTHORIZED => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it, and its database, answer.
    pub(crate) async fn ready(&self) -> Result<(), ClientError> {
        let (method, path) = (Method::GET, "/readyz");
        let (status, body) = self.exchange(&method, path, Bytes::new()).await?;
        if status.is_success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        Err(ClientError::Refused(Refusal {
            method,
            path: path.to_owned(),
            status,
            message,
            details: Vec::new(),
        }))
    }

    /// Asks, and takes what is not a success for an error. `data` is put into its envelope.
    async fn send(&self, method: Method, path: &str, data: Option<Value>) -> Result<Answer, ClientError> {
        let body = data.map_or_else(Bytes::new, |data| json!({ "data": data }).to_string().into());
        let (status, body) = self.exchange(&method, path, body).await?;
        let body = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
        let body = body.map_err(|_| self.odd(format!("status {}, and no JSON", status.as_u16())))?;
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        match Refusal::read(method, path, status, &body) {
            Some(refusal) => Err(ClientError::Refused(refusal)),
            None => Err(self.odd(format!("status {}", status.as_u16()))),
        }
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let exchanged = tokio::time::timeout(PATIENCE, self.exchange_at_length(method, path, body)).await;
        exchanged.unwrap_or_else(|_| Err(self.odd(format!("nothing came within {} s", PATIENCE.as_secs()))))
    }

    async fn exchange_at_length(
        &self,
        method: &Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.endpoint.target(path))
            .header(header::HOST, self.endpoint.authority())
            .header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.odd(error))?;
        let mut held = self.connection.lock().await;
        let kept = match held.take() {
            Some(mut sender) => sender.ready().await.ok().map(|()| sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(request).await.map_err(|error| self.odd(error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| self.odd(error))?;
        *held = Some(sender);
        Ok((head.status, body.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = self.endpoint.connect(&dialer(), tls).await.map_err(|error| {
            ClientError::Unreachable { endpoint: self.endpoint.to_string(), reason: error.to_string() }
        })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.odd(error))?;
        // Its end is seen by whoever sends next.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn odd(&self, reason: impl ToString) -> ClientError {
        ClientError::Answer { endpoint: self.endpoint.to_string(), reason: reason.to_string() }
    }
}

/// The operator names the address, so no class is refused.
fn dialer() -> Dialer {
    Dialer::new(Guard::operator(), Resolver::new(ResolverOptions::default()), OwnListeners::default())
}

fn tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

impl Answer {
    /// The resource that was made or changed.
    pub(crate) fn resource(mut self) -> Result<Resource, ClientError> {
        Ok(Resource::from(self.body["data"].take()))
    }

    /// What its author should look at.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = &str> {
        self.body["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    pub(crate) fn is_new(&self) -> bool {
        self.status == StatusCode::CREATED
    }
}

/// The letters that stand in a path and a query as they are (RFC 3986 section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `/api/v1/` and the parts.
pub(crate) fn path<const N: usize>(parts: [&str; N]) -> String {
    let parts = parts.map(|part| utf8_percent_encode(part, ENCODED).to_string());
    format!("/api/v1/{}", parts.join("/"))
}

/// A path with a query.
pub(crate) fn with_query<'a>(path: String, query: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<_> = query
        .into_iter()
        .map(|(key, value)| {
            format!("{}={}", utf8_percent_encode(key, ENCODED), utf8_percent_encode(value, ENCODED))
        })
        .collect();
    if pairs.is_empty() { path } else { format!("{path}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_part_of_a_path() {
        assert_eq!(path(["roles", "a/../b?c#d e"]), "/api/v1/roles/a%2F..%2Fb%3Fc%23d%20e");
        assert_eq!(
            with_query(path(["roles"]), [("labels[a]", "b&c=d"), ("namespace", "default")]),
            "/api/v1/roles?labels%5Ba%5D=b%26c%3Dd&namespace=default"
        );
        assert_eq!(with_query(path(["roles"]), []), "/api/v1/roles");
    }
}
