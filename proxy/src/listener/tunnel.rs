//! The tunnel listener: CONNECT, and absolute-form HTTP, on one port.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use keyferry_config::policy::{Host, Reason, Refusal, RuleName, TunnelVerdict};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::admission::{Admitted, Entry};
use super::{Bound, inside, serve_h1};
use crate::audit::{Mode, Target};
use crate::body::ResponseBody;
use crate::data_plane::DataPlane;
use crate::exchange::exchange;
use crate::guard::Fault;
use crate::guard::request::{absolute_form, connect_target};
use crate::identity::{Caller, Peer, Stranger};
use crate::principal::Principal;
use crate::refusal;
use crate::session::{Route, Session, Tunnel};
use crate::trace::Context;

/// How long accepting pauses when the process is out of descriptors.
pub(super) const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Accepts connections until the listener is closed or draining begins.
pub(crate) async fn accept(plane: Arc<DataPlane>, bound: Bound, closed: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            () = plane.drain.begun() => return,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok((tcp, remote)) => {
                // Without it the last bytes of each response wait for an acknowledgement.
                let _ = tcp.set_nodelay(true);
                admit(&plane, tcp, Peer::At(remote));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// Serves a connection, or says that it is one too many.
pub(super) fn admit<IO>(plane: &Arc<DataPlane>, io: IO, peer: Peer)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connections = &plane.telemetry.metrics.connections;
    match plane.admission.enter((&peer).into()) {
        Entry::Admitted(admitted) => {
            connections.accepted.inc();
            plane.drain.spawn(serve(Arc::clone(plane), io, peer, Arc::new(admitted)));
        }
        Entry::Refused(admitted, refusal) => {
            connections.refused.inc();
            plane.drain.spawn(turn_away(Arc::clone(plane), io, peer, admitted, refusal));
        }
        Entry::Dropped => connections.dropped.inc(),
    }
}

/// A tunnel keeps its connection's `admitted`.
async fn serve<IO>(plane: Arc<DataPlane>, io: IO, peer: Peer, admitted: Arc<Admitted>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let result = serve_h1(io, true, ending(&plane, &peer), |arrival| {
        let session = Session::of(&plane, &peer);
        let (peer, admitted) = (peer.clone(), Arc::clone(&admitted));
        async move {
            match arrival {
                Ok(request) => answer(session, &peer, request, admitted).await,
                Err(fault) => session.refuse_fault(fault, None, None),
            }
        }
    });
    if let Err(error) = result.await {
        tracing::debug!(%error, %peer, "a connection of a client ended with an error");
    }
}

/// Completes when a connection should end: when the proxy does, or the sandbox whose it is.
async fn ending(plane: &DataPlane, peer: &Peer) {
    match peer {
        Peer::At(_) => plane.drain.begun().await,
        Peer::Sandbox(sandbox) => tokio::select! {
            () = plane.drain.begun() => {}
            () = sandbox.ended() => {}
        },
    }
}

/// Answers what a connection asks for that is one too many.
async fn turn_away<IO>(plane: Arc<DataPlane>, io: IO, peer: Peer, _counted: Admitted, refusal: Refusal)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answered = serve_h1(io, true, ending(&plane, &peer), |arrival| {
        let session = Session::of(&plane, &peer);
        let method = arrival.ok().map(|request| request.method().clone());
        let fault = Fault { refusal: refusal.clone(), method };
        async move {
            let mut response = session.refuse_fault(fault, None, None);
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    });
    // Whether it waits for the answer is its own affair.
    let _ = answered.await;
}

/// One request to the proxy itself.
async fn answer(
    mut session: Session,
    peer: &Peer,
    request: Request<Incoming>,
    admitted: Arc<Admitted>,
) -> Response<ResponseBody> {
    let caller = match peer {
        Peer::At(remote) => session.plane.identity.of(request.headers(), remote.ip()),
        // Whatever it shows beside, it is who it is.
        Peer::Sandbox(sandbox) => sandbox.caller(),
    };
    match caller {
        Ok(Caller { principal, sandbox }) => (session.principal, session.sandbox) = (principal, sandbox),
        Err(Stranger { refusal, wait }) => {
            if !wait.is_zero() {
                Box::pin(tokio::time::sleep(wait)).await;
            }
            return refuse(&session, &refusal, &request.into_parts().0);
        }
    }
    if request.method() == Method::CONNECT {
        connect(session, request, admitted)
    } else {
        Box::pin(forward(&session, request)).await
    }
}

/// CONNECT: the tunnel is granted or refused by host and port; what flows inside is judged there.
fn connect(
    session: Session,
    mut request: Request<Incoming>,
    admitted: Arc<Admitted>,
) -> Response<ResponseBody> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let granted = connect_target(&parts).and_then(|(host, port)| {
        let rule = decide(&session.principal, &host, port)?;
        Ok((host, port, rule))
    });
    let (host, port, rule) = match granted {
        Ok(granted) => granted,
        Err(refusal) => return refuse(&session, &refusal, &parts),
    };
    let plane = Arc::clone(&session.plane);
    let principal = Arc::clone(&session.principal);
    let generation = principal.generation.load_full();
    let mut recorder = match session.recorder(&generation, &parts, None) {
        Ok(recorder) => recorder,
        Err(refusal) => return refusal::respond_unrecorded(&refusal),
    };
    recorder.entry().mode = Mode::Tunnel;
    recorder.entry().target = Target::Tunnel(host.clone(), port);
    recorder.entry().rule = rule;
    recorder.entry().status = Some(StatusCode::OK.as_u16());
    let client = Context::of(&parts.headers);
    recorder.entry().trace_id = client.map(|client| client.trace);
    let tunnel = Tunnel::new(session, host, port, recorder, client.as_ref());
    // Again, now that the tunnel is entered: a policy that came in between has judged what was entered before.
    if let Err(refusal) = decide(&principal, &tunnel.host, tunnel.port) {
        return tunnel.refuse(&refusal);
    }
    if tunnel.session.has_ended() {
        return tunnel.refuse(&Refusal::new(Reason::ProxyAuthRequired, "the sandbox has ended"));
    }
    plane.drain.spawn(async move {
        // It fails if the client leaves before it has read our answer.
        if let Ok(upgraded) = upgrade.await {
            inside::run(tunnel, upgraded).await;
        }
        drop(admitted);
    });
    Response::new(ResponseBody::own(Bytes::new(), None))
}

