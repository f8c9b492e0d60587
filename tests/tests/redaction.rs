//! A real value never goes back to the sandbox (invariant 7).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{tunnel, within};
use serde_json::json;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "real-value-0123456789";

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example, other.example] }
  - name: secrets
    config:
      secrets:
        - { source: { type: env, var: REAL }, replace: { proxy_value: API_KEY }, rules: [{ host: api.example }] }
        - { source: { type: env, var: INJECTED }, inject: { header: x-injected }, rules: [{ host: api.example }] }
"#;

fn proxy() -> ProxyBuilder {
    Proxy::builder(KEYFERRY).policy(POLICY).env("REAL", REAL).env("INJECTED", "injected-value-42")
}

#[tokio::test(flavor = "multi_thread")]
async fn t43_an_echo_shows_the_placeholder_and_the_label() {
    for (flag, alpn) in
        [("--http1.1", "http/1.1"), ("--http2", "h2"), ("--http2", "http/1.1"), ("--http1.1", "h2")]
    {
        let origin = Origin::builder("api.example").alpn(&[alpn]).start().await;
        let proxy = proxy().route(&origin).start().await;
        let echo = Sandbox::of(&proxy)
            .curl([flag, "-sS", "-H", "Authorization: Bearer API_KEY", &origin.url("/echo")])
            .await
            .success();
        assert!(
            echo.contains("Bearer API_KEY") && echo.contains("[redacted:INJECTED]"),
            "{flag} {alpn}: {echo}"
        );
        assert!(!echo.contains(REAL) && !echo.contains("injected-value-42"), "{flag} {alpn}: {echo}");
        let seen = origin.only_request();
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {REAL}").as_str()));
        let record = proxy.stop().await.only_record();
        assert_eq!(
            record["response_transforms"],
            json!([{ "name": "redact", "action": "allow", "annotations": { "redacted": 2 } }])
        );
    }
}

/// Answers once with these bytes.
async fn answering(answer: Vec<u8>) -> RawOrigin {
    RawOrigin::start("api.example", move |mut connection: RawConnection| {
        let answer = answer.clone();
        async move {
            for piece in answer.chunks(7) {
                connection.send(piece).await;
            }
            connection.receive_all().await;
        }
    })
    .await
}

async fn fetched(answer: Vec<u8>) -> (u16, String) {
    let origin = answering(answer).await;
    let proxy = proxy().route_raw(&origin).start().await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let answer = tunnel::exchange(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer API_KEY\r\n\r\n"),
    )
    .await;
    let headers: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    (answer.status, headers + &String::from_utf8_lossy(&answer.body))
}

#[tokio::test(flavor = "multi_thread")]
async fn t44_values_are_found_in_headers_in_pieces_and_behind_every_coding() {
    let text = format!("before {REAL} between {REAL} after");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("", text.clone().into_bytes()),
        (
            "Content-Encoding: gzip\r\n",
            compress(
                "import sys, gzip; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read()))",
                &text,
            )
            .await,
        ),
        (
            "Content-Encoding: deflate\r\n",
            compress(
                "import sys, zlib; sys.stdout.buffer.write(zlib.compress(sys.stdin.buffer.read()))",
                &text,
            )
            .await,
        ),
    ];
    for (field, body) in cases {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{field}X-Echo: {REAL}\r\nLocation: /?key={REAL}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (status, seen) = fetched([head.into_bytes(), body].concat()).await;
        assert_eq!(status, 200, "{field}");
        assert!(seen.contains("before API_KEY between API_KEY after"), "{field}: {seen}");
        assert!(
            seen.contains("x-echo: API_KEY") && seen.contains("location: /?key=API_KEY"),
            "{field}: {seen}"
        );
        assert!(!seen.contains("content-length") && !seen.contains("content-encoding"), "{field}: {seen}");
        assert!(!seen.contains(REAL), "{field}: {seen}");
    }
}

