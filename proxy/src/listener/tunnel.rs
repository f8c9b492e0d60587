//! The tunnel listener: CONNECT, and absolute-form HTTP, on one port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use keyferry_config::policy::{Destination, Reason, Refusal, Scheme, TunnelVerdict};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::prefixed::Prefixed;
use super::{Arrival, Bound, serve_h1, serve_h2};
use crate::audit::{Mode, Target};
use crate::body::ResponseBody;
use crate::data_plane::DataPlane;
use crate::exchange::exchange;
use crate::guard::Wire;
use crate::guard::request::{absolute_form, connect_target};
use crate::refusal;
use crate::session::{Around, Route, Session, Tunnel};
use crate::tls::client_hello;

/// From the answer to CONNECT to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long accepting pauses when the process is out of descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Accepts connections until draining begins.
pub(crate) async fn accept(plane: Arc<DataPlane>, bound: Bound) {
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            () = plane.drain.begun() => return,
        };
        match accepted {
            Ok((tcp, remote)) => {
                // Without it the last bytes of each response wait for an acknowledgement.
                let _ = tcp.set_nodelay(true);
                plane.drain.spawn(serve(Arc::clone(&plane), tcp, remote));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

async fn serve(plane: Arc<DataPlane>, tcp: TcpStream, remote: SocketAddr) {
    let result = serve_h1(&plane, tcp, true, |arrival| {
        let session = Session { plane: Arc::clone(&plane), remote, principal: plane.identity.nobody() };
        async {
            match arrival {
                Ok(request) => outer(session, request).await,
                Err(fault) => session.refuse_fault(fault, None, None),
            }
        }
    });
    if let Err(error) = result.await {
        tracing::debug!(%error, %remote, "a connection to the tunnel listener ended with an error");
    }
}

/// One request to the proxy itself.
async fn outer(mut session: Session, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let (principal, refusal) = match session.plane.identity.of(&parts.headers) {
        Ok(principal) => (principal, None),
        Err(refusal) => (session.plane.identity.nobody(), Some(refusal)),
    };
    session.principal = principal;
    if parts.method != Method::CONNECT && refusal.is_none() {
        let destination = absolute_form(&parts);
        request = Request::from_parts(parts, body);
        return plain(&session, destination, request).await;
    }
    let mut recorder = match session.recorder(&parts, None) {
        Ok(recorder) => recorder,
        Err(refusal) => return refusal::respond_unrecorded(&refusal),
    };
    recorder.entry().mode = Mode::Tunnel;
    let target = connect_target(&parts);
    if let Ok((host, port)) = &target
        && parts.method == Method::CONNECT
    {
        recorder.entry().target = Target::Tunnel(host.clone(), *port);
    }
    let granted = match refusal {
        Some(refusal) => Err(refusal),
        None => target.and_then(|(host, port)| {
            let policy = &session.plane.generation.load().policy;
            match policy.decide_tunnel(&host, port) {
                TunnelVerdict::Open(rule) => Ok((host, port, rule)),
                TunnelVerdict::Refuse(refusal) => Err(refusal),
            }
        }),
    };
    let (host, port, rule) = match granted {
        Ok(granted) => granted,
        Err(refusal) => return refusal::respond(&refusal, recorder),
    };
    recorder.entry().rule = rule;
    recorder.entry().status = Some(StatusCode::OK.as_u16());
    let plane = Arc::clone(&session.plane);
    let tunnel = Tunnel::new(session, host, port, recorder);
    request = Request::from_parts(parts, body);
    let upgrade = hyper::upgrade::on(&mut request);
    plane.drain.spawn(async move {
        // It fails if the client leaves before it has read our answer.
        if let Ok(upgraded) = upgrade.await {
            run(tunnel, upgraded).await;
        }
    });
    Response::new(ResponseBody::own(Bytes::new(), None))
}

/// An absolute-form request: cleartext HTTP.
async fn plain(
    session: &Session,
    destination: Result<Destination, Refusal>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let plane = &session.plane;
    let generation = plane.generation.load_full();
    let route = destination
        .and_then(|destination| Route::new(plane, &generation, destination, Arc::clone(&session.principal)));
    match route {
        Ok(route) => exchange(session, &route, None, request).await,
        Err(refusal) => refuse(session, refusal, request),
    }
}

fn refuse(session: &Session, refusal: Refusal, request: Request<Incoming>) -> Response<ResponseBody> {
    match session.recorder(&request.into_parts().0, None) {
        Ok(recorder) => refusal::respond(&refusal, recorder),
        Err(refusal) => refusal::respond_unrecorded(&refusal),
    }
}

/// What flows through a granted tunnel: TLS, or HTTP in cleartext, and nothing else (T21).
async fn run(tunnel: Tunnel, upgraded: Upgraded) {
    // The raw connection is faster than the `Upgraded` around it.
    match upgraded.downcast::<TokioIo<Wire<TcpStream>>>() {
        Ok(parts) => {
            let (held, tcp) = parts.io.into_inner().into_inner();
            inspect(tunnel, Prefixed::new(held.freeze(), tcp)).await;
        }
        Err(upgraded) => inspect(tunnel, Prefixed::new(Bytes::new(), TokioIo::new(upgraded))).await,
    }
}

async fn inspect<IO>(tunnel: Tunnel, mut io: Prefixed<IO>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let plane = Arc::clone(&tunnel.session.plane);
    let handshake = tokio::time::timeout(HANDSHAKE, async {
        match io.peek().await {
            Ok(Some(0x16)) => match client_hello::accept(&plane.leafs, &tunnel.host, io).await {
                Ok(accepted) => Inside::Tls(Box::new(accepted)),
                Err(failed) => Inside::Failed(failed.refusal, failed.sni),
            },
            Ok(Some(b'A'..=b'Z')) => Inside::Plain(io),
            Ok(Some(_)) => {
                let refusal =
                    Refusal::new(Reason::MalformedRequest, "the tunnel carries neither TLS nor HTTP");
                Inside::Failed(refusal, None)
            }
            Ok(None) | Err(_) => Inside::Nothing,
        }
    });
    let inside = tokio::select! {
        inside = handshake => inside.unwrap_or_else(|_| {
            let message = format!("the TLS handshake took longer than {} s", HANDSHAKE.as_secs());
            Inside::Failed(Refusal::new(Reason::RequestTimeout, message), None)
        }),
        () = plane.drain.begun() => Inside::Nothing,
    };
    match inside {
        Inside::Tls(accepted) => {
            let client_hello::Accepted { stream, sni, is_h2 } = *accepted;
            serve_inside(tunnel, Scheme::Https, sni, stream, is_h2).await;
        }
        Inside::Plain(io) => serve_inside(tunnel, Scheme::Http, None, io, false).await,
        Inside::Failed(refusal, sni) => tunnel.fail(&refusal, sni.as_deref()),
        Inside::Nothing => {}
    }
}

enum Inside<IO> {
    /// Boxed: a TLS connection is over a kilobyte, and would be moved about with every state around it.
    Tls(Box<client_hello::Accepted<Prefixed<IO>>>),
    Plain(Prefixed<IO>),
    Failed(Refusal, Option<String>),
    Nothing,
}

async fn serve_inside<IO>(tunnel: Tunnel, scheme: Scheme, sni: Option<Arc<str>>, io: IO, is_h2: bool)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let plane = Arc::clone(&tunnel.session.plane);
    let destination = Destination { scheme, host: tunnel.host.clone(), port: tunnel.port };
    let generation = plane.generation.load_full();
    let route = match Route::new(&plane, &generation, destination, Arc::clone(&tunnel.session.principal)) {
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
    let ended = match is_h2 {
        true => serve_h2(&plane, io, serve).await,
        false => serve_h1(&plane, io, false, serve).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, target = &*inside.0.target, "a tunnel ended with an error");
    }
}