fn decide(principal: &Principal, host: &Host, port: u16) -> Result<Option<RuleName>, Refusal> {
    match principal.generation.load().policy.decide_tunnel(host, port) {
        TunnelVerdict::Open(rule) => Ok(rule),
        TunnelVerdict::Refuse(refusal) => Err(refusal),
    }
}

/// An absolute-form request: HTTP in cleartext.
async fn forward(session: &Session, request: Request<Incoming>) -> Response<ResponseBody> {
    let (parts, body) = request.into_parts();
    let route =
        absolute_form(&parts).and_then(|destination| Route::new(destination, Arc::clone(&session.principal)));
    match route {
        Ok(route) => exchange(session, &route, None, Request::from_parts(parts, body)).await,
        Err(refusal) => refuse(session, &refusal, &parts),
    }
}

/// Refuses a request to the proxy itself. Its record names the target as far as it can be read.
fn refuse(session: &Session, refusal: &Refusal, parts: &Parts) -> Response<ResponseBody> {
    let mut recorder = match session.recorder(&session.principal.generation.load(), parts, None) {
        Ok(recorder) => recorder,
        Err(refusal) => return refusal::respond_unrecorded(&refusal),
    };
    recorder.entry().trace_id = Context::of(&parts.headers).map(|client| client.trace);
    if parts.method == Method::CONNECT {
        recorder.entry().mode = Mode::Tunnel;
        if let Ok((host, port)) = connect_target(parts) {
            recorder.entry().target = Target::Tunnel(host, port);
        }
    } else if let Ok(destination) = absolute_form(parts) {
        recorder.entry().target = Target::Destination(Arc::new(destination));
    }
    refusal::respond(refusal, recorder)
}
