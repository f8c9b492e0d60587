//! The bench itself: each origin answers each real client directly. What fails here is not the
//! proxy's doing.

use std::sync::Arc;

use keyferry_tests::authority::{Authority, Validity};
use keyferry_tests::git_server::GitServer;
use keyferry_tests::origin::{Origin, pattern_sha256, sha256_hex};
use keyferry_tests::package_index::PackageIndex;
use keyferry_tests::parts;
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::sandbox::{Running, Sandbox};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// A sandbox without a proxy, in which clients trust the authority of the origins.
fn outside() -> Sandbox {
    let sandbox = Sandbox::without_proxy();
    let roots = sandbox.write("origins.pem", Authority::trusted().pem());
    sandbox.trusting(&roots)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_echoes_over_both_protocols() {
    let origin = Origin::start("127.0.0.1").await;
    let outside = outside();

    for (flag, protocol) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
        let url = origin.url("/v1/%7Ename?b=2&a=%201");
        let answer = outside.curl([flag, &url, "-H", "X-Key: value", "-d", "a body"]).await.success();
        let answer: Value = serde_json::from_str(&answer).unwrap();

        assert_eq!(answer["protocol"], protocol);
        assert_eq!(answer["target"], "/v1/%7Ename?b=2&a=%201");
        assert_eq!(answer["authority"], origin.authority());
        assert_eq!(answer["body"]["sha256"], sha256_hex(b"a body"));
        let seen = origin.received().pop().unwrap();
        assert_eq!((seen.header("x-key"), seen.body()), (Some("value"), "a body"));
    }
    assert_eq!((origin.connections(), origin.received().len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_speaks_only_the_protocol_it_is_told() {
    let outside = outside();
    for (alpn, spoken) in [("h2", "2"), ("http/1.1", "1.1")] {
        let origin = Origin::builder("127.0.0.1").alpn(&[alpn]).start().await;
        let arguments = ["-o", "/dev/null", "-w", "%{http_version}", &origin.url("/")];
        assert_eq!(outside.curl(arguments).await.success(), spoken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_stream_hands_out_one_item_for_each_step() {
    let origin = Origin::start("127.0.0.1").await;
    let outside = outside();
    let mut client = outside.start("curl", ["-sSN", &origin.url("/lines/3")]);
    for n in 1..=3 {
        origin.open_gate(1);
        assert_eq!(client.line().await, json!({ "line": n }).to_string());
    }
    client.finish().await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_the_pattern_arrive_whole() {
    let origin = Origin::start("127.0.0.1").await;
    let outside = outside();
    let length = 3_000_000;

    let file = outside.home().join("down");
    outside.curl(["-o", file.to_str().unwrap(), &origin.url(&format!("/bytes/{length}"))]).await.success();
    let content = std::fs::read(&file).unwrap();
    assert_eq!((content.len() as u64, sha256_hex(&content)), (length, pattern_sha256(length)));

    outside.curl(["-o", "/dev/null", "-T", file.to_str().unwrap(), &origin.url("/up")]).await.success();
    let payload = origin.wait_for_body(1).await.payload.unwrap();
    assert_eq!((payload.length, payload.sha256, payload.complete), (length, pattern_sha256(length), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_are_bad() {
    let outside = outside();
    let origins = [
        Origin::builder("127.0.0.1").validity(Validity::Expired).start().await,
        Origin::builder("127.0.0.1").validity(Validity::NotYet).start().await,
        Origin::builder("127.0.0.1").certificate_for("other.example").start().await,
        Origin::builder("127.0.0.1").issued_by(Authority::named("nobody's")).start().await,
    ];
    for origin in &origins {
        let ran = outside.curl([origin.url("/")]).await;
        assert_eq!(ran.status.code(), Some(60), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_odd_routes_answer_as_their_names_say() {
    let origin = Origin::start("127.0.0.1").await;
    let outside = outside();
    for flag in ["--http1.1", "--http2"] {
        for (path, expected) in [
            ("/trailers", "x-checksum: adds-up"),
            ("/alt-svc", "alt-svc: h3=\":443\"; ma=86400"),
            ("/redirect?to=/elsewhere", "location: /elsewhere"),
            ("/status/304", "etag: \"v1\""),
        ] {
            let head = outside.curl([flag, "-i", "-H", "TE: trailers", &origin.url(path)]).await.success();
            assert!(head.contains(expected), "{flag} {path}: {head}");
        }
    }
    let plain = Origin::builder("127.0.0.1").plain().start().await;
    assert!(outside.curl([plain.url("/")]).await.success().contains("\"authority\""));
    let ran = outside.curl(["-m", "0.3", &origin.url("/stall/body")]).await;
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(28), "the first half\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_origin_sends_what_its_script_says() {
    let go_on = Arc::new(Notify::new());
    let cut = Arc::clone(&go_on);
    let origin = RawOrigin::start("127.0.0.1", move |mut connection: RawConnection| {
        let cut = Arc::clone(&cut);
        async move {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf\n").await;
            cut.notified().await;
            connection.reset();
        }
    })
    .await;
    let outside = outside();

    let mut client = outside.start("curl", ["-sSN", &origin.url("/")]);
    assert_eq!(client.line().await, "half");
    go_on.notify_one();
    assert_eq!(client.finish().await.status.code(), Some(56));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_server_is_cloned_from_and_pushed_to() {
    let server = GitServer::start("127.0.0.1", "git", "right").await;
    let outside = outside();

    outside.run("git", ["clone", "-q", &server.url("git", "right"), "copy"]).await.success();
    assert_eq!(std::fs::read_to_string(outside.home().join("copy/README")).unwrap(), "hello\n");
    outside.write("copy/README", "changed\n");
    let identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example"];
    outside
        .run("git", [&["-C", "copy"], &identity[..], &["commit", "-qam", "second"]].concat())
        .await
        .success();
    outside.run("git", ["-C", "copy", "push", "-q"]).await.success();
    assert_eq!(server.show("README").await, "changed\n");

    let refused = outside.run("git", ["clone", "-q", &server.url("git", "wrong"), "other"]).await.failure();
    assert!(refused.contains("Authentication failed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_index_is_installed_from() {
    let index = PackageIndex::start("127.0.0.1", "reader", "right").await;
    let outside = outside();
    for (password, works) in [("right", true), ("wrong", false)] {
        let url = index.url("reader", password);
        let arguments =
            ["-m", "pip", "install", "-q", "--no-input", "--target", "site", "-i", &url, "keyferry-sample"];
        let ran = outside.run(parts::python(), arguments).await;
        assert_eq!(ran.status.success(), works, "{ran:?}");
    }
    let arguments =
        ["-c", "import sys; sys.path.append('site'); import keyferry_sample as s; print(s.GREETING)"];
    assert_eq!(outside.run(parts::python(), arguments).await.success(), "hello from the wheel\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_and_websocket_servers_serve_their_clients() {
    let outside = outside();
    let (grpc, port) = serve(&outside, "grpc_server.py").await;
    let target = format!("127.0.0.1:{port}");
    let echoed = outside.python("grpc_client.py", [&target, "key", "echo", "hello"]).await.success();
    assert_eq!(echoed, "hello\nOK adds-up\n");
    let refused = outside.python("grpc_client.py", [&target, "key", "refuse"]).await.failure();
    assert_eq!(refused, "FAILED_PRECONDITION not today\n");
    grpc.kill().await;

    let (mut websocket, port) = serve(&outside, "websocket_server.py").await;
    let url = format!("wss://127.0.0.1:{port}/");
    let said = outside.python("websocket_client.py", [&url, "key"]).await.success();
    assert_eq!(
        said,
        "permessage-deflate\n5 same\n3 same\n300000 same\n1000100 same\n7 same\nclosed 4001 as you wish\n"
    );
    assert_eq!(websocket.line().await, "authorization Bearer key");
}

async fn serve(sandbox: &Sandbox, script: &str) -> (Running, String) {
    let (certificate, key) = Authority::trusted().issue("127.0.0.1", Validity::Current).write(sandbox.home());
    let mut server = sandbox.start(parts::python(), [parts::script(script), certificate, key]);
    let port = server.line().await.strip_prefix("port ").expect("the port first").to_owned();
    (server, port)
}
