//! What an operator does with a control service: asks its API with curl, ends it, starts it again.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::control::{Control, prepared};
use crate::ports;

/// An operator, and the control service of their own.
pub struct Operator {
    binary: PathBuf,
    listen: String,
    /// The first operator's key.
    key: String,
    /// None while it is down; then its folder waits.
    control: Result<Control, tempfile::TempDir>,
}

impl Operator {
    /// Starts a control service on a port of loopback, with a new database.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(binary: impl AsRef<Path>) -> Self {
        let binary = binary.as_ref().to_owned();
        let control = Err(prepared(&binary.to_string_lossy()));
        let listen = format!("127.0.0.1:{}", ports::free_port());
        let mut operator = Self { binary, listen, key: format!("iak_{}", "7".repeat(64)), control };
        operator.restart();
        operator
    }

    /// Ends it as a crash does.
    ///
    /// # Panics
    /// When the system does not.
    pub fn kill(&mut self) {
        let nowhere = tempfile::TempDir::new().expect("a temporary folder");
        self.control = match std::mem::replace(&mut self.control, Err(nowhere)) {
            Ok(control) => Err(control.kill()),
            down => down,
        };
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        let nowhere = tempfile::TempDir::new().expect("a temporary folder");
        let Err(folder) = std::mem::replace(&mut self.control, Err(nowhere)) else { return };
        let environment = [("KEYFERRY_BOOTSTRAP_API_KEY", self.key.as_str())];
        let binary = self.binary.to_string_lossy();
        self.control = Ok(Control::start(&binary, folder, &["--listen", &self.listen], &environment));
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
        let Ok(control) = &self.control else { panic!("{method} {path}: control is down") };
        let body = body.map(|body| body.to_string());
        let mut arguments = vec!["--fail-with-body", "-X", method];
        if let Some(body) = &body {
            arguments.extend(["--json", body]);
        }
        let output = control
            .curl_command(&self.key, &arguments, &format!("/api/v1/{path}"))
            .output()
            .expect("curl runs");
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

    /// What is said of a resource that is not made.
    ///
    /// # Panics
    /// When it is made.
    pub fn refusal(&self, path: &str, data: Value) -> Value {
        let Ok(control) = &self.control else { panic!("{path}: control is down") };
        let body = json!({ "data": data }).to_string();
        let arguments = ["--fail-with-body", "-X", "POST", "--json", &body];
        let output = control.curl_command(&self.key, &arguments, &format!("/api/v1/{path}")).output();
        let output = output.expect("curl runs");
        assert!(!output.status.success(), "{path} was made");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
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
        match &self.control {
            Ok(control) => control.folder.path(),
            Err(folder) => folder.path(),
        }
    }
}

/// The text of a JSON value.
///
/// # Panics
/// When it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
