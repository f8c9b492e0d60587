//! One document after the other, each as one generation: everything of it comes into force at once, or nothing does (invariant 11, T82).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use keyferry_config::document::{Action, Document, ListenAddr};
use keyferry_dial::OwnListeners;
use keyferry_source::{SecretValue, Sources};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::audit::{AuditStatus, RequestIds};
use crate::data_plane::DataPlane;
use crate::drain::Drain;
use crate::generation::{Builder, Fresh, variable};
use crate::identity::{Identity, Sockets, Who};
use crate::listener::{self, Admission, Bound};
use crate::management;
use crate::principal::{Ended, Principal};
use crate::start::{Configuration, Settings, StartError};
use crate::sync::{self, Enforcer, FileSide, Standing};
use crate::telemetry::Telemetry;

/// Puts documents in force. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Reloader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plane: Arc<DataPlane>,
    configuration: Arc<dyn Configuration>,
    status: ArcSwap<Status>,
    management_key: ArcSwapOption<SecretValue>,
    /// Held for the whole of a reload: one at a time.
    state: Mutex<State>,
    /// What speaks to the control service of a managed proxy.
    control: std::sync::Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct State {
    builder: Builder,
    listeners: HashMap<Listener, Open>,
    drain_timeout: Duration,
}

/// What a socket is for, and where the document puts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Listener {
    Tunnel(ListenAddr),
    Metrics(ListenAddr),
    Management(ListenAddr),
}

#[derive(Debug)]
struct Open {
    address: SocketAddr,
    closed: CancellationToken,
}

