//! Real databases for the tests of any crate: a file, or a PostgreSQL that is started for this process.
//!
//! ```ignore
//! on_both_databases! {
//!     async fn what_is_written_is_read(database) {
//!         let store = database.open(&[SCHEMA]).await;
//!     }
//! }
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keyferry_seal::{Keyring, Keys};
use secrecy::SecretString;
use tempfile::TempDir;

use crate::{DatabaseUrl, Dialect, Schema, Store};

/// Writes each test once, and runs it on either database, as `NAME::sqlite` and `NAME::postgres`.
#[macro_export]
macro_rules! on_both_databases {
    ($($(#[$meta:meta])* async fn $name:ident($database:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "for tests that need nothing of their file")]
            use super::*;

            async fn given($database: &$crate::testing::TestDatabase) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                given(&$crate::testing::TestDatabase::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                given(&$crate::testing::TestDatabase::postgres()).await;
            }
        }
    )+};
}

/// An empty database, gone when dropped.
pub struct TestDatabase {
    url: String,
    keys: Keys,
    dialect: Dialect,
    /// Kept as long as the database.
    _folder: Option<TempDir>,
    cluster: Option<Arc<Cluster>>,
}

impl TestDatabase {
    /// A file in a folder of its own.
    ///
    /// # Panics
    ///
    /// There is no temporary folder.
    #[must_use]
    pub fn sqlite() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let url = format!("sqlite:{}", folder.path().join("keyferry.db").display());
        Self { url, keys: new_keys(), dialect: Dialect::Sqlite, _folder: Some(folder), cluster: None }
    }

    /// A database of the PostgreSQL of this process.
    ///
    /// # Panics
    ///
    /// PostgreSQL is not installed, or does not start.
    #[must_use]
    pub fn postgres() -> Self {
        Self::in_cluster(Cluster::of_this_process())
    }

    /// A PostgreSQL of its own, that [`Cluster::stop`] may take away.
    ///
    /// # Panics
    ///
    /// As [`TestDatabase::postgres`].
    #[must_use]
    pub fn postgres_alone() -> Self {
        Self::in_cluster(Arc::new(Cluster::start()))
    }

    fn in_cluster(cluster: Arc<Cluster>) -> Self {
        let url = cluster.new_database();
        Self { url, keys: new_keys(), dialect: Dialect::Postgres, _folder: None, cluster: Some(cluster) }
    }

    /// Opens it as a service does.
    ///
    /// # Panics
    ///
    /// It does not open.
    pub async fn open(&self, schemas: &[Schema]) -> Store {
        Store::open(&self.url(), self.keys.clone(), schemas).await.expect("the database opens")
    }

    /// For [`Store::open`].
    ///
    /// # Panics
    ///
    /// Never: it was made here.
    #[must_use]
    pub fn url(&self) -> DatabaseUrl {
        DatabaseUrl::parse(&SecretString::from(self.url.as_str())).expect("a URL of ours")
    }

    /// As it stands on a command line.
    #[must_use]
    pub fn url_text(&self) -> &str {
        &self.url
    }

    /// Its keyring.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Which one it is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The PostgreSQL that it lives in.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }
}

fn new_keys() -> Keys {
    Keys::fixed(Keyring::generate().expect("randomness"))
}

/// A PostgreSQL server on a socket of its own.
pub struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    server: Mutex<Option<JoinHandle<()>>>,
    databases: AtomicU32,
}

const OWNER: &str = "keyferry";
const STARTS_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// The one that the tests of this process share. It ends with the last of them.
    fn of_this_process() -> Arc<Self> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start());
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    fn start() -> Self {
        // Not in the usual temporary folder, whose name may be too long for a socket's.
        let folder = tempfile::Builder::new().prefix("kfpg").tempdir_in("/tmp").expect("a folder in /tmp");
        let cluster =
            Self { programs: programs(), folder, server: Mutex::new(None), databases: AtomicU32::new(0) };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(cluster.folder.path()));
        }
        let data = cluster.data();
        run(cluster
            .program("initdb")
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--username", OWNER])
            .arg("--pgdata")
            .arg(&data));
        cluster.resume();
        cluster
    }

    /// Starts it again after [`Cluster::stop`].
    ///
    /// # Panics
    ///
    /// It does not start.
    pub fn resume(&self) {
        let mut command = self.program("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(self.folder.path().join("log"))
                    .expect("a log file"),
            ));
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        *server = Some(serve(command));
        let began = Instant::now();
        let ready = || {
            let mut command = self.program("pg_isready");
            let status = command.arg("-q").arg("-h").arg(self.folder.path()).status();
            status.is_ok_and(|status| status.success())
        };
        while !ready() {
            assert!(began.elapsed() < STARTS_WITHIN, "PostgreSQL does not start:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it at once, with all connections, as a crash does.
    ///
    /// # Panics
    ///
    /// The system does not let it end.
    pub fn stop(&self) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = server.take() {
            run(self.program("pg_ctl").args(["stop", "--mode=immediate", "--silent", "-D"]).arg(self.data()));
            let _ = thread.join();
        }
    }

    fn new_database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let folder = self.folder.path();
        run(self.program("createdb").arg("-h").arg(folder).args(["-U", OWNER, &name]));
        let host = folder.display().to_string().replace('/', "%2F");
        format!("postgres://{OWNER}@{host}/{name}")
    }

    /// PostgreSQL refuses root. It ends with us, whatever becomes of us.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        command.arg("--").arg(self.programs.join(name)).env_clear().env("LC_ALL", "C.UTF-8").current_dir("/");
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// In a thread that lives as long as the server: a process is told that its parent's *thread* has ended.
fn serve(mut command: Command) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut server = command.spawn().expect("setpriv is installed");
        let _ = server.wait();
    })
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc")) == 0
}

/// Debian keeps them in a folder for each version, outside of PATH.
fn programs() -> PathBuf {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders.push(PathBuf::from("/usr/local/bin"));
    let complete = |folder: &Path| {
        ["initdb", "postgres", "createdb", "pg_ctl", "pg_isready"]
            .iter()
            .all(|name| folder.join(name).is_file())
    };
    folders
        .into_iter()
        .rev()
        .find(|folder| complete(folder))
        .expect("PostgreSQL's server is not installed; run ./scripts/test-parts")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
