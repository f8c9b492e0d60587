//! `keyferry control` as a process: where it listens, what it makes on its first start, what it refuses.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use keyferry_tests::authority::{Authority, Validity};
use keyferry_tests::control::{self, Control};
use serde_json::json;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

fn prepared() -> TempDir {
    control::prepared(BINARY)
}

fn command(folder: &Path) -> Command {
    control::command(BINARY, folder)
}

fn start(folder: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Control {
    Control::start(BINARY, folder, arguments, environment)
}

#[test]
fn the_first_start_makes_a_key_that_works_and_the_second_makes_none() {
    let control = start(prepared(), &["--listen", "127.0.0.1:0"], &[]);
    let key = control.key.clone().expect("a key in the log");
    let made = control.curl(&key, &["--json", r#"{"data":{"foreign_id":"alice"}}"#], "/api/v1/principals");
    assert_eq!(made["data"]["foreign_id"], "alice");
    // Killed, not ended.
    let again = start(control.kill(), &["--listen", "unix:control.sock"], &[]);
    assert_eq!(again.key, None);
    let found = again.curl(&key, &[], "/api/v1/principals/lookup/alice");
    assert_eq!(found["data"]["id"], made["data"]["id"]);
    let refused = again.curl("nothing", &[], "/api/v1/principals/lookup/alice");
    assert_eq!(refused, json!({ "error": { "message": "invalid or missing API key" } }));
}

#[test]
fn a_key_that_is_given_is_the_key_and_stands_nowhere() {
    let key = format!("iak_{}", "5".repeat(64));
    let control = start(prepared(), &["--listen", "127.0.0.1:0"], &[("KEYFERRY_BOOTSTRAP_API_KEY", &key)]);
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
    let control = start(prepared(), &["--listen", "127.0.0.1:0"], &[]);
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

#[test]
fn a_unix_socket_is_its_owners_alone_and_not_taken_from_who_answers_it() {
    let control = start(prepared(), &["--listen", "unix:control.sock"], &[]);
    let key = control.key.clone().expect("a key");
    assert_eq!(control.curl(&key, &[], "/api/v1/api_keys")["meta"]["total"], 1);
    let socket = control.folder.path().join("control.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&socket.metadata().expect("a socket").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let second = command(control.folder.path())
        .args([
            "control",
            "--keyring",
            "keyring",
            "--database",
            "sqlite:other.db",
            "--listen",
            "unix:control.sock",
        ])
        .output()
        .expect("keyferry runs");
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && text.contains("cannot be listened on"), "{text}");
    assert_eq!(
        control.curl(&key, &[], "/api/v1/api_keys")["meta"]["total"],
        1,
        "the first one still answers"
    );
}

#[test]
fn with_a_certificate_it_is_reached_over_tls_and_by_nothing_else() {
    let folder = prepared();
    let authority = Authority::named("control's issuer");
    authority.issue("127.0.0.1", Validity::Current).write(folder.path());
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("written");
    let tls = ["--listen", "0.0.0.0:0", "--tls-cert", "server.crt", "--tls-key", "server.key"];
    let mut control = start(folder, &tls, &[]);
    control.address = control.address.replace("0.0.0.0", "127.0.0.1");
    let ca = control.folder.path().join("ca.pem");
    let control = control.over_tls(ca);
    let key = control.key.clone().expect("a key");
    // T32: who says nothing at all keeps nobody waiting.
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(&control.address).expect("it accepts")).collect();
    let began = Instant::now();
    assert_eq!(control.curl(&key, &[], "/api/v1/api_keys")["meta"]["total"], 1);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop(silent);
    // A large body, and a stream that is pushed to
    let large = format!(r#"{{"data":{{"name":"{}"}}}}"#, "x".repeat(200_000));
    std::fs::write(control.folder.path().join("large"), large).expect("written");
    let large = format!("@{}", control.folder.path().join("large").display());
    let refused = control.curl(&key, &["--json", &large], "/api/v1/principals");
    assert_eq!(refused["error"]["details"], json!({ "name": ["is too long (at most 255 characters)"] }));
    let proxy = control.curl(&key, &["--json", r#"{"data":{"name":"edge"}}"#], "/api/v1/proxies");
    let token = proxy["data"]["token"].as_str().expect("a token");
    let stream = ["-N", "--max-time", "2"];
    let told = control.curl_command(token, &stream, "/api/v1/proxy/stream").output().expect("curl runs");
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("event: begin") && told.contains("event: commit"), "{told}");
    // Neither in the clear nor with a certificate that nobody vouches for
    let plain = Command::new(keyferry_tests::parts::command("curl"))
        .args(["-sS", "--max-time", "15", &format!("http://{}/healthz", control.address)])
        .output()
        .expect("curl runs");
    assert!(!plain.status.success() && plain.stdout.is_empty(), "{plain:?}");
    let stranger = control.folder.path().join("stranger.pem");
    std::fs::write(&stranger, Authority::named("somebody else").pem()).expect("written");
    let control = control.over_tls(stranger);
    let refused = control.curl_command(&key, &[], "/healthz").output().expect("curl runs");
    assert_eq!(refused.status.code(), Some(60), "{refused:?}");
}
