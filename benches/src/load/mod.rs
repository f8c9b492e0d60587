//! The load: clients that ask through a proxy, or straight, each its next request when the last is answered.

mod connection;
mod outcome;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use http_body::{Body, Frame, SizeHint};
use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::task::JoinSet;

use crate::process;
use crate::tls::{self, Protocol, TlsSetupError};
use crate::upstream::Payload;

use connection::{Connection, ExchangeError};
use outcome::Books;
pub use outcome::Outcome;

/// How long a run may take beyond its own time.
const GRACE: Duration = Duration::from_secs(10);
/// The longest time that is told from a longer one, in microseconds.
const SLOWEST: u64 = 60_000_000;

/// Sends load and prints what came of it, in JSON; the first error ends it
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The proxy; without it, the load goes straight to the upstream
    #[arg(long)]
    pub proxy: Option<SocketAddr>,
    /// Authorities to trust, in PEM
    #[arg(long = "root", required = true)]
    pub roots: Vec<PathBuf>,
    /// The name to ask for; with `--shape cold`, `*` in it counts up
    #[arg(long)]
    pub host: String,
    /// The upstream's port
    #[arg(long)]
    pub port: u16,
    /// The path to ask for
    #[arg(long)]
    pub path: String,
    /// What goes into the Authorization header
    #[arg(long)]
    pub authorization: Option<String>,
    /// A file to send as JSON
    #[arg(long, conflicts_with = "upload")]
    pub body: Option<PathBuf>,
    /// So many bytes to send
    #[arg(long)]
    pub upload: Option<u64>,
    /// What to speak
    #[arg(long, value_enum, default_value = "h1")]
    pub protocol: Protocol,
    /// How connections are used
    #[arg(long, value_enum, default_value = "keep-alive")]
    pub shape: Shape,
    /// Clients at once
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Requests at once on each connection, over HTTP/2
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Milliseconds before anything counts
    #[arg(long, default_value_t = 300)]
    pub warm_up: u64,
    /// Milliseconds that count
    #[arg(long, default_value_t = 1000)]
    pub duration: u64,
    /// A process whose work is to be read, with its children
    #[arg(long)]
    pub watch: Option<u32>,
    /// Another process that takes part; what neither it nor we use is somebody else's work
    #[arg(long)]
    pub beside: Option<u32>,
}

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Each client keeps one.
    KeepAlive,
    /// A new one for each request.
    Tunnel,
    /// A new one for each request, to a name that nobody has asked for.
    Cold,
    /// All are opened, used once and kept.
    Idle,
}

