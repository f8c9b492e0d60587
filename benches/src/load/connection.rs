//! One client's connection: TCP, CONNECT where there is a proxy, TLS, HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, Parts, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{Meter, Metered};
use crate::tls::Protocol;

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// TCP.
    #[error("{0} cannot be connected to: {1}")]
    Connect(SocketAddr, io::Error),
    /// The proxy broke off.
    #[error("the proxy did not answer CONNECT: {0}")]
    Tunnel(io::Error),
    /// The proxy refused.
    #[error("the proxy refused CONNECT: {0}")]
    Refused(String),
    /// TLS.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// Another protocol than asked for would be measured.
    #[error("the other side does not speak the protocol that was asked for")]
    Protocol,
    /// A name or path of no use.
    #[error("{0}")]
    Name(String),
    /// HTTP.
    #[error("HTTP failed: {0:?}")]
    Http(#[from] hyper::Error),
    /// Not what a good answer has.
    #[error("the answer was {0}: {1}")]
    Status(StatusCode, String),
}

/// An open connection.
pub(super) struct Connection {
    sender: Sender,
    host: HeaderValue,
    authority: Authority,
    /// Ends with the connection. Streams that share it do not wait for it.
    task: Option<JoinHandle<()>>,
}

enum Sender {
    H1(http1::SendRequest<Metered>),
    H2(http2::SendRequest<Metered>),
}

impl Connection {
    pub(super) async fn open(
        proxy: Option<SocketAddr>,
        upstream: SocketAddr,
        host: &str,
        tls: Arc<ClientConfig>,
        protocol: Protocol,
    ) -> Result<Self, ExchangeError> {
        let to = proxy.unwrap_or(upstream);
        let connect = |error| ExchangeError::Connect(to, error);
        let mut tcp = TcpStream::connect(to).await.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        let authority = format!("{host}:{}", upstream.port());
        if proxy.is_some() {
            tunnel(&mut tcp, &authority).await?;
        }
        let bad = |error: &dyn std::fmt::Display| ExchangeError::Name(format!("{authority}: {error}"));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| bad(&error))?;
        let tls = TlsConnector::from(tls).connect(name, tcp).await.map_err(ExchangeError::Tls)?;
        let agreed = tls.get_ref().1.alpn_protocol();
        // A proxy that knows no ALPN speaks HTTP/1.1 all the same.
        if Protocol::negotiated(agreed) != protocol {
            return Err(ExchangeError::Protocol);
        }
        let io = TokioIo::new(tls);
        // What ends a connection early, the request on it reports.
        let (sender, task) = match protocol {
            Protocol::H1 => {
                let (sender, connection) = http1::handshake(io).await?;
                (Sender::H1(sender), tokio::spawn(async { drop(connection.await) }))
            }
            Protocol::H2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(2 << 20).initial_connection_window_size(4 << 20);
                let (sender, connection) = builder.handshake(io).await?;
                (Sender::H2(sender), tokio::spawn(async { drop(connection.await) }))
            }
        };
        Ok(Self {
            sender,
            host: HeaderValue::try_from(&authority).map_err(|error| bad(&error))?,
            authority: Authority::try_from(authority.as_str()).map_err(|error| bad(&error))?,
            task: Some(task),
        })
    }

    /// The same connection for one more stream.
    ///
    /// # Panics
    /// Over HTTP/1.1, which has none.
    pub(super) fn share(&self) -> Self {
        let Sender::H2(sender) = &self.sender else { panic!("HTTP/1.1 has no streams") };
        Self {
            sender: Sender::H2(sender.clone()),
            host: self.host.clone(),
            authority: self.authority.clone(),
            task: None,
        }
    }

    /// Sends a request and reads the answer to its end.
    pub(super) async fn ask(
        &mut self,
        mut request: Request<Metered>,
        meter: &Meter,
    ) -> Result<(), ExchangeError> {
        let response = match &mut self.sender {
            Sender::H1(sender) => {
                request.headers_mut().insert(HOST, self.host.clone());
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::H2(sender) => {
                let mut parts = Parts::default();
                parts.scheme = Some(Scheme::HTTPS);
                parts.authority = Some(self.authority.clone());
                parts.path_and_query = request.uri().path_and_query().cloned();
                *request.uri_mut() =
                    Uri::from_parts(parts).map_err(|error| ExchangeError::Name(error.to_string()))?;
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        read(response, meter).await
    }

    /// Closes it as a well-behaved client does.
    pub(super) async fn close(self) {
        drop(self.sender);
        if let Some(task) = self.task {
            // A panic in hyper would have failed the request before.
            drop(task.await);
        }
    }
}

async fn tunnel(tcp: &mut TcpStream, authority: &str) -> Result<(), ExchangeError> {
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(ExchangeError::Tunnel)?;
    // Nothing follows the head before our own handshake begins.
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if tcp.read_buf(&mut head).await.map_err(ExchangeError::Tunnel)? == 0 {
            return Err(ExchangeError::Tunnel(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    match head.get(9..12) {
        Some(b"200") => Ok(()),
        _ => Err(ExchangeError::Refused(String::from_utf8_lossy(&head).into_owned())),
    }
}

async fn read(response: Response<Incoming>, meter: &Meter) -> Result<(), ExchangeError> {
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let text = body.collect().await?.to_bytes();
        return Err(ExchangeError::Status(status, String::from_utf8_lossy(&text).into_owned()));
    }
    while let Some(frame) = body.frame().await {
        meter.add(frame?.data_ref().map_or(0, bytes::Bytes::len));
    }
    Ok(())
}