/// How the last reload went.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) generation: u64,
    /// When it came into force.
    pub(crate) applied: SystemTime,
    /// When a document was last read, and what was wrong with it.
    pub(crate) last_attempt: SystemTime,
    pub(crate) last_error: Option<String>,
}

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The generation that is in force now.
    pub generation: u64,
    /// Tunnels that the new policy does not grant.
    pub tunnels_closed: usize,
    /// Exchanges that it does not allow.
    pub exchanges_aborted: usize,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The document cannot be read or is wrong.
    #[error("{0}")]
    Document(String),
    /// Something that it names cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Reloader {
    pub(crate) async fn start(settings: Settings) -> Result<Self, StartError> {
        let Settings { document, configuration, environment, otlp, managed } = settings;
        if managed.is_some() {
            own_settings_only(&document)?;
        } else if document.control_plane.is_some() {
            tracing::warn!(
                "control_plane is set, but no address and token of a control service are given: this file is the policy"
            );
        }
        let own = OwnListeners::default();
        let telemetry = Arc::new(Telemetry::start(otlp.as_ref(), &own)?);
        let sources = Sources::new(environment);
        let fetches = sources.fetch_counts();
        let mut builder = Builder::new(sources, own, Arc::clone(&telemetry));
        let (fresh, candidate) = builder.build(&document).await?;
        let management_key = management_key(&builder, &document).await?;
        let sockets = managed.as_ref().and_then(|managed| managed.sandbox_sockets.as_deref());
        let (sockets, opened) = sockets.map(Sockets::within).transpose()?.unzip();
        let bound = bind_missing(&document, &HashMap::new())?;
        builder.commit(candidate);

        let now = SystemTime::now();
        let status = Status { generation: fresh.number, applied: now, last_attempt: now, last_error: None };
        let (identity, nobody, standing) = match &managed {
            None => {
                let local = Principal::new("local", fresh.generation());
                let who = Who::One(Arc::clone(&local), fresh.credentials.clone());
                (Arc::new(Identity::new(who)), local, None)
            }
            Some(_) => {
                let nobody = Enforcer::nobody(&fresh.base);
                let identity = Arc::new(Identity::new(Who::One(Arc::clone(&nobody), None)));
                let sources = Arc::clone(&builder.sources);
                let file = file_side(&document, fresh);
                let max_staleness = document.control_plane.clone().unwrap_or_default().max_staleness;
                let (known, somebody) = (Arc::clone(&identity), Arc::clone(&nobody));
                let enforcer = Enforcer::new(known, somebody, sources, file, max_staleness, sockets);
                (identity, nobody, Some(Arc::new(Standing::new(enforcer))))
            }
        };
        let plane = Arc::new(DataPlane {
            identity,
            nobody,
            control: standing,
            request_ids: RequestIds::new(),
            admission: Admission::default(),
            drain: Drain::default(),
            telemetry,
            fetches,
        });
        let state = State { builder, listeners: HashMap::new(), drain_timeout: document.proxy.drain_timeout };
        let shared = Shared {
            plane,
            configuration,
            status: ArcSwap::from_pointee(status),
            management_key: ArcSwapOption::empty(),
            state: Mutex::new(state),
            control: std::sync::Mutex::default(),
        };
        let reloader = Self(Arc::new(shared));
        let mut state = reloader.0.state.lock().await;
        reloader.0.management_key.store(management_key);
        reloader.listen(&mut state, &document, bound);
        if let Some(opened) = opened {
            let plane = &reloader.0.plane;
            plane.drain.spawn(listener::serve_sockets(Arc::clone(plane), opened));
        }
        if let (Some(mut options), Some(standing)) = (managed, &reloader.0.plane.control) {
            options.address = options.address.or_else(|| reachable(&state));
            // A control service is verified as upstreams are.
            let tls = Arc::clone(reloader.0.plane.nobody.generation.load().pool.connector().tls.http1_only());
            let tasks =
                sync::start(options, tls, &document.control_plane.clone().unwrap_or_default(), standing);
            *reloader.0.control.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        }
        drop(state);
        Ok(reloader)
    }

    /// How a managed proxy stands with its control service.
    pub(crate) fn standing(&self) -> Option<&Arc<Standing>> {
        self.0.plane.control.as_ref()
    }

    /// Where sandboxes are served.
    pub(crate) async fn tunnel_addresses(&self) -> Vec<SocketAddr> {
        let state = self.0.state.lock().await;
        let tunnels = state.listeners.iter().filter(|(listener, _)| matches!(listener, Listener::Tunnel(_)));
        tunnels.map(|(_, open)| open.address).collect()
    }

    /// Reads the document again and puts it in force: policy, secrets, listeners, authority, limits, audit log. A document that is wrong,
    /// or names something that cannot be opened, changes nothing.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let mut state = self.0.state.lock().await;
        let reloaded = self.try_reload(&mut state).await;
        // Whoever moves logs away asks for a reload, whatever the document is like.
        self.0.plane.nobody.generation.load().audit.look();
        let now = SystemTime::now();
        let before = self.0.status.load();
        let reloads = &self.0.plane.telemetry.metrics.reloads;
        if reloaded.is_ok() { &reloads.ok } else { &reloads.failed }.inc();
        let status = match &reloaded {
            Ok(reloaded) => {
                tracing::info!(
                    generation = reloaded.generation,
                    tunnels_closed = reloaded.tunnels_closed,
                    exchanges_aborted = reloaded.exchanges_aborted,
                    "a new configuration is in force"
                );
                Status { generation: reloaded.generation, applied: now, last_attempt: now, last_error: None }
            }
            Err(error) => {
                tracing::error!(%error, "the configuration could not be reloaded; the one before stays in force");
                Status { last_attempt: now, last_error: Some(error.to_string()), ..Status::clone(&before) }
            }
        };
        self.0.status.store(Arc::new(status));
        reloaded
    }

    pub(crate) fn plane(&self) -> &DataPlane {
        &self.0.plane
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        self.0.status.load_full()
    }

    /// How the audit log does.
    pub(crate) fn audit(&self) -> AuditStatus {
        self.0.plane.nobody.generation.load().audit.status()
    }

    pub(crate) fn management_key(&self) -> Option<Arc<SecretValue>> {
        self.0.management_key.load_full()
    }

    async fn try_reload(&self, state: &mut State) -> Result<Reloaded, ReloadError> {
        let document = self.0.configuration.load().map_err(ReloadError::Document)?;
        // Whoever asks for a reload has often just written a new value; one that fails keeps its old value.
        for error in state.builder.sources.refresh_all().await {
            tracing::warn!(%error, "a secret could not be read again");
        }
        if self.0.plane.control.is_some() {
            own_settings_only(&document)?;
        }
        let (fresh, candidate) = state.builder.build(&document).await?;
        let management_key = management_key(&state.builder, &document).await?;
        let bound = bind_missing(&document, &state.listeners)?;

        // Nothing can fail from here on.
        state.builder.commit(candidate);
        state.drain_timeout = document.proxy.drain_timeout;
        let number = fresh.number;
        let plane = &self.0.plane;
        let before = plane.nobody.generation.load_full();
        let ended = match &plane.control {
            None => {
                plane.nobody.put(fresh.generation());
                if let Who::One(_, credentials) = &mut *plane.identity.change() {
                    *credentials = fresh.credentials;
                }
                plane.nobody.judge_again()
            }
            Some(standing) => {
                let max_staleness = document.control_plane.clone().unwrap_or_default().max_staleness;
                let ended = standing.enforcer().rebase(file_side(&document, fresh), max_staleness);
                standing.changed();
                ended
            }
        };
        let Ended { tunnels: tunnels_closed, exchanges: exchanges_aborted } = ended;
        self.0.management_key.store(management_key);
        self.listen(state, &document, bound);
        self.0.configuration.applied(&document);
        drop(before);
        state.builder.sources.retain_used();
        Ok(Reloaded { generation: number, tunnels_closed, exchanges_aborted })
    }

    /// Serves the sockets that are new and closes those that the document does not name any more.
    fn listen(&self, state: &mut State, document: &Document, bound: Vec<(Listener, Bound)>) {
        let wanted = listeners(document);
        state.listeners.retain(|listener, open| {
            let keep = wanted.contains(listener);
            if !keep {
                open.closed.cancel();
            }
            keep
        });
        for (listener, bound) in bound {
            let closed = CancellationToken::new();
            let address = bound.address;
            let plane = Arc::clone(&self.0.plane);
            match &listener {
                Listener::Tunnel(_) => {
                    tracing::info!(%address, "listening for sandboxes");
                    plane.drain.spawn(listener::accept(Arc::clone(&plane), bound, closed.clone()));
                }
                Listener::Metrics(_) => {
                    tokio::spawn(admin::serve(self.clone(), bound, closed.clone()));
                }
                Listener::Management(_) => {
                    tokio::spawn(management::serve(self.clone(), bound, closed.clone()));
                }
            }
            state.listeners.insert(listener, Open { address, closed });
        }
        state.builder.own.replace(state.listeners.values().map(|open| open.address).collect());
    }

    /// Drains, writes what is left of the audit log, and ends every task.
    pub(crate) async fn finish(self, last_records: Duration) {
        let mut state = self.0.state.lock().await;
        self.0.control.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Some(standing) = self.standing() {
            standing.enforcer().close_sockets();
        }
        self.0.plane.drain.drain(state.drain_timeout).await;
        for open in state.listeners.values() {
            open.closed.cancel();
        }
        let writers = std::mem::take(&mut state.builder.writers);
        let finished = tokio::task::spawn_blocking(move || {
            for writer in writers {
                writer.finish(last_records);
            }
        });
        let _ = finished.await;
        self.0.plane.telemetry.finish(last_records).await;
    }
}

