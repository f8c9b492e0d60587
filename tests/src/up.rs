//! `keyferry up` as a process, and the verbs beside it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::authority::Authority;
use crate::dns::NameServer;
use crate::origin::Origin;
use crate::proxy::command;
use crate::within;

/// A running one. Dropping it kills it.
pub struct Up {
    binary: PathBuf,
    folder: TempDir,
    child: Child,
    /// What it said first.
    pub ready: Value,
    _dns: NameServer,
}

impl Up {
    /// Over a new folder, with a proxy that finds these origins on loopback.
    ///
    /// # Panics
    /// When it does not say that it is ready.
    pub async fn start(binary: impl AsRef<Path>, origins: &[&Origin]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let dns = NameServer::start().await;
        for origin in origins {
            dns.set(origin.name(), &[origin.ip()]);
        }
        let settings = format!(
            "proxy: {{ upstream_allow_cidrs: [\"127.0.0.0/8\"] }}\ntls: {{ upstream_ca: origins.pem }}\n\
             dns: {{ upstream_resolver: \"{}\" }}\n",
            dns.address()
        );
        std::fs::write(folder.path().join("proxy.yaml"), settings).expect("write the settings");
        std::fs::write(folder.path().join("origins.pem"), Authority::trusted().pem())
            .expect("write the roots");
        let (child, ready) = spawn(binary.as_ref(), folder.path()).await;
        Self { binary: binary.as_ref().to_owned(), folder, child, ready, _dns: dns }
    }

    /// Ends it as a service manager does, and starts another over the same folder.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn restart(&mut self) {
        self.terminate().await;
        (self.child, self.ready) = spawn(&self.binary, self.folder.path()).await;
    }

    /// Ends it as a service manager does.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn terminate(&mut self) {
        let pid = self.child.id().expect("a process that runs");
        let kill = Command::new("sh").arg("-c").arg(format!("kill -TERM {pid}")).status().await;
        assert!(kill.expect("run kill").success());
        let status = within("the end of `keyferry up`", self.child.wait()).await.expect("its status");
        assert!(status.success(), "{status}");
    }

    /// A part of what it said first.
    ///
    /// # Panics
    /// When it is not there.
    pub fn told(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_else(|| panic!("{key} in {}", self.ready))
    }

    /// A file in the folder that it runs in; `data` is its data directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run of the binary beside it, as its owner.
    pub async fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        let mut command = command(&self.binary, self.folder.path());
        command.args(arguments).env("KEYFERRY_DATA_DIR", self.file("data"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        within("a verb", command.output()).await.expect("run the binary")
    }

    /// What a verb that goes well says.
    ///
    /// # Panics
    /// When it does not go well.
    pub async fn says<A: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[A]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

async fn spawn(binary: &Path, folder: &Path) -> (Child, Value) {
    let mut command = command(binary, folder);
    let arguments = [
        "up",
        "--data-dir",
        "data",
        "--control",
        "127.0.0.1:0",
        "--proxy",
        "127.0.0.1:0",
        "--config",
        "proxy.yaml",
    ];
    let log = std::fs::File::create(folder.join("log")).expect("a file for its log");
    command.args(arguments).arg("--json").stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().expect("start `keyferry up`");
    let mut lines = BufReader::new(child.stdout.take().expect("a piped stdout")).lines();
    let line = within("`keyferry up` to be ready", lines.next_line()).await.expect("its stdout");
    let line = line.unwrap_or_else(|| {
        panic!("it ended:\n{}", std::fs::read_to_string(folder.join("log")).unwrap_or_default())
    });
    (child, serde_json::from_str(&line).expect("a line of JSON"))
}
