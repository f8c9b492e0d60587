//! Sandboxes whose identity is a socket of their own, at a proxy that is managed, with processes of the shipping binary and curl.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyferry_tests::operator::{Operator, text};
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::socket_bridge::SocketBridge;
use keyferry_tests::{parts, ports, within};
use serde_json::{Value, json};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const LIVE: &str = "live-value-0123456789";

/// A control service with two principals, of whom one was granted a secret, and a proxy that makes sockets.
struct World {
    control: Operator,
    origin: Origin,
    token: String,
    folder: tempfile::TempDir,
    secret: Value,
    grant: String,
    alice: Value,
    bob: Value,
}

impl World {
    async fn new() -> Self {
        let origin = Origin::start("api.example").await;
        let control = Operator::start(KEYFERRY);
        let (alice, bob) =
            (control.put("principals/alice", json!({})), control.put("principals/bob", json!({})));
        let secret = json!({
            "name": "vendor",
            "source": { "source_type": "control_plane", "secret": LIVE },
            "replace_config": { "proxy_value": "PH_vendor" },
            "rules": [{ "host": "api.example", "ports": [origin.port()] }],
        });
        let secret = control.put("static_secrets/vendor", secret);
        let grant = control.grant(&alice, &secret);
        let edge = json!({ "name": "edge", "kind": "shared", "namespaces": ["default"] });
        let token = text(&control.post("proxies", edge)["token"]);
        let folder = tempfile::tempdir().expect("a directory");
        Self { control, origin, token, folder, secret, grant, alice, bob }
    }

    fn sockets(&self) -> PathBuf {
        self.folder.path().join("sockets")
    }

    fn proxy(&self) -> ProxyBuilder {
        Proxy::builder(KEYFERRY)
            .route(&self.origin)
            .managed(&self.control.url(), &self.token)
            .env("KEYFERRY_SANDBOX_SOCKETS", &self.sockets().display().to_string())
    }

    fn sandbox(&self, principal: &Value) -> Value {
        let wanted = json!({ "name": "box", "principal_id": principal["id"], "transport": "unix" });
        self.control.post("sandboxes", wanted)
    }
}

