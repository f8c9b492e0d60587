//! What goes wrong, on either side and in between: a clear answer, a record, nothing leaked.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyferry_tests::authority::{Authority, Validity};
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder, command, make_ca};
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{ports, tunnel, within};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "real-0123456789";

fn proxy() -> ProxyBuilder {
    let policy = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: API_KEY }
          replace: { proxy_value: API_KEY, match_headers: [Authorization] }
          rules: [{ host: api.example }]
"#;
    Proxy::builder(KEYFERRY).policy(policy).env("API_KEY", REAL)
}

/// Asks for something with the placeholder in it and expects this refusal, which the record repeats.
async fn expect_failure(proxy: Proxy, url: &str, status: u16, reason: &str) {
    let key = "Authorization: Bearer API_KEY";
    let answer = Sandbox::of(&proxy).fetch(["-H", key, url]).await;

    assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{}", answer.body);
    assert!(!answer.body.contains(REAL), "{}", answer.body);
    let ended = proxy.stop().await;
    ended.assert_never_wrote(REAL);
    let record = ended.only_record();
    let audit = &record["audit"];
    assert_eq!(
        json!([audit["action"], audit["reason"], audit["status_code"], record["error"], record["level"]]),
        json!(["error", reason, status, "WORDS", "ERROR"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down() {
    let port = ports::free_port();
    let proxy = proxy().name("api.example").port(port).start().await;
    expect_failure(proxy, &format!("https://api.example:{port}/"), 502, "upstream_connect").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_name_does_not_resolve() {
    let proxy = proxy().start().await;
    expect_failure(proxy, "https://api.example/", 502, "upstream_dns").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t55_an_upstream_whose_certificate_is_not_acceptable() {
    let name = "api.example";
    for origin in [
        Origin::builder(name).validity(Validity::Expired).start().await,
        Origin::builder(name).validity(Validity::NotYet).start().await,
        Origin::builder(name).certificate_for("other.example").start().await,
        Origin::builder(name).issued_by(Authority::named("nobody's")).start().await,
    ] {
        let proxy = proxy().route(&origin).start().await;
        expect_failure(proxy, &origin.url("/"), 502, "upstream_tls").await;
        assert_eq!(origin.received(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t55_an_upstream_whose_certificate_our_own_authority_issued() {
    let port = ports::free_port();
    let proxy = proxy().name("api.example").port(port).start().await;
    let leaf = proxy.authority().issue("api.example", Validity::Current).server_config(&["http/1.1"]);
    let socket = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("bind the origin");
    let handshake = tokio::spawn(async move {
        let (stream, _) = socket.accept().await.expect("a connection");
        tokio_rustls::TlsAcceptor::from(leaf).accept(stream).await.map(|_| ())
    });

    expect_failure(proxy, &format!("https://api.example:{port}/"), 502, "upstream_tls").await;

    assert!(handshake.await.expect("the origin").is_err(), "the proxy believed its own authority");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_speak_tls() {
    let origin = Origin::builder("api.example").plain().start().await;
    let proxy = proxy().route(&origin).start().await;
    let url = origin.url("/").replace("http://", "https://");
    expect_failure(proxy, &url, 502, "upstream_tls").await;
    assert_eq!(origin.received(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_resets_or_closes_before_it_answers() {
    let resets = RawOrigin::start("api.example", async |connection: RawConnection| connection.reset()).await;
    let closes = RawOrigin::start("api.example", async |mut connection: RawConnection| {
        connection.finish_sending().await;
    })
    .await;
    let stops_in_its_head = RawOrigin::start("api.example", async |mut connection: RawConnection| {
        connection.send("HTTP/1.1 200 OK\r\nContent-Le").await;
        connection.finish_sending().await;
    })
    .await;
    for origin in [resets, closes, stops_in_its_head] {
        let proxy = proxy().route_raw(&origin).start().await;
        expect_failure(proxy, &origin.url("/"), 502, "upstream_reset").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_speak_http() {
    for nonsense in
        ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "HTTP/1.1 two hundred\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"]
    {
        let origin = RawOrigin::start("api.example", move |mut connection: RawConnection| async move {
            connection.send(nonsense).await;
            connection.receive_all().await;
        })
        .await;
        let proxy = proxy().route_raw(&origin).start().await;
        expect_failure(proxy, &origin.url("/"), 502, "upstream_protocol").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_stalls_before_it_answers() {
    for alpn in ["http/1.1", "h2"] {
        let origin = Origin::builder("api.example").alpn(&[alpn]).start().await;
        let proxy = proxy().option("upstream_response_header_timeout: 300ms").route(&origin).start().await;
        expect_failure(proxy, &origin.url("/stall/head"), 504, "upstream_timeout").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_an_answer_does_not_bound_the_answer() {
    let origin = Origin::start("api.example").await;
    let proxy = proxy().option("upstream_response_header_timeout: 300ms").route(&origin).start().await;
    let mut client = Sandbox::of(&proxy).start("curl", ["-sSN", &origin.url("/lines/2")]);
    origin.open_gate(1);
    client.line().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    origin.open_gate(1);
    assert_eq!(client.line().await, "{\"line\":2}");
    client.finish().await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_its_body() {
    for (resets, flag) in [(true, "--http1.1"), (true, "--http2"), (false, "--http1.1"), (false, "--http2")] {
        let break_off = Arc::new(Notify::new());
        let told = Arc::clone(&break_off);
        let origin = RawOrigin::start("api.example", move |mut connection: RawConnection| {
            let told = Arc::clone(&told);
            async move {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf\n").await;
                told.notified().await;
                if resets {
                    connection.reset();
                } else {
                    connection.finish_sending().await;
                }
            }
        })
        .await;
        let proxy = proxy().route_raw(&origin).start().await;

        let mut client = Sandbox::of(&proxy).start("curl", ["-sSN", flag, &origin.url("/")]);
        assert_eq!(client.line().await, "half");
        break_off.notify_one();
        let ran = client.finish().await;

        assert!(!ran.status.success(), "a truncated body passed for a whole one: {ran:?}");
        let record = proxy.stop().await.only_record();
        let audit = &record["audit"];
        assert_eq!(
            json!([audit["action"], audit["reason"], audit["status_code"], record["error"]]),
            json!(["error", "upstream_reset", 200, "WORDS"]),
            "{flag}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_while_it_waits_for_an_answer() {
    for (alpn, flag) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let origin = Origin::builder("api.example").alpn(&[alpn]).start().await;
        let proxy = proxy().route(&origin).start().await;
        let client = Sandbox::of(&proxy).start("curl", ["-sSN", flag, &origin.url("/stall/head")]);
        origin.wait_for_requests(1).await;
        client.kill().await;

        let record = proxy.wait_for_records(1).await.remove(0);
        let audit = &record["audit"];
        assert_eq!(
            json!([audit["action"], audit["status_code"]]),
            json!(["client_cancel", null]),
            "{record:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_in_the_middle_of_an_answer() {
    for (alpn, flag) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let origin = Origin::builder("api.example").alpn(&[alpn]).start().await;
        let proxy = proxy().route(&origin).start().await;
        let mut client = Sandbox::of(&proxy).start("curl", ["-sSN", flag, &origin.url("/stall/body")]);
        assert_eq!(client.line().await, "the first half");
        client.kill().await;

        let record = proxy.wait_for_records(1).await.remove(0);
        let audit = &record["audit"];
        assert_eq!(
            json!([audit["action"], audit["status_code"], audit["bytes_out"]]),
            json!(["client_cancel", 200, 15]),
            "{record:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_in_the_middle_of_its_body() {
    for (alpn, flag) in [("http/1.1", "--http1.1"), ("h2", "--http2")] {
        let origin = Origin::builder("api.example").alpn(&[alpn]).start().await;
        let proxy = proxy().route(&origin).start().await;
        let mut client = Sandbox::of(&proxy).start("curl", ["-sSN", flag, "-T", "-", &origin.url("/up")]);
        client.write("the first half").await;
        origin.wait_for_requests(1).await;
        client.kill().await;

        // The upstream must not take the half for the whole.
        let payload = origin.wait_for_body(0).await.payload.expect("an end");
        assert!(!payload.complete, "{alpn}: {payload:?}");
        let record = proxy.wait_for_records(1).await.remove(0);
        assert_eq!(record["audit"]["action"], "client_cancel", "{alpn}: {record:#}");
    }
}

/// Runs the binary to its end, without a proxy to wait for.
async fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let child = command(KEYFERRY, folder).args(arguments).stderr(Stdio::piped()).spawn().expect("start it");
    let output = within("its end", child.wait_with_output()).await.expect("its output");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A folder with an authority and this configuration.
async fn folder(yaml: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    make_ca(KEYFERRY, folder.path()).await;
    std::fs::write(folder.path().join("keyferry.yaml"), yaml).expect("write the configuration");
    folder
}

fn minimal() -> String {
    format!(
        "proxy: {{ tunnel_listen: \"127.0.0.1:{}\" }}\ntls: {{ ca_cert: ca.crt, ca_key: ca.key }}\ndns: {{ enabled: false }}\n",
        ports::free_port()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_and_ends_it_with_1() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    for key in ["proxy: { tunnel_listen: ", "metrics: { listen: "] {
        let yaml = match key {
            "metrics: { listen: " => format!("{}{key}\"{address}\" }}\n", minimal()),
            _ => format!(
                "{key}\"{address}\" }}\ntls: {{ ca_cert: ca.crt, ca_key: ca.key }}\ndns: {{ enabled: false }}\n"
            ),
        };
        let folder = folder(&yaml).await;
        let (code, said) = run(folder.path(), &["proxy", "--config", "keyferry.yaml"]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&address), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_missing_or_does_not_fit_is_named_and_ends_it_with_1() {
    let folder = folder(&minimal()).await;
    let other = TempDir::new().expect("a temporary folder");
    make_ca(KEYFERRY, other.path()).await;

    std::fs::copy(other.path().join("ca.key"), folder.path().join("ca.key")).expect("another key");
    let (code, said) = run(folder.path(), &["proxy", "--config", "keyferry.yaml"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ca.key") || said.contains("ca.crt"), "{said}");

    std::fs::remove_file(folder.path().join("ca.crt")).expect("remove it");
    let (code, said) = run(folder.path(), &["proxy", "--config", "keyferry.yaml"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ca.crt") && said.contains("hint:"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_mistakes_names_each_of_them_and_ends_it_with_2() {
    let mistaken = minimal()
        + "transforms:\n  - name: allowlist\n    config:\n      domain: [api.example]\n      rules: [{ hosst: api.example }]\n";
    let folder = folder(&mistaken).await;
    for arguments in [["proxy", "--config", "keyferry.yaml"].as_slice(), &["check", "keyferry.yaml"]] {
        let (code, said) = run(folder.path(), arguments).await;
        assert_eq!(code, Some(2), "{said}");
        for word in ["keyferry.yaml:7", "domains", "keyferry.yaml:8", "hosst", "host"] {
            assert!(said.contains(word), "no {word} in {said}");
        }
    }

    for malformed in [
        "proxy: [",
        "proxy: {}\nproxy: {}\n",
        "proxy:\n\ttunnel_listen: x\n",
        "proxy: *nowhere\n",
        "- a list\n",
        "\u{0}",
    ] {
        std::fs::write(folder.path().join("keyferry.yaml"), malformed).expect("write the configuration");
        let (code, said) = run(folder.path(), &["proxy", "--config", "keyferry.yaml"]).await;
        assert_eq!(code, Some(2), "{malformed:?}: {said}");
        assert!(said.contains("keyferry.yaml"), "{malformed:?}: {said}");
    }
    let (code, said) = run(folder.path(), &["proxy", "--config", "nowhere.yaml"]).await;
    assert!(matches!(code, Some(1 | 2)) && said.contains("nowhere.yaml"), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_that_cannot_be_read_is_named_in_the_log_and_rejects_its_requests() {
    let origin = Origin::start("api.example").await;
    let policy = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example] }
  - name: secrets
    config:
      secrets:
        - source: { type: file, path: /nowhere/token }
          inject: { header: X-Token }
          rules: [{ host: api.example, paths: ["/secret/*"] }]
"#;
    let proxy = Proxy::builder(KEYFERRY).policy(policy).route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);

    let answer = sandbox.fetch([origin.url("/secret/")]).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "secret_unavailable"));
    assert_eq!(sandbox.fetch([origin.url("/open/")]).await.status, 200);

    assert_eq!(origin.received().len(), 1);
    let ended = proxy.stop().await;
    assert!(ended.stderr.contains("/nowhere/token"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_is_used_byte_for_byte() {
    let origin = Origin::start("api.example").await;
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "from a file").expect("write the secret");
    let policy = format!(
        "transforms:\n  - {{ name: allowlist, config: {{ domains: [api.example] }} }}\n  \
         - name: secrets\n    config:\n      secrets:\n        - source: {{ type: file, path: {} }}\n          \
         inject: {{ header: X-Token }}\n          rules: [{{ host: api.example }}]\n",
        path.display()
    );
    let proxy = Proxy::builder(KEYFERRY).policy(&policy).route(&origin).start().await;
    assert_eq!(Sandbox::of(&proxy).fetch([origin.url("/")]).await.status, 200);
    assert_eq!(origin.only_request().header("x-token"), Some("from a file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_closes_idle_tunnels_at_once_and_lets_the_rest_finish() {
    let origin = Origin::start("api.example").await;
    let proxy = proxy().option("drain_timeout: 50s").route(&origin).start().await;
    let authority = origin.authority();
    let mut fresh = tunnel::open(&proxy, &authority).await;
    let mut idle = tunnel::open_secure(&proxy, &authority).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    assert_eq!(tunnel::exchange(&mut idle, request).await.status, 200);
    let busy = Sandbox::of(&proxy).start("curl", ["-sS", &origin.url("/gate")]);
    origin.wait_for_requests(2).await;
    let address = proxy.address();

    proxy.terminate().await;

    let mut nothing = [0; 1];
    for stream in [&mut fresh as &mut (dyn tokio::io::AsyncRead + Unpin + Send), &mut idle] {
        let read = within("the end of an idle tunnel", stream.read(&mut nothing)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let refused = within("a refused connection", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    refused.await;
    // Only now is the busy one answered, and it gets all of its answer.
    origin.open_gate(1);
    assert!(busy.finish().await.success().contains("\"target\":\"/gate\""));
    let ended = proxy.wait().await;
    assert_eq!((ended.code, ended.records().len()), (Some(0), 3), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_waits_no_longer_than_it_is_told() {
    let origin = Origin::start("api.example").await;
    let proxy = proxy().option("drain_timeout: 500ms").route(&origin).start().await;
    let busy = Sandbox::of(&proxy).start("curl", ["-sS", &origin.url("/stall/head")]);
    origin.wait_for_requests(1).await;

    let asked = Instant::now();
    let ended = proxy.stop().await;

    assert!(asked.elapsed() >= Duration::from_millis(450), "it did not wait: {:?}", asked.elapsed());
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.records().len(), 1);
    busy.finish().await.failure();
}
