//! A real origin server: TLS or plain, HTTP/1.1 and HTTP/2, which remembers what reached it.

mod body;
mod listener;
mod pattern;
mod received;
mod routes;
mod services;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::authority::{Authority, Validity};
use crate::ports;

pub use body::{Body, channel, empty, full};
pub use pattern::{pattern_sha256, sha256_hex};
pub use received::{Payload, Received};
pub use services::{SAID, SERVICES};

use received::Log;

/// What answers a request, where it is not [`routes`].
pub type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// An answer under way.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A running origin server. Dropping it stops it.
pub struct Origin {
    name: String,
    scheme: &'static str,
    address: SocketAddr,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

/// How an origin is to be.
pub struct OriginBuilder {
    name: String,
    security: Security,
    alpn: Vec<&'static str>,
    handler: Option<Handler>,
    credentials: Option<(String, String)>,
    default_port: bool,
}

enum Security {
    Plain,
    Tls { certificate_name: String, validity: Validity, issuer: Option<Box<Authority>> },
}

impl Origin {
    /// An origin of that name, with a good certificate, which speaks HTTP/2 and HTTP/1.1.
    pub async fn start(name: &str) -> Self {
        Self::builder(name).start().await
    }

    /// The same, to be changed first.
    pub fn builder(name: &str) -> OriginBuilder {
        let security =
            Security::Tls { certificate_name: name.to_owned(), validity: Validity::Current, issuer: None };
        OriginBuilder {
            name: name.to_owned(),
            security,
            alpn: vec!["h2", "http/1.1"],
            handler: None,
            credentials: None,
            default_port: false,
        }
    }

    /// The name that it goes by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address on loopback.
    ///
    /// # Panics
    /// Never: it listens on IPv4.
    pub fn ip(&self) -> Ipv4Addr {
        match self.address.ip() {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => unreachable!("{address}"),
        }
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `name:port`
    pub fn authority(&self) -> String {
        format!("{}:{}", self.name, self.port())
    }

    /// The address of a resource, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.authority())
    }

    /// Every request whose head arrived, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.log.received()
    }

    /// The only request that arrived.
    ///
    /// # Panics
    /// When there were none, or more.
    pub fn only_request(&self) -> Received {
        let received = self.received();
        let [only] = received.as_slice() else {
            panic!("not one request but {}: {received:#?}", received.len())
        };
        only.clone()
    }

    /// Waits until that many requests have arrived, and returns them.
    pub async fn wait_for_requests(&self, count: usize) -> Vec<Received> {
        crate::within(
            &format!("{count} requests at {}", self.name),
            self.log.wait_until(|received| received.len() >= count),
        )
        .await;
        self.received()
    }

    /// Waits until the body of the request at `index` has ended, well or not.
    pub async fn wait_for_body(&self, index: usize) -> Received {
        crate::within(
            &format!("the end of request {index}'s body at {}", self.name),
            self.log.wait_until(|received| received.get(index).is_some_and(|one| one.payload.is_some())),
        )
        .await;
        self.received().swap_remove(index)
    }

    /// How many connections were opened to it: zero means that not a byte arrived.
    pub fn connections(&self) -> usize {
        self.log.connections()
    }

    /// Lets the gated routes go on by that many steps.
    pub fn open_gate(&self, steps: usize) {
        self.log.gate.add_permits(steps);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OriginBuilder {
    /// Without TLS.
    pub fn plain(mut self) -> Self {
        self.security = Security::Plain;
        self
    }

    /// Speaks only the protocols of these ALPN names.
    pub fn alpn(mut self, names: &[&'static str]) -> Self {
        self.alpn = names.to_vec();
        self
    }

    /// Shows a certificate for another name.
    pub fn certificate_for(mut self, other: &str) -> Self {
        if let Security::Tls { certificate_name, .. } = &mut self.security {
            *certificate_name = other.to_owned();
        }
        self
    }

    /// Shows a certificate with this validity.
    pub fn validity(mut self, wanted: Validity) -> Self {
        if let Security::Tls { validity, .. } = &mut self.security {
            *validity = wanted;
        }
        self
    }

    /// Shows a certificate from this authority in place of the trusted one.
    pub fn issued_by(mut self, authority: Authority) -> Self {
        if let Security::Tls { issuer, .. } = &mut self.security {
            *issuer = Some(Box::new(authority));
        }
        self
    }

    /// Answers everything with `handler`.
    pub fn handler(mut self, handler: Handler) -> Self {
        self.handler = Some(handler);
        self
    }

    /// Answers 401 to whoever does not show these credentials (Basic).
    pub fn basic_auth(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Listens where a URL without a port leads, at an address of loopback that no other origin has.
    pub fn default_port(mut self) -> Self {
        self.default_port = true;
        self
    }

    /// Starts it, on a free port unless it was told otherwise.
    ///
    /// # Panics
    /// When loopback has none, or this user may not use it.
    pub async fn start(self) -> Origin {
        let socket = match self.default_port {
            false => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind the origin server"),
            true => ports::listen_at_443().await,
        };
        let address = socket.local_addr().expect("its address");
        let (scheme, tls) = match self.security {
            Security::Plain => ("http", None),
            Security::Tls { certificate_name, validity, issuer } => {
                let issuer = issuer.as_deref().unwrap_or_else(|| Authority::trusted());
                ("https", Some(issuer.issue(&certificate_name, validity).server_config(&self.alpn)))
            }
        };
        let log = Arc::new(Log::default());
        let handler = self.handler.unwrap_or_else(|| routes::handler(&log));
        let handler = match self.credentials {
            Some((user, password)) => routes::behind_basic_auth(&user, &password, handler),
            None => handler,
        };
        let task = tokio::spawn(listener::serve(socket, tls, handler, Arc::clone(&log)));
        Origin { name: self.name, scheme, address, log, task }
    }
}
