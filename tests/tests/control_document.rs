//! Schemathesis asks a running control service whatever its OpenAPI document allows, and much that it does not: no answer may be
//! our fault, and each must be as the document says.

use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use keyferry_tests::control::{Control, prepared};
use keyferry_tests::parts;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

/// What every answer is held to. Not among them: that whatever fits the schema is accepted, for schemas do not say that
/// exactly one of two must be there; and that every route refuses every wrong token, which `control/tests/routes.rs` walks through.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,use_after_free,\
    ensure_resource_availability";

/// Schemathesis speaks to no Unix socket, and whoever shows a thousand wrong tokens from an address of the network waits (T68).
fn relay_to(socket: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for here in listener.incoming().map_while(Result::ok) {
            let Ok(there) = UnixStream::connect(&socket) else { return };
            let (Ok(here_too), Ok(there_too)) = (here.try_clone(), there.try_clone()) else { return };
            thread::spawn(move || {
                let _ = io::copy(&mut &here, &mut &there);
                there.shutdown(Shutdown::Write)
            });
            thread::spawn(move || {
                let _ = io::copy(&mut &there_too, &mut &here_too);
                here_too.shutdown(Shutdown::Both)
            });
        }
    });
    address
}

/// Runs it over some paths as the holder of a token, for so long; how many requests it made.
fn schemathesis(address: &str, token: &str, paths: &[&str], seconds: u32, folder: &Path) -> u64 {
    let output = Command::new(parts::schemathesis())
        .env_clear()
        .env("PATH", parts::search_path())
        .env("HOME", folder)
        .current_dir(folder)
        .arg("run")
        .arg(format!("http://{address}/openapi.json"))
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(paths)
        .args([
            "--checks",
            CHECKS,
            "--phases",
            "coverage,fuzzing,stateful",
            "--max-examples",
            "4",
            "--max-time",
            &seconds.to_string(),
        ])
        .args(["--seed", "4", "--generation-database", "none", "--workers", "1", "--warnings", "off"])
        .args(["--request-timeout", "20", "--continue-on-failure", "--no-color"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let words: Vec<&str> = said.split_whitespace().collect();
    let generated =
        words.iter().position(|word| word.trim_end_matches(',') == "generated").expect("it says how many");
    words[generated - 1].replace(',', "").parse().unwrap_or_else(|_| panic!("{said}"))
}

#[test]
fn t76_whatever_is_asked_the_answer_is_as_the_document_says() {
    let control = Control::start(BINARY, prepared(BINARY), &["--listen", "unix:control.sock"], &[]);
    let address = relay_to(control.folder.path().join("control.sock"));
    let key = control.key.clone().expect("a key");
    // Something to find: without it most answers would be "not found".
    let make = |path: &str, data: Value| {
        let body = serde_json::json!({ "data": data }).to_string();
        let made = control.curl(&key, &["--json", &body], &format!("/api/v1/{path}"));
        made["data"].clone()
    };
    let principal = make("principals", serde_json::json!({ "foreign_id": "p" }));
    make(
        "static_secrets",
        serde_json::json!({
            "foreign_id": "s", "inject_config": { "header": "X" }, "rules": [{ "host": "a.test" }],
            "source": { "source_type": "control_plane", "secret": "s3cret-of-the-test" },
        }),
    );
    let proxy = make("proxies", serde_json::json!({ "name": "edge", "principal_id": principal["id"] }));

    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let asked = schemathesis(&address, &key, &["--exclude-path-regex", "^/api/v1/proxy/"], 30, folder.path());
    assert!(asked > 300, "{asked}");
    // A stream has no end.
    let proxies = ["--include-path-regex", "^/api/v1/proxy/(sync|applied)"];
    let token = proxy["token"].as_str().expect("a token");
    let asked = schemathesis(&address, token, &proxies, 5, folder.path());
    assert!(asked > 20, "{asked}");
    // Whatever was written, the log of changes is a chain.
    assert_eq!(control.curl(&key, &[], "/api/v1/changes/verify")["data"]["ok"], true);
}
