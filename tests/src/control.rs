//! The control service under test: a process of its own over SQLite, asked with curl.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{parts, ports};

/// A running control service. Dropping it kills it.
pub struct Control {
    binary: PathBuf,
    folder: TempDir,
    process: Child,
    listen: String,
    /// The first operator's key.
    key: String,
}

impl Control {
    /// Starts it on a port of loopback, with a new database.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(binary: impl AsRef<Path>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let binary = binary.as_ref().to_owned();
        let made = command(&binary, folder.path()).args(["keyring", "init"]).output().expect("keyferry runs");
        assert!(made.status.success(), "{made:?}");
        let listen = format!("127.0.0.1:{}", ports::free_port());
        let key = format!("iak_{}", "7".repeat(64));
        let process = run(&binary, folder.path(), &listen, &key);
        Self { binary, folder, process, listen, key }
    }

    /// Ends it as a crash does.
    ///
    /// # Panics
    /// When the system does not.
    pub fn kill(&mut self) {
        self.process.kill().expect("it is killed");
        self.process.wait().expect("it ends");
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.process = run(&self.binary, self.folder.path(), &self.listen, &self.key);
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// What its API answers to an operator; a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let mut curl = Command::new(parts::command("curl"));
        curl.env_clear().args(["-sS", "--fail-with-body", "--max-time", "20", "-X", method]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.key)]);
        if let Some(body) = body {
            curl.args(["--json", &body.to_string()]);
        }
        let output = curl.arg(format!("{}/api/v1/{path}", self.url())).output().expect("curl runs");
        assert!(output.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&output.stdout));
        if output.stdout.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// Makes a resource, or changes one, and returns its `data`.
    pub fn put(&self, path: &str, data: Value) -> Value {
        self.ask("PUT", path, Some(json!({ "data": data })))["data"].take()
    }

    /// Makes a resource and returns its `data`.
    pub fn post(&self, path: &str, data: Value) -> Value {
        self.ask("POST", path, Some(json!({ "data": data })))["data"].take()
    }

    /// Deletes a resource.
    pub fn delete(&self, path: &str) {
        self.ask("DELETE", path, None);
    }

    /// Grants a secret to a principal; the grant's id.
    pub fn grant(&self, principal: &Value, secret: &Value) -> String {
        let grant =
            self.post("grants", json!({ "principal_id": principal["id"], "static_secret_id": secret["id"] }));
        text(&grant["id"])
    }

    /// The folder of its database and keyring.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The text of a JSON value.
///
/// # Panics
/// When it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn command(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().current_dir(folder);
    command
}

/// Returns when it is ready.
fn run(binary: &Path, folder: &Path, listen: &str, key: &str) -> Child {
    let mut process = command(binary, folder)
        .args(["control", "--keyring", "keyring", "--database", "sqlite:keyferry.db", "--listen", listen])
        .env("KEYFERRY_BOOTSTRAP_API_KEY", key)
        .stderr(Stdio::piped())
        .spawn()
        .expect("keyferry runs");
    let mut lines = BufReader::new(process.stderr.take().expect("its log")).lines();
    loop {
        let line = lines.next().expect("it says that it is ready").expect("text");
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        if line["address"].is_string() {
            break;
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
    process
}
