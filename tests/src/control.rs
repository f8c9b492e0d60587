//! `keyferry control` as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::parts;

/// A control service that runs.
pub struct Control {
    /// Where its keyring and, on SQLite, its database are.
    pub folder: TempDir,
    /// It.
    pub process: Child,
    /// As its log says it.
    pub address: String,
    /// The key that it made.
    pub key: Option<String>,
    tls: Option<PathBuf>,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The binary, which finds its files in this folder and nothing in the environment.
pub fn command(binary: &str, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().current_dir(folder);
    command
}

/// A folder with a keyring.
///
/// # Panics
/// When it cannot be made.
pub fn prepared(binary: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let made = command(binary, folder.path()).args(["keyring", "init"]).output().expect("keyferry runs");
    assert!(made.status.success(), "{made:?}");
    folder
}

impl Control {
    /// Starts it, by default on a SQLite file in its folder, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(binary: &str, folder: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = command(binary, folder.path())
            .args(["control", "--keyring", "keyring"])
            .env("KEYFERRY_DATABASE_URL", "sqlite:keyferry.db")
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("keyferry runs");
        let mut lines = BufReader::new(process.stderr.take().expect("its log")).lines();
        let (mut address, mut key) = (None, None);
        while address.is_none() {
            let line = lines.next().expect("it says that it is ready").expect("text");
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            key = key.or_else(|| line["api_key"].as_str().map(str::to_owned));
            address = line["address"].as_str().map(str::to_owned);
        }
        std::thread::spawn(move || lines.for_each(drop));
        Self { folder, process, address: address.expect("an address"), key, tls: None }
    }

    /// From now on it is asked over TLS, and its certificate must be of this authority (PEM).
    #[must_use]
    pub fn over_tls(mut self, authority: PathBuf) -> Self {
        self.tls = Some(authority);
        self
    }

    /// SIGKILL; what it leaves behind.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) -> TempDir {
        self.process.kill().expect("it is killed");
        self.process.wait().expect("it ends");
        std::mem::replace(&mut self.folder, TempDir::new().expect("a temporary folder"))
    }

    /// What curl gets.
    ///
    /// # Panics
    /// When there is no answer, or it is no JSON.
    pub fn curl(&self, token: &str, arguments: &[&str], path: &str) -> Value {
        let output = self.curl_command(token, arguments, path).output().expect("curl runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// The same, to be run.
    pub fn curl_command(&self, token: &str, arguments: &[&str], path: &str) -> Command {
        let mut curl = Command::new(parts::command("curl"));
        curl.env_clear().args(["-sS", "--max-time", "20", "-H", &format!("Authorization: Bearer {token}")]);
        let url = match (self.address.strip_prefix("unix:"), &self.tls) {
            (Some(socket), _) => {
                curl.arg("--unix-socket").arg(self.folder.path().join(socket));
                format!("http://control{path}")
            }
            (None, Some(authority)) => {
                curl.arg("--cacert").arg(authority);
                format!("https://{}{path}", self.address)
            }
            (None, None) => format!("http://{}{path}", self.address),
        };
        curl.args(arguments).arg(url);
        curl
    }
}
