//! `keyferry doctor`: real clients in real sandboxes, what it says of those that do not get through, and that nothing of it stays.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use keyferry_tests::authority::Authority;
use keyferry_tests::local_sandbox::processes;
use keyferry_tests::parts;
use serde_json::{Value, json};
use tempfile::TempDir;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const USUAL: &str = "/usr/local/bin:/usr/bin:/bin";

/// A place in which it runs, and where all that it makes would be found.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::Builder::new().prefix("dt-").tempdir().expect("a directory"));
        for name in ["tmp", "bin"] {
            std::fs::create_dir(place.file(name)).expect("a directory");
        }
        place
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(KEYFERRY);
        command.args(["doctor", "--time", "120s"]).args(arguments).env_clear();
        command.env("PATH", parts::search_path()).env("TMPDIR", self.file("tmp"));
        command.env("HOME", self.file("home")).current_dir(self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("keyferry runs");
        self.assert_nothing_is_left();
        output
    }

    /// A program that is found before the real ones.
    fn program(&self, name: &str, script: &str) -> [String; 4] {
        let path = self.file("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let bin = self.file("bin").display().to_string();
        ["--ro".to_owned(), bin.clone(), "--env".to_owned(), format!("PATH={bin}:{USUAL}")]
    }

    fn assert_nothing_is_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.file("tmp")).expect("a directory").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(processes(&self.file("tmp").display().to_string()), Vec::<i32>::new());
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Name → state.
fn states(list: &Value) -> BTreeMap<&str, &str> {
    let all = list.as_array().expect("a list").iter();
    all.map(|one| (one["name"].as_str().expect("a name"), one["state"].as_str().expect("a state"))).collect()
}

