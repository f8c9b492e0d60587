//! Connections and their limits: how many, and how long each may take to say what it wants (T32).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::Door;

/// What one caller may take of everybody's.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all; a stream of a proxy is one. Others wait for one to end.
    pub connections: usize,
    /// Connections from one address; more are closed at once.
    pub connections_of_one: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take, and how long a connection may be idle before it.
    pub head: Duration,
    /// How long the body of a request may take.
    pub body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_of_one: 2048,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(20),
            body: Duration::from_secs(30),
        }
    }
}

/// How a request came here; an extension of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// From where; nowhere for a Unix socket, which its owner alone may use.
    pub(crate) peer: Option<IpAddr>,
    /// How long its body may take.
    pub(crate) body: Duration,
}

const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// A token and an ETag are short.
const LONGEST_HEAD: usize = 64 * 1024;

pub(super) async fn serve(
    door: Door,
    router: Router,
    limits: Limits,
    ended: impl Future<Output = ()> + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let crowd = Crowd::default();
    let (ending, heard) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut ended = std::pin::pin!(ended);
    loop {
        let arrived = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(&door).await)
        };
        let (place, (socket, peer)) = tokio::select! {
            arrived = arrived => arrived,
            () = &mut ended => break,
        };
        while open.try_join_next().is_some() {}
        let Some(member) = crowd.join(peer, limits.connections_of_one) else { continue };
        let (router, heard) = (router.clone(), heard.clone());
        let arrival = Arrival { peer, body: limits.body };
        let tls = match &door {
            Door::Tls(_, acceptor) => Some(acceptor.clone()),
            Door::Tcp(_) | Door::Unix(_) | Door::Owner(_) => None,
        };
        open.spawn(async move {
            let _held = (place, member);
            match (socket, tls) {
                (Socket::Tcp(socket), Some(acceptor)) => {
                    let handshake = tokio::time::timeout(limits.handshake, acceptor.accept(socket));
                    if let Ok(Ok(stream)) = handshake.await {
                        converse(stream, router, arrival, limits.head, heard).await;
                    }
                }
                (Socket::Tcp(socket), None) => converse(socket, router, arrival, limits.head, heard).await,
                (Socket::Unix(socket), _) => converse(socket, router, arrival, limits.head, heard).await,
            }
        });
    }
    drop(door);
    let _ = ending.send(true);
    let _ = tokio::time::timeout(LAST_REQUESTS, async { while open.join_next().await.is_some() {} }).await;
}

/// All requests of one connection.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    arrival: Arrival,
    head: Duration,
    mut ending: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(arrival);
        let answered = router.clone().oneshot(request);
        async move { Ok::<Response<Body>, Infallible>(answered.await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(LONGEST_HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // What a connection ends with is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What goes wrong with one connection, or for lack of descriptors, ends nothing.
async fn accept(door: &Door) -> (Socket, Option<IpAddr>) {
    loop {
        let accepted = match door {
            Door::Tcp(listener) | Door::Tls(listener, _) => listener.accept().await.map(|(socket, peer)| {
                // Events are small and wanted at once.
                let _ = socket.set_nodelay(true);
                (Socket::Tcp(socket), Some(peer.ip().to_canonical()))
            }),
            Door::Unix(listener) => listener.accept().await.map(|(socket, _)| (Socket::Unix(socket), None)),
            Door::Owner(listener) => match listener.accept().await {
                Ok((socket, _)) if !is_ours(&socket) => {
                    tracing::warn!("another user connected to the owner's socket and was turned away");
                    continue;
                }
                accepted => accepted.map(|(socket, _)| (Socket::Unix(socket), None)),
            },
        };
        match accepted {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// By what the kernel says of its other end.
fn is_ours(socket: &UnixStream) -> bool {
    socket.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it is dropped.
struct Member {
    of: Crowd,
    peer: Option<IpAddr>,
}

impl Crowd {
    fn join(&self, peer: Option<IpAddr>, most: usize) -> Option<Member> {
        if let Some(peer) = peer {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(peer).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
        }
        Some(Member { of: self.clone(), peer })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&peer);
            }
        }
    }
}
