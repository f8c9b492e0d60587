//! What the local driver is tested with: directories of its own, a stand-in for the proxy, and real programs inside.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use keyferry_sandbox::testing::Bench;
use keyferry_sandbox::{Environment, Host, Limits, LocalDriver, Request, SandboxId, Spec, Workspace};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener};

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
        let ca_bundle = Authority::named("sandbox test").pem().to_owned();
        let bench = Self { directory, driver, ca_bundle, ids: AtomicU32::new(0) };
        bench.proxy(GREETING);
        bench
    }

    /// Another stand-in for the proxy, which answers this to everybody.
    ///
    /// # Panics
    /// When its socket cannot be made.
    pub fn proxy(&self, greeting: &str) -> PathBuf {
        let name = if greeting == GREETING { "proxy.sock".to_owned() } else { format!("{greeting}.sock") };
        let path = self.path().join(name);
        tokio::spawn(greet(UnixListener::bind(&path).expect("a socket"), greeting.to_owned()));
        path
    }

    /// The way to a real proxy.
    ///
    /// # Panics
    /// When its socket cannot be made.
    #[must_use]
    pub fn relay(&self, proxy: SocketAddr) -> PathBuf {
        let path = self.path().join("relay.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut proxy = TcpStream::connect(proxy).await?;
                    copy_bidirectional(&mut client, &mut proxy).await
                });
            }
        });
        path
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
async fn greet(listener: UnixListener, greeting: String) {
    while let Ok((mut client, _)) = listener.accept().await {
        let greeting = greeting.clone();
        tokio::spawn(async move {
            let mut head = [0; 4096];
            let _ = client.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{greeting}",
                greeting.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
        });
    }
}

/// The processes of the host whose arguments hold `mark`.
///
/// # Panics
/// When this host does not tell of its processes.
#[must_use]
pub fn processes(mark: &str) -> Vec<i32> {
    let of = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(of).collect()
}

/// The cgroups whose names hold `mark`.
#[must_use]
pub fn cgroups(mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(mark) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
        }
    }
    found
}

/// The processes that were told to mount a directory or something in it, or have it mounted.
///
/// # Panics
/// When this host does not tell of its processes.
#[must_use]
pub fn inhabitants(directory: &Path) -> Vec<i32> {
    let path = directory.to_str().expect("a path of ours");
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mounted = |pid: &i32| {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| place.starts_with(path)))
    };
    let told = processes(path);
    pids.filter(|pid| mounted(pid) || told.contains(pid)).collect()
}
