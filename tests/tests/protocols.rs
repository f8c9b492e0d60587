//! HTTP as it passes through: both versions on both sides, framing, streams, sizes.

use std::fmt::Write as _;

use keyferry_tests::origin::{Origin, pattern_sha256, sha256_hex};
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{parts, tunnel};
use serde_json::json;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: API_KEY }
          replace: { proxy_value: API_KEY, match_headers: [X-Key] }
          rules: [{ host: api.example }]
"#;

async fn start(alpn: &[&'static str]) -> (Origin, Proxy, Sandbox) {
    let origin = Origin::builder("api.example").alpn(alpn).start().await;
    let proxy = Proxy::builder(KEYFERRY).policy(POLICY).env("API_KEY", "real").route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);
    (origin, proxy, sandbox)
}

const BOTH: &[&str] = &["h2", "http/1.1"];

#[tokio::test(flavor = "multi_thread")]
async fn every_combination_of_versions_carries_a_request() {
    for (alpn, upstream, recorded) in [("http/1.1", "http/1.1", "h1"), ("h2", "h2", "h2")] {
        let (origin, proxy, sandbox) = start(&[alpn]).await;
        for (flag, client) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
            let arguments = [flag, "-H", "X-Key: API_KEY", "-d", "body", &origin.url("/v1/%7Ename?a=%201")];
            let answer = sandbox.fetch(arguments).await;

            assert_eq!((answer.status, answer.protocol), (200, client), "{flag} to {alpn}");
            let seen = origin.received().pop().expect("a request");
            assert_eq!(
                (
                    seen.protocol,
                    seen.authority.as_str(),
                    seen.target.as_str(),
                    seen.header("x-key"),
                    seen.body()
                ),
                (upstream, origin.authority().as_str(), "/v1/%7Ename?a=%201", Some("real"), "body"),
                "{flag} to {alpn}"
            );
        }
        let protocols: Vec<_> = proxy
            .stop()
            .await
            .records()
            .iter()
            .map(|record| json!([record["audit"]["client_protocol"], record["audit"]["upstream_protocol"]]))
            .collect();
        assert_eq!(protocols, [json!(["h1", recorded]), json!(["h2", recorded])]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_on_both_sides() {
    for (flag, alpn) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
        let (origin, proxy, sandbox) = start(&[alpn]).await;
        let mut config = String::new();
        for n in 0..5 {
            writeln!(
                config,
                "url = {}\noutput = /dev/null\nwrite-out = \"%{{num_connects}} \"",
                origin.url(&format!("/{n}"))
            )
            .expect("a String takes it");
            config += "next\n";
        }
        let config = sandbox.write("requests", config.trim_end_matches("next\n"));
        let connects = sandbox.curl([flag, "-K", config.to_str().expect("UTF-8")]).await.success();

        assert_eq!(connects.trim(), "1 0 0 0 0", "{alpn}");
        assert_eq!((origin.received().len(), origin.connections()), (5, 1), "{alpn}");
        drop(proxy);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_streams_share_a_tunnel() {
    let (origin, proxy, sandbox) = start(&["h2"]).await;
    let urls = format!("{}[1-20]", origin.url("/gate?n="));
    let client =
        sandbox.start("curl", ["-sS", "--http2", "-Z", "--parallel-max", "20", "-o", "/dev/null", &urls]);

    // All twenty wait at the gate at once.
    origin.wait_for_requests(20).await;
    origin.open_gate(20);

    client.finish().await.success();
    assert_eq!(proxy.stop().await.records().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_arrive() {
    for alpn in BOTH {
        let (origin, _proxy, sandbox) = start(&[alpn]).await;
        for flag in ["--http1.1", "--http2"] {
            let answer =
                sandbox.curl([flag, "-i", "-H", "TE: trailers", &origin.url("/trailers")]).await.success();
            assert!(
                answer.contains("content\n") && answer.contains("x-checksum: adds-up"),
                "{flag} to {alpn}: {answer}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_delivered_item_by_item_to_curl() {
    for (alpn, flag) in
        [("http/1.1", "--http1.1"), ("h2", "--http2"), ("h2", "--http1.1"), ("http/1.1", "--http2")]
    {
        let (origin, _proxy, sandbox) = start(&[alpn]).await;
        for (path, item) in [("/events/3", "data: "), ("/lines/3", "{\"line\":")] {
            let mut client = sandbox.start("curl", ["-sSN", flag, &origin.url(path)]);
            // Each item leaves the origin only after the one before has reached the client.
            for n in 1..=3 {
                origin.open_gate(1);
                let line = client.line().await;
                assert!(line.starts_with(item) && line.contains(&n.to_string()), "{flag} to {alpn}: {line}");
                if path.starts_with("/events") {
                    assert_eq!(client.line().await, "");
                }
            }
            client.finish().await.success();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_delivered_item_by_item_to_python() {
    let (origin, _proxy, sandbox) = start(BOTH).await;
    for library in ["requests", "httpx"] {
        let script = parts::script("stream_client.py");
        let arguments = [script.to_str().expect("UTF-8"), library, &origin.url("/events/3")];
        let mut client = sandbox.start(parts::python(), arguments);
        for n in 1..=3 {
            origin.open_gate(1);
            assert_eq!(client.line().await, format!("data: {n}"), "{library}");
        }
        client.finish().await.success();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_reaches_the_origin_as_it_is_sent() {
    let (origin, _proxy, sandbox) = start(BOTH).await;
    let mut client = sandbox.start("curl", ["-sSN", "-T", "-", "--http1.1", &origin.url("/up")]);
    client.write("the first half, ").await;

    // The head has arrived while the body is far from its end.
    origin.wait_for_requests(1).await;
    assert_eq!(origin.received()[0].payload, None);
    client.write("and the second").await;

    client.finish().await.success();
    assert_eq!(origin.only_request().body(), "the first half, and the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn alt_svc_is_removed() {
    // T22: it would send the next request over UDP, past the proxy.
    let (origin, _proxy, sandbox) = start(BOTH).await;
    for flag in ["--http1.1", "--http2"] {
        let answer = sandbox.curl([flag, "-i", &origin.url("/alt-svc")]).await.success();
        assert!(answer.contains("here") && !answer.to_ascii_lowercase().contains("alt-svc"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_the_clients_to_follow() {
    let (origin, proxy, sandbox) = start(BOTH).await;
    let url = origin.url("/redirect?to=https://unlisted.example/");

    let answer = sandbox.curl(["-i", &url]).await.success();
    assert!(answer.contains("302") && answer.contains("location: https://unlisted.example/"), "{answer}");

    let followed = sandbox.curl(["-L", "-w", "%{http_connect}", &url]).await;
    assert_eq!((followed.status.code(), followed.stdout.as_str()), (Some(56), "403"), "{followed:?}");
    assert!(!proxy.dns().was_asked_for("unlisted.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_have_none() {
    for alpn in BOTH {
        let (origin, _proxy, sandbox) = start(&[alpn]).await;
        for flag in ["--http1.1", "--http2"] {
            for (path, status) in [("/status/204", 204), ("/status/304", 304)] {
                let answer = sandbox.fetch([flag, &origin.url(path)]).await;
                assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{flag} to {alpn}");
            }
            let head = sandbox.curl([flag, "-I", &origin.url("/bytes/12345")]).await.success();
            assert!(head.contains("content-length: 12345"), "{flag} to {alpn}: {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    for alpn in BOTH {
        let (origin, proxy, sandbox) = start(&[alpn]).await;
        let arguments =
            ["-v", "--http1.1", "--expect100-timeout", "50", "-H", "Expect: 100-continue", "-d", "the body"];
        let url = origin.url("/");
        let ran = sandbox.curl(arguments.iter().copied().chain([url.as_str()])).await;
        assert!(ran.stderr.contains("< HTTP/1.1 100 Continue"), "{}", ran.stderr);
        assert_eq!(origin.only_request().body(), "the body");
        drop(proxy);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_megabytes_arrive_whole_in_both_directions() {
    for alpn in BOTH {
        let (origin, _proxy, sandbox) = start(&[alpn]).await;
        for flag in ["--http1.1", "--http2"] {
            round_trip(&origin, &sandbox, flag, 3_000_000).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn size_100_mb_arrives_whole_over_http1_and_is_never_held() {
    let (origin, proxy, sandbox) = start(&["http/1.1"]).await;
    round_trip(&origin, &sandbox, "--http1.1", 100_000_000).await;
    let peak = proxy.peak_memory();
    assert!(peak < 90_000_000, "the proxy used {peak} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn size_100_mb_arrives_whole_over_http2_and_is_never_held() {
    let (origin, proxy, sandbox) = start(&["h2"]).await;
    round_trip(&origin, &sandbox, "--http2", 100_000_000).await;
    let peak = proxy.peak_memory();
    assert!(peak < 90_000_000, "the proxy used {peak} bytes");
}

/// Down into a file, then up from it.
async fn round_trip(origin: &Origin, sandbox: &Sandbox, flag: &str, length: u64) {
    let expected = pattern_sha256(length);
    let file = sandbox.home().join("content");
    let path = file.to_str().expect("UTF-8");
    sandbox.curl([flag, "-o", path, &origin.url(&format!("/bytes/{length}"))]).await.success();
    let content = std::fs::read(&file).expect("the download");
    assert_eq!((content.len() as u64, sha256_hex(&content)), (length, expected.clone()), "{flag} down");

    sandbox.curl([flag, "-o", "/dev/null", "-T", path, &origin.url("/up")]).await.success();
    let last = origin.received().len() - 1;
    let payload = origin.wait_for_body(last).await.payload.expect("a body that has ended");
    assert_eq!((payload.length, payload.sha256, payload.complete), (length, expected, true), "{flag} up");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_passes_where_a_rule_says_so_and_carries_no_value_unless_it_says_that_too() {
    let origin = Origin::builder("plain.example").plain().start().await;
    let policy = |secret_schemes: &str| {
        format!(
            "transforms:\n  - {{ name: allowlist, config: {{ rules: [{{ host: plain.example, schemes: [http] }}] }} }}\n  \
             - name: secrets\n    config:\n      secrets:\n        - source: {{ type: env, var: API_KEY }}\n          \
             replace: {{ proxy_value: API_KEY }}\n          rules: [{{ host: plain.example{secret_schemes} }}]\n"
        )
    };
    let url = origin.url("/v1/%7Ename?a=%201");

    // T54: a value never travels in clear text by default.
    let proxy =
        Proxy::builder(KEYFERRY).policy(&policy("")).env("API_KEY", "real").route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);
    let answer = sandbox.fetch(["-H", "X-Key: API_KEY", &url]).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "placeholder_misdirected"));
    assert_eq!(origin.connections(), 0);
    assert_eq!(sandbox.fetch([&url]).await.status, 200);
    assert_eq!(origin.only_request().target, "/v1/%7Ename?a=%201");

    let swapping = policy(", schemes: [http]");
    let proxy =
        Proxy::builder(KEYFERRY).policy(&swapping).env("API_KEY", "real").route(&origin).start().await;
    let answer = Sandbox::of(&proxy).fetch(["-H", "X-Key: API_KEY", &url]).await;
    assert_eq!(answer.status, 200);
    let seen = origin.received().pop().expect("a request");
    assert_eq!((seen.header("x-key"), seen.authority.as_str()), (Some("real"), origin.authority().as_str()));
    let record = proxy.stop().await.only_record();
    assert_eq!((&record["audit"]["scheme"], &record["audit"]["mode"]), (&json!("http"), &json!("plain")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_between_client_and_proxy_stays_there() {
    // T30
    let (origin, proxy, _sandbox) = start(&["http/1.1"]).await;
    let mut stream = tunnel::open_secure(&proxy, &origin.authority()).await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, X-Hop, X-Key\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authorization: Basic c2FuZGJveDpzZWNyZXQ=\r\nProxy-Connection: keep-alive\r\nX-End: kept\r\n\r\n",
        origin.authority()
    );
    assert_eq!(tunnel::exchange(&mut stream, request).await.status, 200);

    let seen = origin.only_request();
    for name in ["connection", "x-hop", "keep-alive", "proxy-authorization", "proxy-connection"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-end"), Some("kept"));
}
