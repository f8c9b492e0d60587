//! The whole way of a new user: `keyferry up`, a secret, a grant, a request, why, and the end of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use keyferry_tests::origin::Origin;
use keyferry_tests::parts;
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::up::Up;
use keyferry_tests::within;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const VALUE: &str = "the-real-token-of-the-service";

/// A client of the principal whose proxy URL this is.
fn sandbox(url: &str, bundle: &Path) -> Sandbox {
    Sandbox::without_proxy().trusting(bundle).env("HTTPS_PROXY", url).env("https_proxy", url)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_an_enforced_request_and_back() {
    let origin = Origin::start("api.test").await;
    let up = Up::start(KEYFERRY, &[&origin]).await;
    std::fs::write(up.file("token"), VALUE).expect("write the token");
    let host = origin.authority();

    let added = up.says(&["secret", "add", "service", "--host", &host, "--value-file", "token"]).await;
    let placeholder =
        added.lines().find_map(|line| line.strip_prefix("placeholder: ")).expect("a placeholder");
    for name in ["alice", "bob"] {
        up.says(&["principal", "add", name]).await;
    }
    up.says(&["grant", "alice", "service"]).await;
    let mut urls = Vec::new();
    for name in ["alice", "bob"] {
        let created = up.run(["sandbox", "create", name, "--principal", name]).await;
        assert!(!stderr(&created).contains("warning"), "the proxy has applied it: {created:?}");
        urls.push(String::from_utf8(created.stdout).expect("text").trim().to_owned());
    }
    let bundle = Path::new(up.told("ca_bundle"));
    let (alice, bob) = (sandbox(&urls[0], bundle), sandbox(&urls[1], bundle));
    let header = format!("Authorization: Bearer {placeholder}");
    let url = origin.url("/user");

    let fetched = alice.fetch(["-H", &header, &url]).await;
    assert_eq!(fetched.status, 200, "{fetched:?}");
    assert_eq!(origin.only_request().header("authorization"), Some(format!("Bearer {VALUE}").as_str()));
    let refused = bob.curl(["-H", &header, &url]).await;
    assert!(!refused.status.success() && refused.stderr.contains("403"), "{refused:?}");
    assert_eq!(origin.received().len(), 1, "nothing of bob's arrived");

    let why = up.says(&["explain", "--principal", "alice", "GET", &url]).await;
    assert!(why.contains("forward  by secret service") && why.contains("service: "), "{why}");
    let why_not = up.says(&["explain", "--principal", "bob", "GET", &url]).await;
    assert!(why_not.contains("refuse  host_not_allowed"), "{why_not}");

    let mut open = alice.start(parts::command("curl"), ["-sSN", "-H", &header, &origin.url("/lines/3")]);
    origin.open_gate(1);
    assert_eq!(within("the first line", open.line()).await.trim(), r#"{"line":1}"#);
    assert_eq!(up.says(&["revoke", "alice", "service"]).await, "alice: service revoked\n");
    let ended = within("the open tunnel to close", open.finish()).await;
    assert!(!ended.status.success(), "{ended:?}");
    let refused = alice.curl(["-H", &header, &url]).await;
    assert!(!refused.status.success() && refused.stderr.contains("403"), "{refused:?}");

    let status = up.says(&["status"]).await;
    assert!(status.contains("ready") && status.contains("default  shared  assigned"), "{status}");
    for name in ["log", "data/keyferry.db", "data/keyferry.db-wal"] {
        let bytes = std::fs::read(up.file(name)).unwrap_or_default();
        assert!(
            !bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()),
            "{name} holds the value"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_makes_is_its_owners_and_is_there_again_after_a_restart() {
    let origin = Origin::start("api.test").await;
    let mut up = Up::start(KEYFERRY, &[&origin]).await;
    up.says(&["allow", "default", &origin.authority()]).await;
    let first = up.ready.clone();
    for (name, mode) in [
        ("", 0o700),
        ("control.sock", 0o600),
        ("identities.json", 0o600),
        ("keyring", 0o600),
        ("ca.key", 0o600),
        ("keyferry.db", 0o600),
    ] {
        let path = up.file("data").join(name);
        let found = std::fs::metadata(&path).expect("what it made").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }

    up.restart().await;

    for key in ["api_key", "ca_file", "ca_bundle"] {
        assert_eq!(up.ready[key], first[key], "{key}");
    }
    let credentials =
        |url: &serde_json::Value| url.as_str().and_then(|url| url.split('@').next()).map(str::to_owned);
    assert_eq!(credentials(&up.ready["proxy_url"]), credentials(&first["proxy_url"]));
    let client = sandbox(up.told("proxy_url"), Path::new(up.told("ca_bundle")));
    assert_eq!(client.fetch([origin.url("/")]).await.status, 200);
    let by_key = up
        .run([
            "principal",
            "list",
            "--control-url",
            up.told("control_url"),
            "--control-api-key",
            up.told("api_key"),
        ])
        .await;
    assert!(
        by_key.status.success() && String::from_utf8_lossy(&by_key.stdout).contains("default"),
        "{by_key:?}"
    );
    let without = up.run(["principal", "list", "--control-url", up.told("control_url")]).await;
    assert_eq!(without.status.code(), Some(2), "a key is needed where strangers can reach it: {without:?}");
    up.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_folder_in_which_nothing_runs_tells_what_is_kept_there() {
    let mut up = Up::start(KEYFERRY, &[]).await;
    up.says(&["principal", "add", "alice"]).await;
    up.terminate().await;
    let files = || {
        let names = std::fs::read_dir(up.file("data"))
            .expect("the folder")
            .map(|file| file.expect("a file").file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = files();

    let told = up.run(["status"]).await;

    assert_eq!(told.status.code(), Some(3), "{told:?}");
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(said.contains("does not run\nstate    ") && said.contains(" of epoch "), "{said}");
    // `up` made one of most by itself, and control its default role.
    assert!(said.contains("principals 2, roles 1, secrets 0, grants 0, proxies 1, sandboxes 1"), "{said}");
    let keyring = std::fs::read_to_string(up.file("data/keyring")).expect("the keyring");
    let key = said.lines().find_map(|line| line.strip_prefix("keyring  ")).expect("its keys");
    let id = key.strip_suffix(" (current)").expect("one key, the current one");
    assert!(keyring.contains(id), "{id}");
    assert!(stderr(&told).contains("hint: start `keyferry up`"), "{told:?}");
    assert_eq!(files(), before, "nothing was started");

    // Without the keyring too, as JSON
    std::fs::remove_file(up.file("data/keyring")).expect("lose the keyring");
    let told = up.run(["status", "--json"]).await;
    let said: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(
        (told.status.code(), &said["control"]["ready"]),
        (Some(3), &serde_json::json!(false)),
        "{said}"
    );
    assert_eq!(said["holds"]["principals"], 2, "{said}");
    assert!(said["keyring"]["error"].as_str().is_some_and(|error| error.contains("keyring")), "{said}");
    let nothing = up.run(["status", "--data-dir", "elsewhere"]).await;
    assert!(
        nothing.status.code() == Some(3) && stderr(&nothing).contains("nothing is kept there"),
        "{nothing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_over_the_same_folder_is_refused_by_name() {
    let up = Up::start(KEYFERRY, &[]).await;

    let second =
        up.run(["up", "--data-dir", "data", "--control", "127.0.0.1:0", "--proxy", "127.0.0.1:0"]).await;

    assert_eq!(second.status.code(), Some(1));
    let said = stderr(&second);
    assert!(said.contains("data is in use by another `keyferry up` (process "), "{said}");
    assert!(up.says(&["status"]).await.contains("ready"), "the first goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn t83_the_api_is_served_on_loopback_alone_and_a_lost_keyring_is_not_replaced() {
    let mut up = Up::start(KEYFERRY, &[]).await;
    up.terminate().await;
    let start =
        |control: &'static str| ["up", "--data-dir", "data", "--control", control, "--proxy", "127.0.0.1:0"];

    let open = up.run(start("0.0.0.0:0")).await;
    assert!(open.status.code() == Some(2) && stderr(&open).contains("carry live values"), "{open:?}");
    std::fs::remove_file(up.file("data/keyring")).expect("lose the keyring");
    let lost = up.run(start("127.0.0.1:0")).await;
    assert!(
        lost.status.code() == Some(2) && stderr(&lost).contains("only it opens the database beside it"),
        "{lost:?}"
    );
    assert!(!up.file("data/keyring").exists());
}