fn socket(sandbox: &Value) -> PathBuf {
    text(&sandbox["socket"]).into()
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !so().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// curl in the sandbox that has this socket.
async fn inside(proxy: &Proxy, socket: &Path) -> (SocketBridge, Sandbox) {
    let bridge = SocketBridge::to(socket).await;
    let sandbox = Sandbox::with_proxy_url(proxy, &bridge.url());
    (bridge, sandbox)
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("a directory").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn t66_whoever_comes_through_a_sandboxs_socket_is_that_sandbox_whatever_it_shows() {
    let world = World::new().await;
    let proxy = world.proxy().start().await;
    let (alices, bobs) = (world.sandbox(&world.alice), world.sandbox(&world.bob));
    assert_eq!(
        (&alices["pending"], &alices["token"], &alices["proxy_url"]),
        (&json!(false), &json!(null), &json!(null))
    );
    let path = socket(&alices);
    assert_eq!(
        path,
        world.sockets().canonicalize().expect("a path").join(text(&alices["id"])).join("proxy.sock")
    );
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(
        [world.sockets(), path.parent().expect("its own").to_owned(), path.clone()].map(|it| mode(&it)),
        [0o700, 0o700, 0o600]
    );

    let (_bridge, in_alice) = inside(&proxy, &path).await;
    let (_bridge, in_bob) = inside(&proxy, &socket(&bobs)).await;
    let (header, url) = ("Authorization: Bearer PH_vendor", world.origin.url("/user"));
    assert_eq!(in_alice.fetch(["-H", header, &url]).await.status, 200);
    let request = world.origin.only_request();
    assert_eq!(request.header("authorization"), Some(format!("Bearer {LIVE}").as_str()));
    let refused = in_bob.curl(["-H", header, &url]).await;
    assert!(!refused.status.success() && refused.stderr.contains("403"), "{refused:?}");

    // Another's id, with a token or without, changes nothing and goes no further.
    let shown = format!("{}:x", text(&alices["id"]));
    let refused = in_bob.curl(["--proxy-user", &shown, &url]).await;
    assert!(refused.stderr.contains("403"), "{refused:?}");
    let shown = format!("{}:x", text(&bobs["id"]));
    assert_eq!(in_alice.fetch(["--proxy-user", &shown, "-H", header, &url]).await.status, 200);
    assert!(world.origin.received().iter().all(|it| it.header("proxy-authorization").is_none()));

    // There is no token that would do at the port.
    let at_port = Sandbox::with_proxy_url(&proxy, &proxy.url_as(Some((&text(&alices["id"]), "sbxt_0"))));
    let refused = at_port.curl([&url]).await;
    assert!(refused.stderr.contains("407"), "{refused:?}");

    let records = proxy.wait_for_records(5).await;
    let who: Vec<_> = records
        .iter()
        .map(|record| [&record["audit"]["principal"], &record["audit"]["sandbox"]].map(text_or_nothing))
        .collect();
    let of = |principal: &Value, sandbox: &Value| [text(&principal["id"]), text(&sandbox["id"])];
    let (as_alice, as_bob) = (of(&world.alice, &alices), of(&world.bob, &bobs));
    let nobody = ["unknown".to_owned(), String::new()];
    assert_eq!(who, [as_alice.clone(), as_bob.clone(), as_bob, as_alice, nobody]);
    let remote: Vec<_> = records.iter().map(|record| record["audit"]["remote_addr"].is_null()).collect();
    assert_eq!(remote, [true, true, true, true, false]);
}

fn text_or_nothing(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn t67_what_ends_a_sandbox_closes_what_it_has_open_and_removes_its_socket() {
    let world = World::new().await;
    let proxy = world.proxy().start().await;
    let header = "Authorization: Bearer PH_vendor";
    let lines = world.origin.url("/lines/9");

    for how in ["revoked", "deleted", "rotated", "its principal is gone"] {
        let alices = world.sandbox(&world.alice);
        let path = socket(&alices);
        let (_bridge, in_alice) = inside(&proxy, &path).await;
        let mut open = in_alice.start(parts::command("curl"), ["-sSN", "-H", header, &lines]);
        // Streams that were cut may still take some.
        world.origin.open_gate(3);
        within("the first line", open.line()).await;
        let id = text(&alices["id"]);
        match how {
            "revoked" => world.control.delete(&format!("grants/{}", world.grant)),
            "deleted" => world.control.delete(&format!("sandboxes/{id}")),
            "rotated" => drop(world.control.post(&format!("sandboxes/{id}/rotate"), json!({}))),
            _ => world.control.delete(&format!("principals/{}", text(&world.alice["id"]))),
        }
        let ended = within("the end of what is open", open.finish()).await;
        assert!(!ended.stdout.contains("{\"line\":9}"), "{how}: {ended:?}");
        match how {
            // Its policy is another one, and it is still who it is.
            "revoked" => {
                assert!(path.exists());
                world.control.grant(&world.alice, &world.secret);
                world.control.delete(&format!("sandboxes/{id}"));
            }
            "rotated" => {
                until("another socket in its place", async || path.exists()).await;
                world.control.delete(&format!("sandboxes/{id}"));
            }
            _ => {}
        }
        until(how, async || !path.parent().expect("its directory").exists()).await;
    }
    assert_eq!(entries(&world.sockets()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_sandbox_loses_its_socket_though_control_is_away() {
    let mut world = World::new().await;
    let proxy = world.proxy().start().await;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4);
    let wanted = json!({
        "name": "box", "principal_id": world.alice["id"], "transport": "unix", "expires_at": end.to_string(),
    });
    let path = socket(&world.control.post("sandboxes", wanted));
    world.control.kill();
    let (_bridge, in_alice) = inside(&proxy, &path).await;
    assert_eq!(
        in_alice.fetch(["-H", "Authorization: Bearer PH_vendor", &world.origin.url("/")]).await.status,
        200
    );
    until("its end", async || !path.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_was_killed_finds_its_sandboxes_again_and_one_that_ends_leaves_no_socket() {
    let world = World::new().await;
    let port = ports::free_port();
    let first = world.proxy().port(port).start().await;
    let (kept, gone) = (world.sandbox(&world.alice), world.sandbox(&world.bob));
    let (kept, gone_path) = (socket(&kept), (socket(&gone)));
    // What a sandbox has mounted is the directory.
    let directory = std::fs::File::open(kept.parent().expect("its directory")).expect("it is there");
    let (_bridge, in_alice) = inside(&first, &kept).await;
    let fetch = async |inside: &Sandbox| {
        inside.fetch(["-H", "Authorization: Bearer PH_vendor", &world.origin.url("/")]).await.status
    };
    assert_eq!(fetch(&in_alice).await, 200);
    drop(in_alice);
    first.signal("KILL").await;
    within("the end of the first", first.wait()).await;
    assert!(kept.exists() && gone_path.exists(), "nobody was there to remove them");
    world.control.delete(&format!("sandboxes/{}", text(&gone["id"])));

    let second = world.proxy().port(port).start().await;
    until("its sandbox", async || tokio::net::UnixStream::connect(&kept).await.is_ok()).await;
    let (_bridge, in_alice) = inside(&second, &kept).await;
    assert_eq!(fetch(&in_alice).await, 200);
    use std::os::unix::fs::MetadataExt;
    let same = std::fs::metadata(kept.parent().expect("its directory")).expect("it is there").ino();
    assert_eq!(directory.metadata().expect("it is open").ino(), same);
    until("what is left to be removed", async || !gone_path.parent().expect("a directory").exists()).await;

    second.stop().await;
    assert!(!kept.exists());
    assert_eq!(entries(kept.parent().expect("a directory still")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_have_sockets_says_so() {
    let world = World::new().await;
    let wanted = json!({ "name": "box", "principal_id": world.alice["id"], "transport": "unix" });
    let refused = world.control.refusal("sandboxes", wanted);
    let why = refused["error"]["details"]["transport"][0].to_string();
    assert!(
        why.contains("no proxy that serves the namespace") && why.contains("--sandbox-sockets"),
        "{refused}"
    );

    let long = world.folder.path().join("x".repeat(90));
    let open = world.folder.path().join("open");
    std::fs::create_dir(&open).expect("a directory");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("open to all");
    for (directory, why) in
        [(long, "is too long a path for the sockets of sandboxes"), (open, "is open to others")]
    {
        let output = std::process::Command::new(KEYFERRY)
            .args([
                "proxy",
                "--config",
                "keyferry.yaml",
                "--control",
                &world.control.url(),
                "--sandbox-sockets",
            ])
            .arg(&directory)
            .env("KEYFERRY_PROXY_TOKEN", &world.token)
            .current_dir(configured(world.folder.path()))
            .output()
            .expect("keyferry runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(why), "{said}");
    }
}

/// A folder with what a managed proxy needs beside.
fn configured(folder: &Path) -> &Path {
    let made = std::process::Command::new(KEYFERRY).args(["ca", "init"]).current_dir(folder).output();
    made.expect("keyferry runs");
    let yaml = "proxy: { tunnel_listen: \"127.0.0.1:0\" }\ntls: { ca_cert: ca.crt, ca_key: ca.key }\n";
    std::fs::write(folder.join("keyferry.yaml"), yaml).expect("a file");
    folder
}
