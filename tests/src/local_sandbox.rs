//! What the local driver is tested with: directories of its own, a stand-in for the proxy, and real programs inside.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use keyferry_sandbox::testing::Bench;
use keyferry_sandbox::{Environment, Host, Limits, LocalDriver, Request, SandboxId, Spec, Workspace};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::authority::Authority;

/// The local driver and its surroundings.
pub struct LocalBench {
    directory: TempDir,
    driver: LocalDriver,
    ca_bundle: String,
    ids: AtomicU32,
}

/// What the proxy's stand-in answers to everybody.
pub const GREETING: &str = "the proxy";

impl LocalBench {
    /// A driver, with the `keyferry` that goes inside.
    ///
    /// # Panics
    /// When bubblewrap is missing.
    #[must_use]
    pub fn new(keyferry: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let driver = driver(keyferry, &directory.path().join("state"));
        let listener = UnixListener::bind(directory.path().join("proxy.sock")).expect("a socket");
        tokio::spawn(greet(listener));
        let ca_bundle = Authority::named("sandbox test").pem().to_owned();
        Self { directory, driver, ca_bundle, ids: AtomicU32::new(0) }
    }

    /// The directory that holds everything of this bench.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the driver keeps its records.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// What is left of sandboxes in the driver's records.
    #[must_use]
    pub fn records(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state()).expect("the records").flatten();
        let names = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }
}

/// A driver on this host.
///
/// # Panics
/// When bubblewrap is missing.
#[must_use]
pub fn driver(keyferry: &Path, state: &Path) -> LocalDriver {
    let host = Host {
        state: state.to_owned(),
        keyferry: keyferry.to_owned(),
        search_path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
        home: Some("/root".into()),
    };
    LocalDriver::new(host).expect("the driver starts")
}

impl Bench for LocalBench {
    type Driver = LocalDriver;

    fn driver(&self) -> &LocalDriver {
        &self.driver
    }

    fn fresh_id(&self) -> SandboxId {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        SandboxId::parse(&id).expect("an id")
    }

    fn spec(&self, command: &[&str]) -> Spec {
        let workspace =
            tempfile::Builder::new().prefix("workspace").tempdir_in(self.path()).expect("a directory").keep();
        Spec {
            command: command.iter().map(Into::into).collect(),
            environment: Environment::new(&Request::default()).expect("an environment"),
            workspace: Workspace { path: workspace, allow_sockets: false },
            read_only: Vec::new(),
            proxy_socket: self.path().join("proxy.sock"),
            ca_bundle: self.ca_bundle.clone(),
            limits: Limits::default(),
        }
    }
}

/// Answers every connection's first bytes, as HTTP.
async fn greet(listener: UnixListener) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = [0; 4096];
            let _ = client.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{GREETING}",
                GREETING.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
        });
    }
}
