//! Clients at longer jobs than those of `every_client`, each from an empty environment with placeholders in it.

use keyferry_tests::authority::{Authority, Validity};
use keyferry_tests::git_server::GitServer;
use keyferry_tests::origin::Origin;
use keyferry_tests::package_index::PackageIndex;
use keyferry_tests::parts;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::{Running, Sandbox};
use serde_json::json;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "real-0123456789";

/// With the proxy's own authentication, and without.
const AUTH: [bool; 2] = [false, true];

fn proxy(host: &str, auth: bool) -> ProxyBuilder {
    let policy = format!(
        "transforms:\n  - {{ name: allowlist, config: {{ domains: [{host}] }} }}\n  \
         - name: secrets\n    config:\n      secrets:\n        - source: {{ type: env, var: SERVICE_TOKEN }}\n          \
         replace: {{ proxy_value: SERVICE_TOKEN, match_headers: [Authorization], match_body: true }}\n          rules: [{{ host: {host} }}]\n"
    );
    let proxy = Proxy::builder(KEYFERRY).policy(&policy).env("SERVICE_TOKEN", REAL);
    if auth { proxy.auth("sandbox", "let-me-out") } else { proxy }
}

/// A sandbox whose credentials for the proxy are wrong.
fn impostor(proxy: &Proxy) -> Sandbox {
    Sandbox::with_proxy_url(proxy, &proxy.url_as(Some(("sandbox", "guessed"))))
}