impl Listener {
    fn address(&self) -> &ListenAddr {
        match self {
            Self::Tunnel(address) | Self::Metrics(address) | Self::Management(address) => address,
        }
    }

    fn key(&self) -> &'static str {
        match self {
            Self::Tunnel(_) => "proxy.tunnel_listen",
            Self::Metrics(_) => "metrics.listen",
            Self::Management(_) => "management.listen",
        }
    }
}

/// What the file of a managed proxy says for every principal.
fn file_side(document: &Document, fresh: Fresh) -> FileSide {
    FileSide {
        base: fresh.base,
        allowed_ports: document.proxy.allowed_ports.clone(),
        credentials: fresh.credentials,
    }
}

/// A policy in the file of a managed proxy would be one that nobody enforces.
fn own_settings_only(document: &Document) -> Result<(), StartError> {
    let key = if !document.transforms.is_empty() {
        "transforms"
    } else if document.default_action == Action::Allow {
        "default_action"
    } else {
        return Ok(());
    };
    Err(StartError::PolicyInFile { key })
}

/// The address of a listener that others could reach, where there is one.
fn reachable(state: &State) -> Option<String> {
    let tunnels = state.listeners.iter().filter(|(listener, _)| matches!(listener, Listener::Tunnel(_)));
    let mut addresses = tunnels.map(|(_, open)| open.address).filter(|at| !at.ip().is_unspecified());
    addresses.next().map(|address| address.to_string())
}

fn listeners(document: &Document) -> Vec<Listener> {
    let tunnels = document.proxy.tunnel_listen.iter().cloned().map(Listener::Tunnel);
    let metrics = document.metrics.listen.iter().cloned().map(Listener::Metrics);
    let management = document.management.listen.iter().cloned().map(Listener::Management);
    tunnels.chain(metrics).chain(management).collect()
}

/// Opens the sockets that the document names and that are not open.
fn bind_missing(
    document: &Document,
    open: &HashMap<Listener, Open>,
) -> Result<Vec<(Listener, Bound)>, StartError> {
    let missing = listeners(document).into_iter().filter(|listener| !open.contains_key(listener));
    missing.map(|listener| bind(&listener).map(|bound| (listener, bound))).collect()
}

fn bind(listener: &Listener) -> Result<Bound, StartError> {
    let address = listener.address();
    listener::bind(address).map_err(|source| StartError::Listen {
        key: listener.key(),
        address: address.socket_addr(),
        source,
    })
}

/// The management listener does not open without its key (T20).
async fn management_key(
    builder: &Builder,
    document: &Document,
) -> Result<Option<Arc<SecretValue>>, StartError> {
    if document.management.listen.is_none() {
        return Ok(None);
    }
    let source = variable(&document.management.api_key_env);
    builder.control_secret("management.api_key_env", &source).await.map(Some)
}