/// What shows a sandbox the clients of the tests: Python's from PyPI, and Node's from npm.
fn clients_of_the_tests() -> Vec<String> {
    let python = parts::python();
    let base = Command::new(&python).args(["-c", "import sys; print(sys.base_prefix)"]).output();
    let base = String::from_utf8(base.expect("Python runs").stdout).expect("a path").trim().to_owned();
    let prefix = |program: &Path| {
        let bin = program.parent().expect("a folder").canonicalize().expect("a path");
        bin.parent().expect("an installation").to_owned()
    };
    let [venv, node] = [prefix(&python), prefix(&parts::node())];
    let path = format!("PATH={}/bin:{}/bin:{USUAL}", venv.display(), node.display());
    let mut arguments = vec!["--env".to_owned(), path];
    for shown in [venv, node, base.into()].iter().filter(|shown| *shown != Path::new("/usr")) {
        arguments.extend(["--ro".to_owned(), shown.display().to_string()]);
    }
    arguments
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_client_that_is_there_gets_through() {
    let place = Place::new();
    let shown = clients_of_the_tests();
    let mut arguments = vec!["--json"];
    arguments.extend(shown.iter().map(String::as_str));

    let output = place.run(&arguments);

    let report = report(&output);
    let (code, _, stderr) = said(&output);
    assert_eq!((code, stderr.as_str(), &report["ok"]), (Some(0), "", &json!(true)), "{report:#}");
    let mut checks = states(&report["checks"]);
    // Not every machine lets cgroups be made.
    let limits = checks.remove("limits").expect("what is said of limits");
    assert!(["ok", "note"].contains(&limits), "{report:#}");
    assert_eq!(checks, [("bubblewrap", "ok"), ("isolation", "ok"), ("network", "ok")].into());
    let mut clients = states(&report["clients"]);
    // What the tests do not install themselves.
    for name in ["go", "aws", "gcloud"] {
        let state = clients.remove(name).expect("what is said of it");
        assert!(["ok", "absent"].contains(&state), "{name}: {report:#}");
    }
    let ok = [
        "curl",
        "wget",
        "git",
        "gh",
        "pip",
        "npm",
        "python-urllib",
        "python-requests",
        "python-httpx",
        "node-fetch",
        "node-https",
        "java",
    ];
    let expected: BTreeMap<_, _> =
        ok.map(|name| (name, "ok")).into_iter().chain([("python-aiohttp", "note")]).collect();
    assert_eq!(clients, expected, "{report:#}");
}

#[test]
fn a_client_that_does_not_get_through_is_told_the_variable_and_the_switch() {
    let place = Place::new();
    std::fs::write(place.file("bin/other.pem"), Authority::named("another").pem()).expect("an authority");
    let other = place.file("bin/other.pem").display().to_string();
    let deaf = place.program("curl", &format!("exec /usr/bin/curl --cacert {other} \"$@\""));
    let deaf = deaf.each_ref().map(String::as_str);
    let astray = ["--env", "https_proxy=http://127.0.0.1:9"];
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let proxy = "http://127.0.0.1:3128";
    for (arguments, client, what, set, switch) in [
        (
            &deaf[..],
            "curl",
            "does not trust",
            json!(format!("CURL_CA_BUNDLE={bundle}")),
            json!(format!("--cacert {bundle}")),
        ),
        (
            &["--env", "SSL_CERT_FILE=/etc/hostname"],
            "python-urllib",
            "does not trust",
            json!(format!("SSL_CERT_FILE={bundle}")),
            Value::Null,
        ),
        (
            &astray,
            "git",
            "does not use the proxy",
            json!(format!("https_proxy={proxy}")),
            json!(format!("-c http.proxy={proxy}")),
        ),
        (&["--env", "DOCTOR_TOKEN=lost"], "wget", "shows no credential", Value::Null, Value::Null),
    ] {
        let all = [&["--json", "--only", client], arguments].concat();
        let output = place.run(&all);
        let report = report(&output);
        let (code, _, stderr) = said(&output);
        assert_eq!(
            (code, stderr.as_str(), &report["ok"]),
            (Some(1), "", &json!(false)),
            "{client}: {report:#}"
        );
        let [found] = report["clients"].as_array().expect("a list").as_slice() else {
            panic!("one was asked for: {report:#}")
        };
        assert!(found["what"].as_str().is_some_and(|said| said.contains(what)), "{client}: {found:#}");
        let expected = json!({
            "name": client, "state": "failed", "what": found["what"], "set": set, "switch": switch,
        });
        assert_eq!(found, &expected, "{client}");
    }

    let (code, text, _) = said(&place.run(&[&["--only", "curl"], &astray[..]].concat()));
    assert_eq!(code, Some(1), "{text}");
    let told = format!("set https_proxy={proxy}, or give it --proxy {proxy}\n");
    assert!(text.contains("\ncurl             failed  does not use the proxy: "), "{text}");
    assert!(text.ends_with(&told), "{text}");
}

#[test]
fn what_keeps_all_sandboxes_from_being_made_is_told_first() {
    let place = Place::new();
    let nothing = place.command(&["--json"]).env("PATH", place.file("bin")).output().expect("keyferry runs");
    let report = report(&nothing);
    assert_eq!(nothing.status.code(), Some(1), "{report:#}");
    assert_eq!(
        (states(&report["checks"]), &report["clients"]),
        ([("bubblewrap", "failed")].into(), &json!([]))
    );
    let what = report["checks"][0]["what"].as_str().unwrap_or_default();
    assert!(what.contains("apt install bubblewrap"), "{what}");
    place.assert_nothing_is_left();

    let broken = place.program("bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1");
    let mut path = OsString::from(place.file("bin"));
    path.push(":");
    path.push(parts::search_path());
    let without = place.command(&[]).env("PATH", path).output().expect("keyferry runs");
    let (code, text, _) = said(&without);
    assert_eq!(code, Some(1), "{broken:?}: {text}");
    assert!(text.contains("isolation        failed  this system cannot isolate a sandbox"), "{text}");
    place.assert_nothing_is_left();

    // A sandbox's socket would have too long a name there.
    let far = place.file(&"far".repeat(20));
    std::fs::create_dir(&far).expect("a directory");
    let mut command = place.command(&["--only", "curl"]);
    // What is set for the keyferry of the user is not for this one.
    command.env("TMPDIR", &far).env("IRON_DNS_UPSTREAM_RESOLVER", "192.0.2.1:53");
    let output = command.output().expect("keyferry runs");
    assert_eq!(said(&output).0, Some(0), "{output:?}");

    let (code, _, words) = said(&place.run(&["--only", "telnet"]));
    assert!(code == Some(2) && words.contains("possible values: curl"), "{words}");
}

#[test]
fn whoever_interrupts_it_finds_nothing_left() {
    let place = Place::new();
    let nap = format!("8{:07}", std::process::id());
    let asleep = place.program("curl", &format!("sleep {nap}"));
    let mut arguments = vec!["--only", "curl"];
    arguments.extend(asleep.iter().map(String::as_str));
    let mut child = place.command(&arguments).spawn().expect("keyferry runs");
    wait_until("it to sleep", || !processes(&format!("sleep\0{nap}")).is_empty());

    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");

    assert!(killed.success());
    assert_eq!(child.wait().expect("its end").code(), Some(1));
    wait_until("the end of the client", || processes(&nap).is_empty());
    place.assert_nothing_is_left();

    // A client that does not end is ended.
    let mut slow = vec!["--json", "--time", "2s"];
    slow.extend(&arguments);
    let mut command = Command::new(KEYFERRY);
    command.arg("doctor").args(&slow).env_clear().env("PATH", parts::search_path());
    let output = command.env("TMPDIR", place.file("tmp")).output().expect("keyferry runs");
    let what = report(&output)["clients"][0]["what"].to_string();
    assert!(what.contains("does not use the proxy within 2 s"), "{what}");
    place.assert_nothing_is_left();
}