/// Runs a line of Python over some text.
async fn compress(line: &str, text: &str) -> Vec<u8> {
    use tokio::io::AsyncWriteExt;
    let mut python = tokio::process::Command::new("python3")
        .args(["-c", line])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = python.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).await.expect("write");
    drop(stdin);
    within("python", python.wait_with_output()).await.expect("its output").stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn t45_encoded_echoes_are_found() {
    for encoded in [
        STANDARD.encode(REAL),
        STANDARD.encode(format!("user:{REAL}")),
        STANDARD.encode(format!("u:{REAL}")),
        REAL.bytes().map(|byte| format!("{byte:02x}")).collect(),
        REAL.bytes().map(|byte| format!("%{byte:02X}")).collect(),
    ] {
        let body = format!("<{encoded}>");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (_, seen) = fetched(answer.into_bytes()).await;
        assert!(seen.contains("API_KEY") && !seen.contains(&encoded), "{encoded}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_that_cannot_be_searched_is_not_asked_for_and_not_passed_on() {
    let (status, seen) =
        fetched(b"HTTP/1.1 200 OK\r\nContent-Encoding: compress\r\nContent-Length: 2\r\n\r\nxx".to_vec())
            .await;
    assert!(status == 502 && seen.contains("upstream_protocol"), "{seen}");

    let origin = Origin::start("api.example").await;
    let proxy = proxy().route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);
    let fields = ["-H", "Accept-Encoding: compress, gzip;q=0.5", "-H", "Range: bytes=0-3"];
    sandbox.curl(fields.into_iter().chain([origin.url("/").as_str()])).await.success();
    let seen = origin.only_request();
    assert_eq!((seen.header("accept-encoding"), seen.header("range")), (Some("gzip;q=0.5"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_without_a_secret_and_secrets_that_say_so_are_left_alone() {
    let other = Origin::start("other.example").await;
    let proxy_to_other = proxy().route(&other).start().await;
    let sandbox = Sandbox::of(&proxy_to_other);
    let answer = sandbox.curl(["-i", "-H", "Range: bytes=0-3", &other.url("/bytes/12345")]).await.success();
    assert!(answer.contains("content-length: 12345"), "{answer}");
    assert_eq!(other.only_request().header("range"), Some("bytes=0-3"));

    let origin = Origin::start("api.example").await;
    let policy = POLICY.replace("replace: {", "redact_responses: false, replace: {");
    let proxy = proxy().policy(&policy).route(&origin).start().await;
    let echo = Sandbox::of(&proxy).curl(["-H", "X-Key: API_KEY", &origin.url("/")]).await.success();
    assert!(echo.contains(REAL) && !echo.contains("injected-value-42"), "{echo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_searched_as_it_arrives_and_an_old_value_stays_hidden() {
    let origin = Origin::start("api.example").await;
    let policy = POLICY.replace("type: env, var: REAL", "type: file, path: key.txt");
    let proxy = proxy().policy(&policy).route(&origin).start().await;
    std::fs::write(proxy.file("key.txt"), "first-value-0123").expect("write the secret");
    let sandbox = Sandbox::of(&proxy);

    let mut stream = sandbox.start("curl", ["-sSN", "-H", "X-Key: API_KEY", &origin.url("/events/2")]);
    for n in 1..=2 {
        origin.open_gate(1);
        assert_eq!(stream.line().await, format!("data: {n}"));
        assert_eq!(stream.line().await, "");
    }
    stream.finish().await.success();

    std::fs::write(proxy.file("key.txt"), "second-value-0123").expect("write the secret");
    proxy.signal("HUP").await;
    proxy.wait_for_log("a new configuration is in force", 1).await;
    let fields = ["-H", "X-Old: first-value-0123", "-H", "X-New: second-value-0123"];
    let echo = sandbox.curl(fields.into_iter().chain([origin.url("/").as_str()])).await.success();
    assert!(!echo.contains("value-0123") && echo.matches("API_KEY").count() == 2, "{echo}");
}
