//! The leak hunt (T46): a text of its own in every place that holds something confidential, then everything that can be done with a
//! proxy, then a search for those texts in everything that came out, in every encoding.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Stdio;

use keyferry_tests::authority::Authority;
use keyferry_tests::origin::{Origin, Received};
use keyferry_tests::proxy::{Proxy, command};
use keyferry_tests::raw_origin::{RawConnection, RawOrigin};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{audit, ports, tunnel};
use tokio::net::TcpStream;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const IN_FORCE: &str = "a new configuration is in force";

/// What the operator keeps from everybody. Characters that each encoding treats in its own way are in all of them.
const SWAPPED: &str = "Swap/ped+Canary=\\\"01?&~";
const INJECTED: &str = "Inject/ed+Canary=\\\"02?&~";
const IN_QUERY: &str = "Query/Canary+=\"03?&~";
const BESIDE: &str = "Beside/Canary+=\"04?&~";
const INVALID: &str = "Invalid/Canary+=\"05?&~";
const INTERPOLATED: &str = "Interpolated/Canary+=06?&~";
const IN_A_NAME: &str = "In-A-Name-Canary14";
const LISTENER: &str = "ListenerCanary07";
const MANAGEMENT: &str = "Management/Canary+08";
/// What the sandbox keeps from whoever reads logs.
const OWN_BEARER: &str = "Own/Bearer+Canary=09";
const OWN_COOKIE: &str = "OwnCookieCanary10";
const OWN_QUERY: &str = "OwnQueryCanary11";
const OWN_BODY: &str = "OwnBodyCanary12";
const OWN_PASSWORD: &str = "OwnWrongPasswordCanary13";

/// Nobody may see these.
const OPERATORS: [&str; 9] =
    [IN_A_NAME, SWAPPED, INJECTED, IN_QUERY, BESIDE, INVALID, INTERPOLATED, LISTENER, MANAGEMENT];
/// The sandbox and the services may see these, our own output may not.
const SANDBOXES: [&str; 5] = [OWN_BEARER, OWN_COOKIE, OWN_QUERY, OWN_BODY, OWN_PASSWORD];

fn policy(management: u16) -> String {
    format!(
        r#"
management: {{ listen: "127.0.0.1:{management}", api_key_env: MANAGEMENT_KEY }}
log: {{ level: debug }}
transforms:
  - name: allowlist
    config:
      domains: [raw.example, gone.example, nowhere.example, untrusted.example]
      rules:
        - {{ host: api.example, methods: [GET, POST] }}
        - {{ host: api.example, paths: [/denied], action: deny }}
  - name: secrets
    config:
      secrets:
        - source: {{ type: env, var: SWAPPED }}
          replace: {{ proxy_value: SWAP_ME_PLEASE, match_query: true, match_path: true, match_body: true }}
          rules: [{{ host: api.example }}, {{ host: raw.example }}, {{ host: gone.example }}, {{ host: nowhere.example }}, {{ host: untrusted.example }}]
        - source: {{ type: file, path: store.json, json_key: token }}
          inject: {{ header: X-Injected, formatter: 'Basic {{{{ base64 "ci:" .Value }}}}' }}
          rules: [{{ host: api.example }}, {{ host: raw.example }}]
        - source: {{ type: env, var: IN_QUERY }}
          inject: {{ query_param: key }}
          rules: [{{ host: api.example, paths: ["/in-query/*"] }}, {{ host: raw.example }}]
        - source: {{ type: env, var: IN_A_NAME }}
          inject: {{ header: X-Name }}
          rules: [{{ host: raw.example }}]
        - source: {{ type: file, path: invalid.json, json_key: token }}
          replace: {{ proxy_value: UNAVAILABLE_PLEASE }}
          rules: [{{ host: api.example, paths: [/unavailable] }}]
"#
    )
}

/// Everything that came out, by where.
#[derive(Default)]
struct Out(BTreeMap<String, String>);

impl Out {
    fn add(&mut self, place: &str, text: &str) {
        writeln!(self.0.entry(place.to_owned()).or_default(), "{text}").expect("a String takes it");
    }

