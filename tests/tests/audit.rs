//! The audit log of a real proxy: every request once, through every rotation, in an order that nobody changes unseen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, command};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{audit, within};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

/// What a run of `keyferry log …` in the folder of the logs says.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn log(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = command(KEYFERRY, folder);
    command.arg("log").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().await.expect("run `keyferry log`");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Sends requests for these paths, over several connections at once.
async fn send(proxy: &Proxy, origin: &Origin, numbers: std::ops::Range<u32>) {
    let sandbox = Sandbox::of(proxy);
    let urls: String =
        numbers.map(|n| format!("url = {}\noutput = /dev/null\n", origin.url(&format!("/v1/{n}")))).collect();
    let config = sandbox.write("requests", urls);
    let config = config.to_str().expect("a path in UTF-8");
    sandbox.curl(["-sS", "-Z", "--parallel-max", "8", "-K", config]).await.success();
}

/// The files of the log in the order of their records.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the proxy's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("audit.jsonl."))
        })
        .collect();
    files.sort();
    files.push(folder.join("audit.jsonl"));
    files
}

/// How often each path was recorded.
fn paths(records: impl IntoIterator<Item = Value>) -> BTreeMap<String, u32> {
    let mut paths = BTreeMap::new();
    for record in records {
        *paths.entry(record["audit"]["path"].as_str().expect("a path").to_owned()).or_default() += 1;
    }
    paths
}

fn each_once(numbers: std::ops::Range<u32>) -> BTreeMap<String, u32> {
    numbers.map(|n| (format!("/v1/{n}"), 1)).collect()
}

fn recorded(folder: &Path) -> BTreeMap<String, u32> {
    paths(files(folder).iter().flat_map(|file| audit::requests(&fs::read_to_string(file).expect("a log"))))
}

