//! A TLS service on loopback that answers for every name: what a demonstration calls, and what `keyferry doctor` lets clients call.

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keyferry_config::policy::Host;
use keyferry_proxy::tls::{Authority, LeafCache, LeafSettings};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

use crate::failure::Failure;

/// Starts it with certificates of this authority; the port that it listens on. It ends with the runtime.
pub(crate) async fn start<A, F, B>(certificate: &Path, key: &Path, answer: A) -> Result<u16, Failure>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let authority = Authority::load(certificate, key).map_err(Failure::fatal)?;
    let settings = LeafSettings { capacity: 64, lifetime: Duration::from_secs(24 * 3600) };
    let leafs = Arc::new(LeafCache::new(authority, settings).map_err(Failure::fatal)?);
    let failure =
        |error: std::io::Error| Failure::fatal(format!("the service cannot listen on loopback: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failure)?;
    let port = listener.local_addr().map_err(failure)?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that fails shows as a request that did not arrive.
            tokio::spawn(serve(stream, Arc::clone(&leafs), answer.clone()));
        }
    });
    Ok(port)
}

async fn serve<A, F, B>(stream: TcpStream, leafs: Arc<LeafCache>, answer: A) -> Option<()>
where
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.ok()?;
    let host: Host = start.client_hello().server_name()?.parse().ok()?;
    let config = leafs.server_config(&host).await.ok()?;
    let stream = start.into_stream(config).await.ok()?;
    let answer = service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await.ok()
}
