//! Many clients at once for long, while the configuration changes and services die; then a count of what is left and what was recorded.

mod ledger;
mod load;
mod process;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::authority::{Authority, Validity};
use crate::git_server::GitServer;
use crate::origin::Origin;
use crate::parts;
use crate::proxy::Proxy;
use crate::raw_origin::RawOrigin;
use crate::sandbox::Sandbox;
use ledger::Ledger;
pub use ledger::Reconciled;
pub use process::Resources;

/// How much to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The binary under test.
    pub keyferry: PathBuf,
    /// From the start to the first sample, with the same load.
    pub warm_up: Duration,
    /// Between the two samples.
    pub duration: Duration,
    /// Tunnels that are opened and closed between the two samples.
    pub tunnels: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Report {
    /// Without load, after the warm-up.
    pub before: Resources,
    /// Without load, at the end.
    pub after: Resources,
    /// The most during the load.
    pub most: Resources,
    /// Tunnels that were opened and closed, each for one request.
    pub tunnels: u64,
    /// Reloads that the proxy has said to be in force.
    pub reloads: usize,
    /// Runs of curl, Python, git and WebSocket clients.
    pub programs: u64,
    /// Requests against records.
    pub reconciled: Reconciled,
}

/// What all clients share.
pub(crate) struct World {
    pub(crate) proxy: Proxy,
    pub(crate) api: Origin,
    pub(crate) dying: RawOrigin,
    pub(crate) git: GitServer,
    pub(crate) chat: u16,
    pub(crate) ledger: Ledger,
    pub(crate) tunnels: AtomicU64,
    pub(crate) programs: AtomicU64,
    stop: AtomicBool,
}

impl World {
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example, dying.example, git.example, chat.example] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: SERVICE_TOKEN }
          replace: { proxy_value: SERVICE_TOKEN, match_headers: [Authorization] }
          rules: [{ host: api.example }, { host: git.example }, { host: chat.example }]
        - source: { type: env, var: REVOKED_TOKEN }
          replace: { proxy_value: REVOKED_TOKEN, match_headers: [X-Revoked] }
          rules: [{ host: api.example }]
"#;
/// What each reload changes and changes back: a secret is revoked.
const GRANTED: &str = "rules: [{ host: api.example }]";
const REVOKED: &str = "rules: [{ host: elsewhere.example }]";

/// Runs it.
///
/// # Panics
/// When a part is missing, or a client sees what no client may see.
pub async fn run(plan: &Plan) -> Report {
    let outside = Sandbox::without_proxy();
    let (certificate, key) =
        Authority::trusted().issue("chat.example", Validity::Current).write(outside.home());
    let mut chat = outside.start(parts::python(), [parts::script("websocket_server.py"), certificate, key]);
    let line = chat.line().await;
    let chat_port = line.strip_prefix("port ").and_then(|port| port.parse().ok()).expect("the port first");
    let (api, dying) =
        (Origin::start("api.example").await, RawOrigin::start("dying.example", load::die).await);
    let git = GitServer::start("git.example", "git", "real-token-for-the-soak").await;
    let proxy = Proxy::builder(&plan.keyferry)
        .policy(POLICY)
        .env("SERVICE_TOKEN", "real-token-for-the-soak")
        .env("REVOKED_TOKEN", "another-token-for-the-soak")
        .route(&api)
        .route_raw(&dying)
        .route(&git.origin)
        .name("chat.example")
        .port(chat_port)
        .start()
        .await;
    let mut world = Arc::new(World {
        proxy,
        api,
        dying,
        git,
        chat: chat_port,
        ledger: Ledger::default(),
        tunnels: AtomicU64::new(0),
        programs: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });

    let mut most = Resources::default();
    loaded(&world, plan.warm_up, 0, &mut most).await;
    let before = world.proxy.resources().await;
    let opened = world.tunnels.load(Ordering::Relaxed);
    loaded(&world, plan.duration, opened + plan.tunnels, &mut most).await;
    let after = world.proxy.resources().await;

    let world = loop {
        match Arc::try_unwrap(world) {
            Ok(world) => break world,
            Err(shared) => world = shared,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let reloads = world.proxy.stderr().matches("a new configuration is in force").count();
    let ended = world.proxy.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    chat.kill().await;
    Report {
        before,
        after,
        most,
        tunnels: world.tunnels.into_inner() - opened,
        reloads,
        programs: world.programs.into_inner(),
        reconciled: world.ledger.reconcile(&ended.audit),
    }
}

/// All clients at once for `duration`, and for as long as fewer than `tunnels` have been opened; then a pause in which all of it ends.
async fn loaded(world: &Arc<World>, duration: Duration, tunnels: u64, most: &mut Resources) {
    let mut clients = JoinSet::new();
    load::spawn_all(world, &mut clients);
    let started = Instant::now();
    let mut revoked = false;
    while started.elapsed() < duration || world.tunnels.load(Ordering::Relaxed) < tunnels {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (old, new) = if revoked { (REVOKED, GRANTED) } else { (GRANTED, REVOKED) };
        world.proxy.edit(old, new);
        world.proxy.signal("HUP").await;
        revoked = !revoked;
        most.raise_to(&world.proxy.resources().await);
        if let Some(ended) = clients.try_join_next() {
            ended.expect("a client went wrong");
        }
    }
    world.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client went wrong");
    }
    world.stop.store(false, Ordering::Relaxed);
    if revoked {
        world.proxy.edit(REVOKED, GRANTED);
        world.proxy.signal("HUP").await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
}

impl Report {
    /// Everything that must hold and does not.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.reconciled.faults();
        let Resources { memory, descriptors, threads } = &self.after;
        // An allocator keeps some of what it once needed; a leak of a KiB per tunnel is more than this.
        if *memory > self.before.memory + self.before.memory / 5 + (6 << 20) {
            faults.push(format!("memory grew from {} to {memory} bytes", self.before.memory));
        }
        if *descriptors > self.before.descriptors + 16 {
            faults.push(format!("descriptors grew from {} to {descriptors}", self.before.descriptors));
        }
        if *threads > self.before.threads + 8 {
            faults.push(format!("threads grew from {} to {threads}", self.before.threads));
        }
        faults
    }

    /// The figures as a table in Markdown.
    pub fn table(&self) -> String {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let Reconciled { sent, answered, recorded, twice, missing, unknown, unnumbered } = &self.reconciled;
        format!(
            "| | after the warm-up | most under load | at the end |\n|---|---|---|---|\n\
             | memory in RAM | {} | {} | {} |\n| descriptors | {} | {} | {} |\n| threads | {} | {} | {} |\n\n\
             | requests | |\n|---|---|\n| with an id of the client's | {sent} |\n| of them answered | {answered} |\n\
             | of them recorded once | {recorded} |\n| recorded twice | {twice} |\n| answered and not recorded | {missing} |\n\
             | recorded and never sent | {unknown} |\n| records of git and WebSocket, whose requests bear no id | {unnumbered} |\n\
             | tunnels opened and closed | {} |\n| reloads, every other a revocation | {} |\n| programs run | {} |\n",
            mib(self.before.memory),
            mib(self.most.memory),
            mib(self.after.memory),
            self.before.descriptors,
            self.most.descriptors,
            self.after.descriptors,
            self.before.threads,
            self.most.threads,
            self.after.threads,
            self.tunnels,
            self.reloads,
            self.programs,
        )
    }
}
