//! What is left of the work of a control service that is killed in the middle of it.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keyferry_store::on_both_databases;
use keyferry_tests::PATIENCE;
use keyferry_tests::control::{Control, prepared};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

/// Asks once; none where nobody answered.
fn ask(mut curl: Command) -> Option<Value> {
    let output = curl.output().expect("curl runs");
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// All pages of a list.
fn all(control: &Control, key: &str, path: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for page in 1.. {
        let answer = control.curl(key, &[], &format!("{path}page={page}&limit=200"));
        let data = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        if data.is_empty() {
            break;
        }
        found.extend(data);
    }
    found
}

fn ids(list: &[Value], of: &str) -> BTreeSet<String> {
    list.iter().map(|it| it[of].as_str().expect("an id").to_owned()).collect()
}

on_both_databases! {
    async fn what_was_answered_is_there_and_nothing_is_half_there_after_a_kill(database) {
        let key = format!("iak_{}", "5".repeat(64));
        let environment = [("KEYFERRY_DATABASE_URL", database.url_text()), ("KEYFERRY_BOOTSTRAP_API_KEY", key.as_str())];
        let listen = ["--listen", "127.0.0.1:0"];
        let mut control = Control::start(BINARY, prepared(BINARY), &listen, &environment);
        let principal = control.curl(&key, &["--json", r#"{"data":{"foreign_id":"p"}}"#], "/api/v1/principals");
        let principal = principal["data"]["id"].as_str().expect("an id").to_owned();
        let (answered, revoked) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
        let number = AtomicU32::new(0);
        // Given three kills, each in the middle of secrets that four callers make, grant and revoke
        for round in 1..=3 {
            let ended = AtomicBool::new(false);
            let before = answered.lock().expect("nobody panicked").len();
            let pid = control.process.id().to_string();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !ended.load(Ordering::Relaxed) {
                            let n = number.fetch_add(1, Ordering::Relaxed);
                            let secret = json!({ "data": {
                                "inject_config": { "header": "X" }, "rules": [{ "host": format!("h{n}.test") }],
                                "source": { "source_type": "control_plane", "secret": format!("value-{n}") },
                            } }).to_string();
                            let path = format!("/api/v1/static_secrets/s{n}");
                            let Some(made) = ask(control.curl_command(&key, &["-X", "PUT", "--json", &secret], &path)) else { return };
                            let id = made["data"]["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
                            answered.lock().expect("nobody panicked").insert(id.clone());
                            let grant = json!({ "data": { "principal_id": principal, "static_secret_id": id } }).to_string();
                            let Some(grant) = ask(control.curl_command(&key, &["--json", &grant], "/api/v1/grants")) else { return };
                            if n.is_multiple_of(3) {
                                let grant = grant["data"]["id"].as_str().unwrap_or_else(|| panic!("{grant}"));
                                let path = format!("/api/v1/grants/{grant}");
                                let output = control.curl_command(&key, &["-X", "DELETE"], &path).output().expect("curl runs");
                                if output.status.success() {
                                    revoked.lock().expect("nobody panicked").insert(id);
                                }
                            }
                        }
                    });
                }
                let until = Instant::now() + PATIENCE;
                while answered.lock().expect("nobody panicked").len() < before + 15 {
                    assert!(Instant::now() < until, "round {round}: nothing is written");
                    std::thread::sleep(Duration::from_millis(5));
                }
                // SIGKILL: it cannot do anything about it.
                let killed = Command::new("kill").args(["-KILL", &pid]).status().expect("kill runs");
                assert!(killed.success());
                ended.store(true, Ordering::Relaxed);
            });
            control = Control::start(BINARY, control.kill(), &listen, &environment);
        }

        // Then whatever was answered is there
        let secrets = all(&control, &key, "/api/v1/static_secrets?namespace=default&");
        let there = ids(&secrets, "id");
        let answered = answered.into_inner().expect("nobody panicked");
        assert!(answered.is_subset(&there), "{:?}", answered.difference(&there));
        let grants = all(&control, &key, &format!("/api/v1/principals/{principal}/grants?"));
        let granted = ids(&grants, "static_secret_id");
        let revoked = revoked.into_inner().expect("nobody panicked");
        assert!(revoked.is_disjoint(&granted), "{:?}", revoked.intersection(&granted));
        // And whatever is there is whole: its value, its entry in the log, and the chain of all entries.
        let changes = all(&control, &key, "/api/v1/changes?action=secret.create&");
        assert_eq!(ids(&changes, "resource"), there);
        let checked = control.curl(&key, &[], "/api/v1/changes/verify");
        assert_eq!(checked["data"]["ok"], true, "{checked}");
        let proxy = json!({ "data": { "name": "edge", "principal_id": principal } }).to_string();
        let proxy = control.curl(&key, &["--json", &proxy], "/api/v1/proxies");
        let synced = control.curl(proxy["data"]["token"].as_str().expect("a token"), &["-X", "POST"], "/api/v1/proxy/sync");
        let delivered = synced["secrets"].as_array().unwrap_or_else(|| panic!("{synced}"));
        assert_eq!(ids(delivered, "id"), granted);
        for secret in delivered {
            let host = secret["rules"][0]["host"].as_str().expect("a host");
            let number = host.trim_start_matches('h').trim_end_matches(".test");
            assert_eq!(secret["source"]["value"], json!(format!("value-{number}")));
        }
    }
}
