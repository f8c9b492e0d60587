//! What flows through a granted tunnel: TLS, or HTTP in cleartext, and nothing else (T21).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use keyferry_config::policy::{Destination, Reason, Refusal, Scheme};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::prefixed::Prefixed;
use super::progress::Progress;
use super::{Arrival, serve_h1, serve_h2};
use crate::exchange::exchange;
use crate::guard::Wire;
use crate::session::{Around, Route, Tunnel};
use crate::tls::client_hello::{self, Accepted};

/// From the answer to CONNECT to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

// Each phase of a tunnel is boxed: it lives in one allocation of its own size, and the phases before it are gone when it runs. So is the
// tunnel itself, of which each would have room for two.

/// Serves a tunnel until it ends, is drained, or a new policy closes it.
pub(super) async fn run(tunnel: Box<Tunnel>, upgraded: Upgraded) {
    let open = Arc::clone(&tunnel.open);
    tokio::select! {
        () = unwrap(tunnel, upgraded) => {}
        () = open.closed() => {}
    }
}

async fn unwrap(tunnel: Box<Tunnel>, upgraded: Upgraded) {
    // The raw connection is faster than the `Upgraded` around it.
    let upgraded = match raw::<TcpStream>(upgraded) {
        Ok(io) => return Box::pin(inspect(tunnel, io)).await,
        Err(upgraded) => upgraded,
    };
    match raw::<UnixStream>(upgraded) {
        Ok(io) => Box::pin(inspect(tunnel, io)).await,
        Err(upgraded) => Box::pin(inspect(tunnel, Prefixed::new(Bytes::new(), TokioIo::new(upgraded)))).await,
    }
}

/// The connection itself, if it is one of these.
fn raw<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    upgraded: Upgraded,
) -> Result<Prefixed<IO>, Upgraded> {
    let parts = upgraded.downcast::<TokioIo<Wire<Progress<IO>>>>()?;
    // The guard held back what came behind the CONNECT, so hyper's buffer is empty: not to be kept with the tunnel.
    drop(parts.read_buf);
    let (held, io) = parts.io.into_inner().into_inner();
    Ok(Prefixed::new(held.freeze(), io.into_inner()))
}

async fn inspect<IO>(tunnel: Box<Tunnel>, io: Prefixed<IO>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let plane = Arc::clone(&tunnel.session.plane);
    let handshakes = &plane.telemetry.metrics.handshakes;
    let opened = tokio::select! {
        opened = tokio::time::timeout(HANDSHAKE, Box::pin(open(&tunnel, io))) => opened.unwrap_or_else(|_| {
            handshakes.failed.inc();
            let message = format!("the TLS handshake took longer than {} s", HANDSHAKE.as_secs());
            Opened::Failed(Refusal::new(Reason::RequestTimeout, message), None)
        }),
        () = plane.drain.begun() => Opened::Nothing,
    };
    match opened {
        Opened::Tls(accepted) => {
            let Accepted { stream, sni, is_h2 } = *accepted;
            Box::pin(serve(tunnel, Scheme::Https, sni, stream, is_h2)).await;
        }
        Opened::Plain(io) => Box::pin(serve(tunnel, Scheme::Http, None, io, false)).await,
        Opened::Failed(refusal, sni) => tunnel.fail(&refusal, sni.as_deref()),
        Opened::Nothing => {}
    }
}

enum Opened<IO> {
    /// Boxed: a TLS connection is over a kilobyte, and would be moved about with every state around it.
    Tls(Box<Accepted<Prefixed<IO>>>),
    Plain(Prefixed<IO>),
    Failed(Refusal, Option<String>),
    Nothing,
}

async fn open<IO>(tunnel: &Tunnel, mut io: Prefixed<IO>) -> Opened<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// The record type of a handshake (RFC 8446 section 5.1).
    const TLS_HANDSHAKE: u8 = 22;
    match io.peek().await {
        Ok(Some(TLS_HANDSHAKE)) => {
            let handshakes = &tunnel.session.plane.telemetry.metrics.handshakes;
            let leafs = Arc::clone(&tunnel.session.principal.generation.load().leafs);
            match client_hello::accept(&leafs, &tunnel.host, io).await {
                Ok(accepted) => {
                    handshakes.ok.inc();
                    if accepted.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                        handshakes.client_resumed.inc();
                    }
                    Opened::Tls(Box::new(accepted))
                }
                Err(failed) => {
                    handshakes.failed.inc();
                    Opened::Failed(failed.refusal, failed.sni)
                }
            }
        }
        Ok(Some(b'A'..=b'Z')) => Opened::Plain(io),
        Ok(Some(_)) => {
            let refusal = Refusal::new(Reason::MalformedRequest, "the tunnel carries neither TLS nor HTTP");
            Opened::Failed(refusal, None)
        }
        Ok(None) | Err(_) => Opened::Nothing,
    }
}

async fn serve<IO>(tunnel: Box<Tunnel>, scheme: Scheme, sni: Option<Arc<str>>, io: IO, is_h2: bool)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let plane = Arc::clone(&tunnel.session.plane);
    let destination = Destination { scheme, host: tunnel.host.clone(), port: tunnel.port };
    let principal = Arc::clone(&tunnel.session.principal);
    let route = match Route::new(destination, principal) {
        Ok(route) => route,
        Err(refusal) => return tunnel.fail(&refusal, sni.as_deref()),
    };
    let inside = Arc::new((tunnel, route, sni));
    let serve = |arrival: Arrival| {
        let inside = Arc::clone(&inside);
        async move {
            let (tunnel, route, sni) = &*inside;
            let around = Some(Around { tunnel, sni: sni.as_ref() });
            match arrival {
                Ok(request) => exchange(&tunnel.session, route, around, request).await,
                Err(fault) => tunnel.session.refuse_fault(fault, Some(route), around),
            }
        }
    };
    let ended = if is_h2 {
        Box::pin(serve_h2(&plane, io, serve)).await
    } else {
        Box::pin(serve_h1(io, false, plane.drain.begun(), serve)).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, target = &*inside.0.target, "a tunnel ended with an error");
    }
}
