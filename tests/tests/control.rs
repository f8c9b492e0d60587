//! `keyferry control` as a process: where it listens, what it makes on its first start, what it refuses.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use keyferry_tests::parts;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Control {
    folder: TempDir,
    process: Child,
    address: String,
    key: Option<String>,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry-under-test"));
    command.env_clear().current_dir(folder);
    command
}

fn prepared() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let made = command(folder.path()).args(["keyring", "init"]).output().expect("keyferry runs");
    assert!(made.status.success(), "{made:?}");
    folder
}

impl Control {
    fn start(folder: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut process = command(folder.path())
            .args(["control", "--keyring", "keyring", "--database", "sqlite:keyferry.db"])
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
        Self { folder, process, address: address.expect("an address"), key }
    }

    /// What curl gets.
    fn curl(&self, token: &str, arguments: &[&str], path: &str) -> Value {
        let mut curl = Command::new(parts::command("curl"));
        curl.env_clear().args(["-sS", "--max-time", "20", "-H", &format!("Authorization: Bearer {token}")]);
        let url = match self.address.strip_prefix("unix:") {
            Some(socket) => {
                curl.arg("--unix-socket").arg(self.folder.path().join(socket));
                format!("http://control{path}")
            }
            None => format!("http://{}{path}", self.address),
        };
        let output = curl.args(arguments).arg(url).output().expect("curl runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}

#[test]
fn the_first_start_makes_a_key_that_works_and_the_second_makes_none() {
    let mut control = Control::start(prepared(), &["--listen", "127.0.0.1:0"], &[]);
    let key = control.key.clone().expect("a key in the log");
    let made = control.curl(&key, &["--json", r#"{"data":{"foreign_id":"alice"}}"#], "/api/v1/principals");
    assert_eq!(made["data"]["foreign_id"], "alice");
    // Killed, not ended.
    control.process.kill().expect("it is killed");
    control.process.wait().expect("it ends");
    let folder = std::mem::replace(&mut control.folder, TempDir::new().expect("a temporary folder"));
    let again = Control::start(folder, &["--listen", "unix:control.sock"], &[]);
    assert_eq!(again.key, None);
    let found = again.curl(&key, &[], "/api/v1/principals/lookup/alice");
    assert_eq!(found["data"]["id"], made["data"]["id"]);
    let refused = again.curl("nothing", &[], "/api/v1/principals/lookup/alice");
    assert_eq!(refused, json!({ "error": { "message": "invalid or missing API key" } }));
}

#[test]
fn a_key_that_is_given_is_the_key_and_stands_nowhere() {
    let key = format!("iak_{}", "5".repeat(64));
    let control =
        Control::start(prepared(), &["--listen", "127.0.0.1:0"], &[("KEYFERRY_BOOTSTRAP_API_KEY", &key)]);
    assert_eq!(control.key, None);
    assert_eq!(control.curl(&key, &[], "/api/v1/api_keys")["meta"]["total"], 1);
}

#[test]
fn t83_what_would_leak_or_could_not_be_opened_is_refused_at_start() {
    let folder = prepared();
    let refused = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = command(folder.path())
            .args(["control", "--database", "sqlite:keyferry.db"])
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .expect("keyferry runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let keyring = ["--keyring", "keyring"];
    let with = |more: &[&'static str]| [&keyring[..], more].concat();
    let (code, text) = refused(&with(&["--listen", "0.0.0.0:0"]), &[]);
    assert!(code == Some(2) && text.contains("carry live values"), "{code:?} {text}");
    assert!(!folder.path().join("keyferry.db").exists(), "nothing was touched");
    let (code, text) = refused(&with(&["--listen", "nonsense"]), &[]);
    assert!(code == Some(2) && text.contains("no address to listen on"), "{code:?} {text}");
    let (code, text) = refused(&["--listen", "127.0.0.1:0"], &[]);
    assert!(code == Some(2) && text.contains("no keyring is named"), "{code:?} {text}");
    let (code, text) =
        refused(&with(&["--listen", "127.0.0.1:0"]), &[("KEYFERRY_BOOTSTRAP_API_KEY", "iak_short")]);
    assert!(
        code == Some(2) && text.contains("the first API key is no key") && !text.contains("iak_short"),
        "{text}"
    );
}

#[test]
fn another_keyring_than_the_databases_is_refused_with_the_key_that_is_missing() {
    let control = Control::start(prepared(), &["--listen", "127.0.0.1:0"], &[]);
    let key = control.key.clone().expect("a key");
    let secret = r#"{"data":{"inject_config":{"header":"X"},"source":{"source_type":"control_plane","secret":"s3cret"},"rules":[{"host":"a.test"}]}}"#;
    let made = control.curl(&key, &["--json", secret], "/api/v1/static_secrets");
    assert!(made["data"]["id"].is_string(), "{made}");
    let other = command(control.folder.path()).args(["keyring", "init", "--keyring", "other"]).output();
    assert!(other.expect("keyferry runs").status.success());
    let output = command(control.folder.path())
        .args([
            "control",
            "--database",
            "sqlite:keyferry.db",
            "--keyring",
            "other",
            "--listen",
            "127.0.0.1:0",
        ])
        .output()
        .expect("keyferry runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("the keyring lacks keys"), "{text}");
    // T46: not on disk either.
    for file in std::fs::read_dir(control.folder.path()).expect("the folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("its bytes");
        assert!(!bytes.windows(6).any(|window| window == b"s3cret"));
    }
}
