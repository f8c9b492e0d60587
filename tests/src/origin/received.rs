//! What reached an origin server.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::header::HeaderMap;
use hyper::{Request, Version};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

/// A request as the origin saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// `h2` or `http/1.1`
    pub protocol: &'static str,
    /// GET, POST, …
    pub method: String,
    /// `Host`, or `:authority`
    pub authority: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// Header fields in order, without `Host`.
    pub headers: Vec<(String, String)>,
    /// What followed, once it ended; none if the origin did not read it.
    pub payload: Option<Payload>,
}

/// A request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// In bytes.
    pub length: u64,
    /// Of the whole body.
    pub sha256: String,
    /// The body, as far as its first 64 KiB.
    pub start: String,
    /// The same, byte for byte.
    pub bytes: Vec<u8>,
    /// Fields after the body.
    pub trailers: Vec<(String, String)>,
    /// Whether it ended as it should.
    pub complete: bool,
}

impl Received {
    pub(crate) fn head<B>(request: &Request<B>) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let authority = match request.uri().authority() {
            Some(authority) => authority.to_string(),
            None => request.headers().get(http::header::HOST).map(text).unwrap_or_default(),
        };
        let mut headers = fields(request.headers());
        headers.retain(|(name, _)| name != "host");
        Self {
            protocol: if request.version() == Version::HTTP_2 { "h2" } else { "http/1.1" },
            method: request.method().to_string(),
            authority,
            target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers,
            payload: None,
        }
    }

    /// The value of the only field of that name.
    ///
    /// # Panics
    /// When there are more.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| value.as_str());
        assert_eq!(values.next(), None, "{name} more than once in {self:#?}");
        first
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it did not end, or is longer than what is kept.
    pub fn body(&self) -> &str {
        let payload = self.payload.as_ref().expect("a body that the origin read to its end");
        assert_eq!(payload.length, payload.start.len() as u64, "a body too long to compare as text");
        &payload.start
    }

    /// As the default route echoes it.
    pub fn to_json(&self) -> Value {
        let payload = self.payload.as_ref().map(|payload| {
            json!({
                "length": payload.length,
                "sha256": payload.sha256,
                "start": payload.start,
                "trailers": payload.trailers,
            })
        });
        json!({
            "protocol": self.protocol,
            "method": self.method,
            "authority": self.authority,
            "target": self.target,
            "headers": self.headers,
            "body": payload,
        })
    }
}

/// Header fields as text, in order.
pub(crate) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// What an origin remembers, and the gate before its slow routes.
pub(crate) struct Log {
    pub(crate) gate: Semaphore,
    connections: AtomicUsize,
    received: Mutex<Vec<Received>>,
    changed: watch::Sender<()>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            gate: Semaphore::new(0),
            connections: AtomicUsize::new(0),
            received: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Log {
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Notes a request and returns its place.
    pub(crate) fn head(&self, received: Received) -> usize {
        let index = {
            let mut all = self.received.lock().expect("no holder of this lock panics");
            all.push(received);
            all.len() - 1
        };
        self.changed.send_replace(());
        index
    }

    /// Notes how a request's body ended, and returns the request.
    pub(crate) fn payload(&self, index: usize, payload: Payload) -> Received {
        let whole = {
            let mut all = self.received.lock().expect("no holder of this lock panics");
            all[index].payload = Some(payload);
            all[index].clone()
        };
        self.changed.send_replace(());
        whole
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no holder of this lock panics").clone()
    }

    pub(crate) async fn wait_until(&self, condition: impl Fn(&[Received]) -> bool) {
        let mut changes = self.changed.subscribe();
        while !condition(&self.received()) {
            changes.changed().await.expect("the log outlives those who wait on it");
        }
    }

    /// Waits for one step of the gate.
    pub(crate) async fn pass_gate(&self) {
        self.gate.acquire().await.expect("the gate is never closed").forget();
    }
}