#[tokio::test(flavor = "multi_thread")]
async fn t87_every_request_is_recorded_once_and_in_order_through_rotation_and_a_follower_sees_them_all() {
    const REQUESTS: u32 = 600;
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY)
        .allow(&["api.example"])
        .audit("rotate: { max_bytes: 65536 }")
        .route(&origin)
        .start()
        .await;
    send(&proxy, &origin, 0..1).await;
    proxy.wait_for_records(1).await;
    let folder = proxy.file("");
    let mut follower = command(KEYFERRY, &folder)
        .args(["log", "audit.jsonl", "--follow", "--json", "--host", "api.example"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("follow the log");
    let mut followed = BufReader::new(follower.stdout.take().expect("a piped standard output")).lines();

    send(&proxy, &origin, 1..REQUESTS).await;

    let mut lines = Vec::new();
    let all = async {
        while lines.len() < REQUESTS as usize {
            let line = followed.next_line().await.expect("read").expect("the follower goes on");
            lines.push(serde_json::from_str(&line).expect("a record"));
        }
    };
    within("every record from the follower", all).await;
    assert_eq!(paths(lines), each_once(0..REQUESTS));
    follower.kill().await.expect("end the follower");

    assert_eq!(proxy.admin("/readyz").await.status, 200);
    proxy.terminate().await;
    within("the last records", async {
        while recorded(&folder) != each_once(0..REQUESTS) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let files = files(&folder);
    assert!(files.len() > 4, "{files:?}");
    // Named in an order that is not theirs.
    let names: Vec<&str> = files.iter().rev().map(|file| file.to_str().expect("UTF-8")).collect();
    let said = log(&folder, &[&["verify"], names.as_slice()].concat()).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let records = REQUESTS as usize + files.len();
    assert!(
        said.stdout.starts_with(&format!("ok: {records} records in order, 1 to {records}\nhead: ")),
        "{}",
        said.stdout
    );

    // Without one in the middle, the gap is named with its place.
    let without: Vec<&str> = names.iter().copied().filter(|name| *name != names[1]).collect();
    let said = log(&folder, &[&["verify"], without.as_slice()].concat()).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("audit.jsonl:1: records ") && said.stderr.contains("were removed"),
        "{}",
        said.stderr
    );
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn t87_tampering_with_a_real_log_is_named() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    send(&proxy, &origin, 0..5).await;
    proxy.wait_for_records(5).await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = proxy.stop().await.audit;
    let lines: Vec<&str> = text.lines().collect();
    let head = text.rsplit_once("\"hash\":\"").and_then(|(_, rest)| rest.split('"').next()).expect("a hash");
    let join = |lines: &[&str]| lines.iter().flat_map(|line| [*line, "\n"]).collect::<String>();
    let [first, second, rest @ ..] = lines.as_slice() else { panic!("too few lines: {text}") };
    let swapped = [&[*first, rest[0], *second], &rest[1..]].concat();
    let cases = [
        ("as it is", text.clone(), Ok(())),
        (
            "edited",
            text.replacen("\"status_code\":200", "\"status_code\":500", 1),
            Err("log:2: this record was changed"),
        ),
        ("removed", join(&[&[*first], rest].concat()), Err("log:2: record 2 was removed")),
        (
            "reordered",
            join(&swapped),
            Err("log:2: the records were put in another order: record 2 stands at log:3"),
        ),
        ("inserted", join(&[&[*first, *second, *second], rest].concat()), Err("log:3: this line was put in")),
        ("cut off", join(&lines[..4]), Err("no record has the hash")),
    ];
    for (name, text, expected) in cases {
        fs::write(folder.path().join("log"), text).expect("write the log");
        let said = log(folder.path(), &["verify", "log", "--expect-head", head]).await;
        match expected {
            Ok(()) => assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{name}"),
            Err(words) => {
                assert_eq!(said.code, Some(1), "{name}");
                assert!(said.stderr.contains(words), "{name}: {}", said.stderr);
            }
        }
    }

    // A crash in the middle of a line is no tampering.
    fs::write(folder.path().join("log"), &text[..text.len() - 20]).expect("write the log");
    let said = log(folder.path(), &["verify", "log"]).await;
    assert_eq!(said.code, Some(0));
    assert!(said.stderr.starts_with("warning: log:6: the last line is incomplete"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_moved_away_is_opened_anew_on_sighup() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    send(&proxy, &origin, 0..1).await;
    proxy.wait_for_records(1).await;
    let [live, moved] = ["audit.jsonl", "audit.jsonl.1"].map(|name| proxy.file(name));
    fs::rename(&live, &moved).expect("move it away");

    proxy.signal("HUP").await;
    within("a new file", async {
        while !live.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    send(&proxy, &origin, 1..2).await;
    proxy.wait_for_records(1).await;

    assert_eq!(recorded(&proxy.file("")), each_once(0..2));
    let said = log(&proxy.file(""), &["verify", "audit.jsonl", "audit.jsonl.1"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_share_a_file() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    send(&proxy, &origin, 0..1).await;
    proxy.wait_for_records(1).await;

    let mut second = command(KEYFERRY, &proxy.file(""));
    let second = second.args(["proxy", "--config", "keyferry.yaml"]).stderr(Stdio::piped()).output();
    let second = within("the second one's end", second).await.expect("run a second one");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("is written by another process"), "{said}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t86_what_a_sandbox_sends_is_shown_and_not_obeyed() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
    send(&proxy, &origin, 0..2).await;
    Sandbox::of(&proxy).curl(["https://other.example/"]).await.failure();
    proxy.wait_for_records(3).await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = proxy.stop().await.audit;
    // As a proxy with other ideas of a path would write it, or somebody with an editor.
    let attacked = text.replace("/v1/1", "/v1/\u{9b}31m\\u001b[2J\\r\\n");
    fs::write(folder.path().join("log"), attacked).expect("write the log");

    let shown = log(folder.path(), &["log"]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    assert_eq!(shown.stdout.lines().count(), 4, "{}", shown.stdout);
    assert!(shown.stdout.contains("/v1/\\u{9b}31m\\u{1b}[2J\\u{d}\\u{a}"), "{}", shown.stdout);
    let raw = log(folder.path(), &["log", "--json"]).await;
    assert!(raw.stdout.contains("/v1/\\u009b31m\\u001b[2J\\r\\n"), "{}", raw.stdout);
    for output in [&shown.stdout, &raw.stdout] {
        assert!(!output.contains(|c: char| c.is_control() && c != '\n'), "{output:?}");
    }

    let refused = log(folder.path(), &["log", "--refused"]).await;
    assert_eq!(refused.stdout.lines().count(), 1, "{}", refused.stdout);
    assert!(refused.stdout.contains("other.example") && refused.stdout.contains("host_not_allowed"));
    for (filter, count) in [
        (["--host", "*.example"], 3),
        (["--host", "api.example"], 2),
        (["--verdict", "allow"], 2),
        (["--reason", "host_not_allowed"], 1),
        (["--principal", "local"], 3),
        (["--principal", "nobody"], 0),
        (["--tunnel", &origin.authority()], 2),
        (["--since", "1h"], 4),
        (["--since", "2999-01-01T00:00:00Z"], 0),
    ] {
        let said = log(folder.path(), &["log", filter[0], filter[1]]).await;
        assert_eq!(said.stdout.lines().count(), count, "{filter:?}: {}", said.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_early_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let line =
        r#"{"time":"2026-11-22T12:30:00Z","level":"WARN","msg":"audit_dropped","dropped":{"count":1}}"#;
    fs::write(folder.path().join("log"), format!("{line}\n").repeat(20_000)).expect("write the log");
    let script = format!("{KEYFERRY} log log | head -n 1; echo status ${{PIPESTATUS[0]}}");

    let output = command("bash", folder.path())
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let output = output.await.expect("run bash");

    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.ends_with("status 0\n") && said.lines().count() == 2, "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
