//! One connection: dialled, TLS verified, HTTP spoken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use keyferry_config::policy::{Destination, Host, Reason, Refusal, Scheme};
use keyferry_dial::{DialError, Dialer, Guard};
use rustls::{AlertDescription, ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::approach::{Approach, Dialled, Phase};
use super::mark::LoopMark;
use crate::body::RequestBody;
use crate::telemetry::Telemetry;
use crate::tls::UpstreamTls;

/// How long a TLS handshake with an upstream may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// What one HTTP/2 stream, and all of them together, may have in flight: enough for 1 Gbit/s over 15 ms.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The largest list of response header fields over HTTP/2; over HTTP/1 hyper reads about as much.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) dialer: Dialer,
    pub(crate) tls: UpstreamTls,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Shows a request of ours that comes back.
    pub(crate) mark: LoopMark,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// It has no public address, as an operator's own services have none.
    pub(crate) is_inside: bool,
}

/// Connected, TLS verified where there is to be TLS, and no byte of HTTP spoken.
struct Opened {
    stream: Stream,
    peer: Peer,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A fresh connection that speaks HTTP.
#[derive(Debug)]
pub(crate) enum Fresh {
    H1(http1::SendRequest<RequestBody>),
    H2(http2::SendRequest<RequestBody>),
}

impl Connector {
    /// A connection that speaks what the upstream prefers.
    pub(crate) async fn connect(
        &self,
        to: &Destination,
        exempt: &[IpNet],
        approach: &Approach,
    ) -> Result<(Fresh, Peer), Refusal> {
        let Opened { stream, peer } = self.open(to, exempt, self.tls.h2_or_http1(), approach).await?;
        let fresh = match stream {
            Stream::Plain(tcp) => Fresh::H1(http1(tcp).await?),
            Stream::Tls(tls) => match tls.get_ref().1.alpn_protocol() {
                Some(b"h2") => Fresh::H2(http2(*tls).await?),
                _ => Fresh::H1(http1(*tls).await?),
            },
        };
        Ok((fresh, peer))
    }

    /// Through all phases before HTTP, each timed.
    async fn open(
        &self,
        to: &Destination,
        exempt: &[IpNet],
        config: &Arc<ClientConfig>,
        approach: &Approach,
    ) -> Result<Opened, Refusal> {
        let metrics = &self.telemetry.metrics;
        let began = Instant::now();
        approach.enter(Phase::Dns);
        let connecting = || approach.enter(Phase::Connect);
        let connected = self.dialer.connect_watched(&to.host, to.port, exempt, connecting).await;
        let connected = connected.map_err(|error| {
            let (reason, phase) = match &error {
                DialError::Dns { .. } => (Reason::UpstreamDns, Some(Phase::Dns)),
                // Nothing failed: it was not tried.
                DialError::AddressDenied { .. } => (Reason::AddressDenied, None),
                DialError::Connect { .. } => (Reason::UpstreamConnect, Some(Phase::Connect)),
                DialError::Timeout { .. } => (Reason::UpstreamTimeout, Some(Phase::Connect)),
            };
            phase.into_iter().for_each(|phase| metrics.failed(phase));
            Refusal::new(reason, first_line(&error.to_string()))
        })?;
        if let Some(resolving) = connected.resolving {
            metrics.took(Phase::Dns, resolving);
        }
        metrics.took(Phase::Connect, connected.connecting);
        let (stream, tls) = match to.scheme {
            Scheme::Http => (Stream::Plain(connected.stream), None),
            Scheme::Https => {
                approach.enter(Phase::Tls);
                let before = Instant::now();
                let handshake = self.handshake(connected.stream, to, config).await;
                let tls = handshake.inspect_err(|_| metrics.failed(Phase::Tls))?;
                let took = before.elapsed();
                metrics.took(Phase::Tls, took);
                if tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                    metrics.handshakes.upstream_resumed.inc();
                }
                (Stream::Tls(Box::new(tls)), Some(took))
            }
        };
        let (dns, connect, ended) = (connected.resolving, connected.connecting, Instant::now());
        approach.dialled_as(Dialled { began, dns, connect, tls, ended });
        let address = connected.address;
        let is_inside = Guard::tenant(Vec::new(), None).check(address.ip()).is_err();
        Ok(Opened { stream, peer: Peer { address, is_inside } })
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        to: &Destination,
        config: &Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, Refusal> {
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::new(Reason::UpstreamTls, format!("the TLS handshake with {} failed: {error}", to.host))
        };
        let name = match &to.host {
            Host::Name(name) => {
                ServerName::try_from(name.as_str().to_owned()).map_err(|error| failed(&error))?
            }
            Host::Ip(ip) => ServerName::from(*ip),
        };
        match tokio::time::timeout(TLS_TIMEOUT, TlsConnector::from(Arc::clone(config)).connect(name, tcp))
            .await
        {
            Ok(Ok(tls)) => Ok(tls),
            Ok(Err(error)) if speaks_none_of_ours(&error) => {
                let ours = config.alpn_protocols.iter().map(|name| String::from_utf8_lossy(name));
                let message = format!("{} speaks none of {}", to.host, ours.collect::<Vec<_>>().join(", "));
                Err(Refusal::new(Reason::UpstreamProtocol, message))
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(Refusal::new(
                Reason::UpstreamTimeout,
                format!("the TLS handshake with {} took longer than {} s", to.host, TLS_TIMEOUT.as_secs()),
            )),
        }
    }
}

/// Whether the server says so (RFC 7301 section 3.2): to an upgrade, one that speaks HTTP/2 alone.
fn speaks_none_of_ours(error: &std::io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
}

/// A connection of its own for one upgrade: HTTP/1.1 only, as an `Upgrade` needs it (invariant 9).
pub(crate) async fn upgradeable(
    connector: &Connector,
    to: &Destination,
    exempt: &[IpNet],
    approach: &Approach,
) -> Result<(http1::SendRequest<RequestBody>, Peer), Refusal> {
    let Opened { stream, peer } = connector.open(to, exempt, connector.tls.http1_only(), approach).await?;
    let sender = match stream {
        Stream::Plain(tcp) => http1(tcp).await?,
        Stream::Tls(tls) => http1(*tls).await?,
    };
    Ok((sender, peer))
}

async fn http1<IO>(io: IO) -> Result<http1::SendRequest<RequestBody>, Refusal>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(io));
    let (sender, connection) = handshake.await.map_err(|error| protocol(&error))?;
    tokio::spawn(async move {
        // The request that it carried reports the error.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

async fn http2<IO>(io: IO) -> Result<http2::SendRequest<RequestBody>, Refusal>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(30))
        .max_header_list_size(MAX_HEADER_LIST)
        .handshake(TokioIo::new(io));
    let (sender, connection) = handshake.await.map_err(|error| protocol(&error))?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

fn protocol(error: &hyper::Error) -> Refusal {
    Refusal::new(Reason::UpstreamProtocol, format!("the upstream does not speak HTTP: {error}"))
}

/// Errors of `dial` may have a `hint:` line; a refusal's hint comes from its reason.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