/// Why a run has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// TLS, or the files for it.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// An option that makes no request.
    #[error("no request can be made of this: {0}")]
    Request(#[from] http::Error),
    /// The file to send.
    #[error("{} cannot be read: {source}", path.display())]
    Body {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A request.
    #[error("client {client}: {source}")]
    Exchange {
        /// Which client.
        client: usize,
        /// What went wrong.
        source: ExchangeError,
    },
    /// The watched process.
    #[error("the process cannot be watched: {0}")]
    Watch(std::io::Error),
    /// Nothing to report.
    #[error("no request was answered in the time")]
    Nothing,
    /// It took far too long.
    #[error("the run did not end in its time")]
    TooLong,
}

/// Runs one load.
pub async fn run(options: Options) -> Result<Outcome, LoadError> {
    let limit = Duration::from_millis(options.warm_up + options.duration) + GRACE;
    tokio::time::timeout(limit, whole_run(options)).await.unwrap_or(Err(LoadError::TooLong))
}

async fn whole_run(options: Options) -> Result<Outcome, LoadError> {
    let shared = Arc::new(Shared::new(options)?);
    if shared.options.shape == Shape::Idle {
        return idle(&shared).await;
    }
    let mut clients = JoinSet::new();
    for client in 0..shared.options.connections {
        clients.spawn(client_loop(Arc::clone(&shared), client));
    }
    let outcome = tokio::select! {
        outcome = measure(&shared) => outcome?,
        Some(error) = first_error(&mut clients) => return Err(error),
    };
    // They see that it is over after their next answer. One in the middle of a large body is cut off.
    let ending = tokio::time::timeout(Duration::from_millis(200), first_error(&mut clients));
    match ending.await {
        Ok(Some(error)) => Err(error),
        Ok(None) | Err(_) => Ok(outcome),
    }
}

/// The first error; none if all of them end well.
async fn first_error(tasks: &mut JoinSet<Result<(), LoadError>>) -> Option<LoadError> {
    while let Some(ended) = tasks.join_next().await {
        if let Ok(Err(error)) = ended {
            return Some(error);
        }
    }
    None
}

async fn measure(shared: &Shared) -> Result<Outcome, LoadError> {
    let (warm_up, duration) = (shared.options.warm_up, shared.options.duration);
    tokio::time::sleep(Duration::from_millis(warm_up)).await;
    if let Some(pid) = shared.options.watch {
        process::reset_peak(pid).map_err(LoadError::Watch)?;
    }
    let before = Books::read(&shared.options).map_err(LoadError::Watch)?;
    shared.meter.phase.store(MEASURED, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(duration)).await;
    shared.meter.phase.store(OVER, Ordering::Relaxed);
    let after = Books::read(&shared.options).map_err(LoadError::Watch)?;
    let latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = shared.meter.bytes.load(Ordering::Relaxed);
    if latencies.is_empty() && bytes == 0 {
        return Err(LoadError::Nothing);
    }
    Ok(Outcome::new(&latencies, bytes, &before, &after))
}

/// Opens them all and asks how much memory they hold.
async fn idle(shared: &Arc<Shared>) -> Result<Outcome, LoadError> {
    // The first client pays for what is made once.
    let mut open = vec![shared.open_and_ask(0).await?];
    let before = Books::read(&shared.options).map_err(LoadError::Watch)?;
    for client in 1..=shared.options.connections {
        open.push(shared.open_and_ask(client).await?);
    }
    let after = Books::read(&shared.options).map_err(LoadError::Watch)?;
    let latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = Outcome::new(&latencies, 0, &before, &after);
    drop(open);
    Ok(outcome)
}

/// A meter begins at 0, which is neither.
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// Bytes of bodies, in both directions, while they count: a large body does not end when the time does.
#[derive(Debug, Default)]
struct Meter {
    phase: AtomicU8,
    bytes: AtomicU64,
}

impl Meter {
    fn counts(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == MEASURED
    }

    fn add(&self, bytes: usize) {
        if self.counts() {
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// A request body, counted as it leaves.
#[derive(Debug)]
struct Metered {
    body: Payload,
    meter: Arc<Meter>,
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.meter.add(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What all clients of a run share.
struct Shared {
    options: Options,
    tls: Arc<ClientConfig>,
    headers: HeaderMap,
    body: Payload,
    uri: Uri,
    meter: Arc<Meter>,
    /// Microseconds from the beginning of a request to the end of its answer.
    latencies: Mutex<Histogram<u64>>,
    /// Names used so far, and where they begin: another run must not have used them.
    names: AtomicU64,
}

impl Shared {
    fn new(options: Options) -> Result<Self, LoadError> {
        // A sandbox runs many short-lived programs; none of them remembers a session.
        let tls = tls::client(&options.roots, &[options.protocol], Resumption::disabled())?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("keyferry-bench"));
        if let Some(text) = &options.authorization {
            headers.insert(AUTHORIZATION, HeaderValue::try_from(text).map_err(http::Error::from)?);
        }
        let body = match (&options.body, options.upload) {
            (Some(path), _) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                let body = std::fs::read(path);
                Payload::whole(body.map_err(|source| LoadError::Body { path: path.clone(), source })?)
            }
            (None, Some(length)) => Payload::of_length(length),
            (None, None) => Payload::default(),
        };
        let uri = options.path.parse::<Uri>().map_err(http::Error::from)?;
        Ok(Self {
            options,
            tls,
            headers,
            body,
            uri,
            meter: Arc::default(),
            latencies: Mutex::new(
                Histogram::new_with_bounds(1, SLOWEST, 3).expect("bounds that it can have"),
            ),
            names: AtomicU64::new(u64::from(std::process::id()) * 1_000_000),
        })
    }

    fn host(&self) -> String {
        match self.options.shape {
            Shape::Cold => {
                let number = self.names.fetch_add(1, Ordering::Relaxed);
                self.options.host.replace('*', &format!("n{number}"))
            }
            Shape::KeepAlive | Shape::Tunnel | Shape::Idle => self.options.host.clone(),
        }
    }

    async fn open(&self, client: usize) -> Result<Connection, LoadError> {
        let host = self.host();
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, self.options.port));
        let opened = Connection::open(
            self.options.proxy,
            upstream,
            &host,
            Arc::clone(&self.tls),
            self.options.protocol,
        );
        opened.await.map_err(|source| LoadError::Exchange { client, source })
    }

    async fn open_and_ask(&self, client: usize) -> Result<Connection, LoadError> {
        let mut connection = self.open(client).await?;
        self.ask(&mut connection, client, Instant::now()).await?;
        Ok(connection)
    }

    async fn ask(&self, connection: &mut Connection, client: usize, began: Instant) -> Result<(), LoadError> {
        let mut request =
            http::Request::new(Metered { body: self.body.clone(), meter: Arc::clone(&self.meter) });
        *request.method_mut() = if self.body.is_end_stream() { Method::GET } else { Method::POST };
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        let asked = connection.ask(request, &self.meter).await;
        asked.map_err(|source| LoadError::Exchange { client, source })?;
        if self.meter.counts() || self.options.shape == Shape::Idle {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.meter.phase.load(Ordering::Relaxed) == OVER
    }
}

async fn client_loop(shared: Arc<Shared>, client: usize) -> Result<(), LoadError> {
    if shared.options.shape != Shape::KeepAlive {
        while !shared.is_over() {
            let began = Instant::now();
            let mut connection = shared.open(client).await?;
            shared.ask(&mut connection, client, began).await?;
            connection.close().await;
        }
        return Ok(());
    }
    let connection = shared.open(client).await?;
    let mut streams = JoinSet::new();
    for _ in 1..shared.options.streams {
        streams.spawn(stream_loop(Arc::clone(&shared), connection.share(), client));
    }
    streams.spawn(stream_loop(shared, connection, client));
    first_error(&mut streams).await.map_or(Ok(()), Err)
}

async fn stream_loop(
    shared: Arc<Shared>,
    mut connection: Connection,
    client: usize,
) -> Result<(), LoadError> {
    while !shared.is_over() {
        shared.ask(&mut connection, client, Instant::now()).await?;
    }
    Ok(())
}