    fn assert_free_of(&self, canaries: &[&str], places: impl Fn(&str) -> bool) {
        for (place, text) in self.0.iter().filter(|(place, _)| places(place)) {
            for canary in canaries {
                for form in audit::forms(canary) {
                    if let Some(at) = text.find(&form) {
                        // On the boundary of a character, wherever that is.
                        let around = String::from_utf8_lossy(
                            &text.as_bytes()[at.saturating_sub(200)..(at + form.len() + 50).min(text.len())],
                        );
                        panic!("{place} holds {canary} as {form}: … {around} …");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t46_nothing_confidential_is_in_anything_that_comes_out() {
    let api = Origin::start("api.example").await;
    let untrusted =
        Origin::builder("untrusted.example").issued_by(Authority::named("nobody's authority")).start().await;
    let raw = RawOrigin::start("raw.example", misbehave).await;
    let (management, gone) = (ports::free_port(), ports::free_port());
    let proxy = Proxy::builder(KEYFERRY)
        .policy(&policy(management))
        .route(&api)
        .route(&untrusted)
        .route_raw(&raw)
        .name("gone.example")
        .port(gone)
        .auth("sandbox", LISTENER)
        .env("SWAPPED", SWAPPED)
        .env("IN_QUERY", IN_QUERY)
        .env("IN_A_NAME", IN_A_NAME)
        .env("INTERPOLATED", INTERPOLATED)
        .env("MANAGEMENT_KEY", MANAGEMENT)
        .start()
        .await;
    let store = serde_json::json!({ "token": INJECTED, "other": BESIDE }).to_string();
    std::fs::write(proxy.file("store.json"), store).expect("write a secret");
    std::fs::write(proxy.file("invalid.json"), format!("{{ \"token\" = {INVALID}")).expect("write a secret");
    let mut out = Out::default();

    // Success, with the value in every place, and echoed by the service.
    let sandbox = Sandbox::of(&proxy);
    let bearer = format!("Authorization: Bearer {OWN_BEARER}");
    let cookie = format!("Cookie: session={OWN_COOKIE}");
    let body = format!("{{\"a\":\"SWAP_ME_PLEASE\",\"b\":\"{OWN_BODY}\"}}");
    let echo = api.url(&format!("/echo/SWAP_ME_PLEASE?q={OWN_QUERY}&key=SWAP_ME_PLEASE"));
    for version in ["--http1.1", "--http2"] {
        for arguments in [
            vec![
                version,
                "-i",
                "-H",
                "X-Key: SWAP_ME_PLEASE",
                "-H",
                &bearer,
                "-H",
                &cookie,
                "-d",
                &body,
                &echo,
            ],
            vec![version, "-i", "-u", "user:SWAP_ME_PLEASE", &api.url("/in-query/x")],
            // Refusals.
            vec![version, "-i", "-X", "DELETE", "-H", &bearer, &echo],
            vec![version, "-i", "-H", "X-Key: SWAP_ME_PLEASE", &api.url("/denied")],
            vec![version, "-i", "-H", "X-Key: UNAVAILABLE_PLEASE", "-H", &bearer, &api.url("/unavailable")],
            vec![version, "-i", "-H", "X-Key: UNAVAILABLE_PLEASE", "-H", &cookie, &raw.url("/misdirected")],
            vec![version, "-i", "-H", &bearer, &format!("https://other.example/?{OWN_QUERY}")],
            vec![version, "-i", "-H", "Host: other.example", "-H", "X-Key: SWAP_ME_PLEASE", &api.url("/")],
            // What goes wrong upstream.
            vec![
                version,
                "-i",
                "-H",
                "X-Key: SWAP_ME_PLEASE",
                &format!("https://gone.example:{gone}/?{OWN_QUERY}"),
            ],
            vec![
                version,
                "-i",
                "-H",
                "X-Key: SWAP_ME_PLEASE",
                &format!("https://nowhere.example/?{OWN_QUERY}"),
            ],
            vec![version, "-i", "-H", "X-Key: SWAP_ME_PLEASE", &untrusted.url("/")],
        ] {
            let ran = sandbox.curl(["-v"].into_iter().chain(arguments)).await;
            out.add("a response", &ran.stdout);
        }
        for path in ["/status-line", "/reason", "/name", "/field", "/chunk", "/reset", "/echo", "/trailer"] {
            let ran = sandbox.curl([version, "-i", "-H", "X-Key: SWAP_ME_PLEASE", &raw.url(path)]).await;
            out.add("a response", &(ran.stdout + &ran.stderr));
        }
    }
    let stranger = Sandbox::with_proxy_url(&proxy, &proxy.url_as(Some(("sandbox", OWN_PASSWORD))));
    out.add("a response", &stranger.curl(["-i", &echo]).await.stdout);
    for head in [
        format!("GET / HTTP/1.1\r\nHost: {OWN_QUERY}\r\nAuthorization : {OWN_BEARER}\r\n\r\n"),
        format!("GET http://{OWN_QUERY}\\x/ HTTP/1.1\r\nProxy-Authorization: Basic {OWN_PASSWORD}\r\n\r\n"),
        format!("{OWN_BEARER}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nContent-Length: {OWN_BODY}\r\n\r\n"),
    ] {
        let mut stream = tunnel::connect(&proxy).await;
        out.add("a response", &format!("{:?}", tunnel::exchange(&mut stream, head).await));
    }

    // Operators' listeners, with the key and without.
    let ask = async |method: &str, path: &str, key: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", management)).await.expect("the listener");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n"
        );
        String::from_utf8_lossy(&tunnel::exchange(&mut stream, request).await.body).into_owned()
    };
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        out.add("the admin listener", &format!("{:?}", proxy.admin(path).await));
    }
    for (method, path, key) in [
        ("GET", "/v1/status", MANAGEMENT),
        ("POST", "/v1/reload", MANAGEMENT),
        ("GET", "/v1/status", OWN_BEARER),
    ] {
        out.add("the management listener", &ask(method, path, key).await);
    }

    // Documents that are wrong where a variable has put something confidential.
    proxy.wait_for_log(IN_FORCE, 1).await;
    let good = std::fs::read_to_string(proxy.file("keyferry.yaml")).expect("the configuration");
    for (old, new) in [
        ("level: debug", "level: \"${INTERPOLATED}\""),
        ("domains: [raw.example,", "domains: [\"https://${INTERPOLATED}\","),
        ("allowed_ports: [", "allowed_ports: [\"${INTERPOLATED}\", "),
        ("path: store.json", "path: store.json, ttl: \"${INTERPOLATED}\""),
    ] {
        let wrong = good.replacen(old, new, 1);
        assert_ne!(wrong, good);
        std::fs::write(proxy.file("wrong.yaml"), &wrong).expect("write a configuration");
        for arguments in [&["check", "wrong.yaml"][..], &["config", "print", "--effective", "wrong.yaml"]] {
            let ran = command(KEYFERRY, proxy.file("").as_path())
                .args(arguments)
                .env("INTERPOLATED", INTERPOLATED)
                .env("SWAPPED", SWAPPED)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .output()
                .await
                .expect("run keyferry");
            out.add("the command line", &String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()));
        }
        proxy.edit(old, new);
        out.add("the management listener", &ask("POST", "/v1/reload", MANAGEMENT).await);
        out.add("the management listener", &ask("GET", "/v1/status", MANAGEMENT).await);
        proxy.edit(new, old);
    }

    // The canaries did travel, so the search was for something.
    let arrived = serde_json::to_string(&api.received().iter().map(Received::to_json).collect::<Vec<_>>());
    let arrived = arrived.expect("JSON");
    for canary in [SWAPPED, IN_QUERY, OWN_BEARER, OWN_COOKIE, OWN_QUERY] {
        let travelled = audit::forms(canary).iter().any(|form| arrived.contains(form));
        assert!(travelled, "{canary} did not reach the service: {arrived}");
    }
    assert!(!out.0["a response"].is_empty() && out.0["a response"].contains("SWAP_ME_PLEASE"));

    let key = std::fs::read_to_string(proxy.file("ca.key")).expect("the authority's key");
    let key = key.lines().nth(1).expect("a line of it").to_owned();
    let ended = proxy.stop().await;
    assert!(ended.records().len() >= 43, "every request of above has its record: {}", ended.records().len());
    out.add("standard error", &ended.stderr);
    out.add("the audit log", &ended.audit);
    out.assert_free_of(&OPERATORS, |_| true);
    out.assert_free_of(&[&key], |_| true);
    out.assert_free_of(&SANDBOXES, |place| place != "a response");
}

/// Sends back what it was given, in ways that no HTTP library would.
async fn misbehave(mut connection: RawConnection) {
    let head = connection.head().to_owned();
    let key = connection.header("x-key").unwrap_or_default().to_owned();
    let path = head.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
    match path.as_str() {
        "/status-line" => connection.send(format!("HTTP/1.1 {key} {key}\r\n\r\n")).await,
        "/reason" => connection.send(format!("HTTP/1.1 200 {key}\r\nContent-Length: 0\r\n\r\n")).await,
        "/name" => {
            connection.send("HTTP/1.1 200 OK\r\nIn-A-Name-Canary14: x\r\nContent-Length: 0\r\n\r\n").await;
        }
        "/field" => connection.send(format!("HTTP/1.1 200 OK\r\n{key}: x\0\r\n\r\n")).await,
        "/chunk" => {
            connection.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n")).await;
        }
        "/reset" => {
            connection
                .send(format!("HTTP/1.1 200 OK\r\nX: {key}\r\nContent-Length: 9999\r\n\r\n{key}"))
                .await;
            return connection.reset();
        }
        "/trailer" => {
            let trailer = format!("0\r\nX-Trailer: {key}\r\n\r\n");
            connection.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{trailer}")).await;
        }
        _ => {
            connection
                .send(format!("HTTP/1.1 200 {key}\r\nX-Echo: {key}\r\nConnection: close\r\n\r\n{head}"))
                .await;
        }
    }
    connection.finish_sending().await;
}