async fn api(auth: bool) -> (Origin, Proxy) {
    let origin = Origin::start("api.example").await;
    let proxy = proxy("api.example", auth).route(&origin).start().await;
    (origin, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl() {
    for auth in AUTH {
        let (origin, proxy) = api(auth).await;
        for flag in ["--http1.1", "--http2"] {
            let url = origin.url("/v1/messages");
            let answer =
                Sandbox::of(&proxy).fetch([flag, "-H", "Authorization: Bearer SERVICE_TOKEN", &url]).await;
            assert_eq!(answer.status, 200);
            let seen = origin.received().pop().expect("a request");
            assert_eq!(seen.header("authorization"), Some(format!("Bearer {REAL}").as_str()));
            assert_eq!(seen.header("proxy-authorization"), None);
        }
        proxy.stop().await.assert_never_wrote(REAL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_with_wrong_credentials_for_the_proxy_or_with_none() {
    let (origin, proxy) = api(true).await;
    let without = Sandbox::with_proxy_url(&proxy, &proxy.url_as(None));
    for sandbox in [&impostor(&proxy), &without] {
        let ran = sandbox.curl(["-w", "%{http_connect}", &origin.url("/")]).await;
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(56), "407"), "{ran:?}");
        // T64: plain HTTP through the same listener asks for them as well.
        let answer = sandbox.fetch(["http://api.example/"]).await;
        assert_eq!((answer.status, answer.body.as_str()), (407, ""));
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
    let ended = proxy.stop().await;
    let reasons: Vec<_> = ended.records().iter().map(|record| record["audit"]["reason"].clone()).collect();
    assert_eq!(reasons, ["proxy_auth_required"; 4]);
    ended.assert_never_wrote("guessed");
    ended.assert_never_wrote("let-me-out");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clone_and_push() {
    for auth in AUTH {
        let server = GitServer::start("git.example", "git", REAL).await;
        let proxy = proxy("git.example", auth).route(&server.origin).start().await;
        let sandbox = Sandbox::of(&proxy);
        let url = server.url("git", "SERVICE_TOKEN");

        sandbox.run("git", ["clone", "-q", &url, "copy"]).await.success();
        assert_eq!(
            std::fs::read_to_string(sandbox.home().join("copy/README")).expect("the clone"),
            "hello\n"
        );

        // Larger than http.postBuffer, so that git sends it chunked.
        let noise: String =
            (0..400_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
        sandbox.write("copy/noise", noise);
        sandbox.write("copy/README", "changed\n");
        sandbox.run("git", ["-C", "copy", "add", "."]).await.success();
        let commit =
            ["-C", "copy", "-c", "user.name=A", "-c", "user.email=a@example", "commit", "-qm", "second"];
        sandbox.run("git", commit).await.success();
        sandbox.run("git", ["-C", "copy", "push", "-q"]).await.success();
        assert_eq!(server.show("README").await, "changed\n");

        if auth {
            let refused = impostor(&proxy).run("git", ["clone", "-q", &url, "other"]).await.failure();
            assert!(refused.contains("407"), "{refused}");
        }
        proxy.stop().await.assert_never_wrote(REAL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_install() {
    for auth in AUTH {
        let index = PackageIndex::start("packages.example", "reader", REAL).await;
        let proxy = proxy("packages.example", auth).route(&index.origin).start().await;
        let sandbox = Sandbox::of(&proxy);
        let url = index.url("reader", "SERVICE_TOKEN");
        let install = [
            "-m",
            "pip",
            "install",
            "--no-input",
            "--retries",
            "0",
            "--target",
            "site",
            "-i",
            &url,
            "keyferry-sample",
        ];

        sandbox.run(parts::python(), install).await.success();
        let greet =
            ["-c", "import sys; sys.path.append('site'); import keyferry_sample as s; print(s.GREETING)"];
        assert_eq!(sandbox.run(parts::python(), greet).await.success(), "hello from the wheel\n");

        if auth {
            // pip says no more than that it found nothing; the proxy knows why.
            impostor(&proxy).run(parts::python(), install).await.failure();
        }
        let ended = proxy.stop().await;
        let asked = ended.records().iter().any(|record| record["audit"]["reason"] == "proxy_auth_required");
        assert_eq!(asked, auth);
        ended.assert_never_wrote(REAL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_s_client() {
    let (origin, proxy) = api(false).await;
    let sandbox = Sandbox::of(&proxy);
    let (address, target) = (proxy.address().to_string(), origin.authority());
    let ca = sandbox.ca().to_str().expect("UTF-8").to_owned();
    let verified = ["-verify_return_error", "-verify_hostname", "api.example", "-servername", "api.example"];
    for version in ["-tls1_2", "-tls1_3"] {
        let connection = ["s_client", "-proxy", &address, "-connect", &target, "-CAfile", &ca, version];
        let mut client =
            sandbox.start("openssl", connection.iter().chain(&verified).copied().chain(["-ign_eof"]));
        let request = format!("GET /by-hand HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
        client.write(&request).await;

        let output = client.finish().await.success();
        assert!(
            output.contains("Verify return code: 0 (ok)") && output.contains("HTTP/1.1 200 OK"),
            "{output}"
        );
        assert_eq!(origin.received().pop().expect("a request").target, "/by-hand");
    }
    // T40
    let old = [
        "s_client",
        "-proxy",
        &address,
        "-connect",
        &target,
        "-CAfile",
        &ca,
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
    ];
    let refused = sandbox.run("openssl", old.iter().chain(&verified).copied()).await.failure();
    assert!(refused.contains("SSL alert number"), "{refused}");
    assert_eq!(origin.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc() {
    for auth in AUTH {
        let outside = Sandbox::without_proxy();
        let (mut server, port) = serve(&outside, "grpc_server.py", "grpc.example").await;
        let proxy = proxy("grpc.example", auth).name("grpc.example").port(port).start().await;
        let sandbox = Sandbox::of(&proxy);
        let target = format!("grpc.example:{port}");

        let echoed =
            sandbox.python("grpc_client.py", [&target, "SERVICE_TOKEN", "echo", "hello"]).await.success();
        assert_eq!(echoed, "hello\nOK adds-up\n");
        assert_eq!(server.line().await, format!("authorization Bearer {REAL}"));

        let refused = sandbox.python("grpc_client.py", [&target, "SERVICE_TOKEN", "refuse"]).await.failure();
        assert_eq!(refused, "FAILED_PRECONDITION not today\n");

        let script = parts::script("grpc_client.py");
        let arguments = [script.to_str().expect("UTF-8"), &target, "SERVICE_TOKEN", "count", "3"];
        let mut client = sandbox.start(parts::python(), arguments);
        assert_eq!(server.line().await, format!("authorization Bearer {REAL}"));
        for n in 1..=3 {
            server.write("\n").await;
            assert_eq!(client.line().await, n.to_string());
        }
        assert_eq!(client.finish().await.success(), "OK\n");

        if auth {
            let arguments = [&target, "SERVICE_TOKEN", "echo", "hello"];
            let refused = impostor(&proxy).python("grpc_client.py", arguments).await.failure();
            assert!(refused.starts_with("UNAVAILABLE"), "{refused}");
        }
        proxy.stop().await.assert_never_wrote(REAL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets() {
    for auth in AUTH {
        let outside = Sandbox::without_proxy();
        let (mut server, port) = serve(&outside, "websocket_server.py", "chat.example").await;
        let proxy = proxy("chat.example", auth).name("chat.example").port(port).start().await;

        let url = format!("wss://chat.example:{port}/socket");
        let said = Sandbox::of(&proxy).python("websocket_client.py", [&url, "SERVICE_TOKEN"]).await.success();

        assert_eq!(
            said,
            "permessage-deflate\n5 same\n3 same\n300000 same\n1000100 same\n7 same\nclosed 4001 as you wish\n"
        );
        assert_eq!(server.line().await, format!("authorization Bearer {REAL}"));
        // Inside a compressed message of a megabyte, and not in one of bytes.
        assert_eq!(server.line().await, format!("token {REAL}"));
        let ended = proxy.stop().await;
        ended.assert_never_wrote(REAL);
        let record = ended.only_record();
        assert_eq!(
            (&record["audit"]["status_code"], &record["audit"]["action"]),
            (&json!(101), &json!("allow"))
        );
        let bytes = |key: &str| record["audit"][key].as_u64().expect("a count");
        assert!(bytes("bytes_in") > 300_000 && bytes("bytes_out") > 300_000, "{record:#}");
    }
}

/// Starts one of our Python servers with a certificate for `name`.
async fn serve(outside: &Sandbox, script: &str, name: &str) -> (Running, u16) {
    let (certificate, key) = Authority::trusted().issue(name, Validity::Current).write(outside.home());
    let mut server = outside.start(parts::python(), [parts::script(script), certificate, key]);
    let line = server.line().await;
    let port = line.strip_prefix("port ").and_then(|port| port.parse().ok()).expect("the port first");
    (server, port)
}
