//! `/metrics`: what it counts is what happened, and no sandbox can make it grow.

use keyferry_config::policy::Reason;
use keyferry_tests::exposition::Page;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{ports, tunnel, within};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "sk-real-0123456789abcdef";

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { domains: [gone.example], rules: [{ host: api.example, methods: [GET, POST] }] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: EXAMPLE_API_KEY }
          replace: { proxy_value: EXAMPLE_API_KEY, match_headers: [Authorization] }
          rules: [{ host: api.example }]
"#;

/// The page, fetched by a real client.
async fn scrape(proxy: &Proxy) -> Page {
    let url = format!("http://{}/metrics", proxy.admin_address());
    let page = Sandbox::without_proxy().curl(["-i", &url]).await.success();
    let (head, body) = page.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(!page.contains(REAL), "{page}");
    Page::parse(body)
}

/// Records and counters come when a response has gone out, which its client may notice first.
async fn scrape_until(proxy: &Proxy, series: &str, value: f64) -> Page {
    within(series, async {
        loop {
            let page = scrape(proxy).await;
            if page.get(series) == value {
                return page;
            }
        }
    })
    .await
}

#[track_caller]
fn assert_counts(page: &Page, expected: &[(&str, &[(&str, f64)])]) {
    for (family, series) in expected {
        assert_eq!(page.counted(family), series.iter().copied().collect(), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_what_happened() {
    let origin = Origin::builder("api.example").alpn(&["http/1.1"]).start().await;
    let proxy =
        Proxy::builder(KEYFERRY).policy(POLICY).env("EXAMPLE_API_KEY", REAL).route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);
    let credential = ["-H", "Authorization: Bearer EXAMPLE_API_KEY"];

    // Two requests in one tunnel, one of them with a body; the origin echoes the credential.
    let url = origin.url("/a");
    let arguments = ["--http1.1", "-d", "0123456789", &url, &url].into_iter().chain(credential);
    let answers = sandbox.curl(arguments).await.success();
    let bytes = answers.len();
    // Another tunnel: the leaf, the session of TLS and the connection to the origin are there already.
    let another = sandbox.fetch(["--http1.1", &url]).await.body.len();
    // A host that nobody allowed, a name that leads nowhere, a method too many.
    sandbox.curl(["https://other.example/"]).await.failure();
    assert_eq!(sandbox.fetch([format!("https://gone.example:{}/", origin.port())]).await.status, 502);
    assert_eq!(sandbox.fetch(["--http1.1", "-X", "DELETE", &url]).await.status, 403);

    let page = scrape_until(&proxy, "keyferry_request_seconds_count", 6.0).await;

    let phase = "keyferry_upstream_phase_seconds_count";
    assert_counts(
        &page,
        &[
            (
                "keyferry_requests_total",
                &[
                    ("{outcome=\"forwarded\"}", 3.0),
                    ("{outcome=\"refused\"}", 2.0),
                    ("{outcome=\"failed\"}", 1.0),
                ],
            ),
            (
                "keyferry_refusals_total",
                &[
                    ("{reason=\"host_not_allowed\"}", 1.0),
                    ("{reason=\"method_not_allowed\"}", 1.0),
                    ("{reason=\"upstream_dns\"}", 1.0),
                ],
            ),
            ("keyferry_swaps_total", &[("", 2.0)]),
            ("keyferry_injections_total", &[]),
            ("keyferry_redactions_total", &[("", 2.0)]),
            ("keyferry_request_bytes_total", &[("", 20.0)]),
            ("keyferry_pool_hits_total", &[("", 2.0)]),
            ("keyferry_pool_misses_total", &[("", 1.0)]),
            ("keyferry_pool_evictions_total", &[]),
            ("keyferry_pool_idle", &[("", 1.0)]),
            (
                phase,
                &[
                    ("{phase=\"dns\"}", 1.0),
                    ("{phase=\"connect\"}", 1.0),
                    ("{phase=\"tls\"}", 1.0),
                    ("{phase=\"header\"}", 3.0),
                ],
            ),
            ("keyferry_upstream_failures_total", &[("{phase=\"dns\"}", 1.0)]),
            // curl keeps no session from one run to the next.
            ("keyferry_tls_resumptions_total", &[]),
            ("keyferry_tls_handshakes_total", &[("{result=\"ok\"}", 4.0)]),
            ("keyferry_leaf_mints_total", &[("", 2.0)]),
            ("keyferry_leaf_cache_hits_total", &[("", 2.0)]),
            ("keyferry_secret_fetches_total", &[("{result=\"ok\"}", 1.0)]),
            ("keyferry_policy_generation", &[("", 1.0)]),
            ("keyferry_config_reloads_total", &[]),
            ("keyferry_requests_active", &[]),
            ("keyferry_websockets_active", &[]),
            ("keyferry_audit_queue_capacity", &[("", 65536.0)]),
            ("keyferry_audit_dropped_total", &[]),
            ("keyferry_audit_stalls_total", &[]),
            ("keyferry_audit_failing", &[]),
            ("keyferry_otlp_sent_total", &[]),
            ("keyferry_otlp_dropped_total", &[]),
        ],
    );
    let accepted = "keyferry_connections_total{listener=\"tunnel\",result=\"accepted\"}";
    assert_eq!(page.get(accepted), 5.0);
    assert!(page.get("keyferry_response_bytes_total") >= (bytes + another) as f64);
    assert!(page.get("process_resident_memory_bytes") > 1e6);
    assert!(page.get("process_open_fds") > 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_stands_there_from_the_start() {
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).start().await;

    let page = scrape(&proxy).await;

    for reason in Reason::ALL {
        assert_eq!(page.get(&format!("keyferry_refusals_total{{reason=\"{reason}\"}}")), 0.0);
    }
    assert_eq!(page.get("keyferry_build_info{version=\"0.1.0\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t78_hostile_hosts_paths_and_headers_make_no_series() {
    let proxy = Proxy::builder(KEYFERRY).allow(&["*.example"]).start().await;
    let before = scrape(&proxy).await;

    for n in 0..40 {
        let host = format!("h{n}\"}}canary.example");
        let mut stream = tunnel::connect(&proxy).await;
        let request = match n % 4 {
            0 => format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n"),
            1 => format!("CONNECT canary{n}.invalid:443 HTTP/1.1\r\nHost: canary{n}.invalid:443\r\n\r\n"),
            2 => format!(
                "GET http://canary{n}.example/canary/{n} HTTP/1.1\r\nHost: canary{n}.example\r\nX-Canary-{n}: canary\r\n\r\n"
            ),
            _ => format!(
                "CANARY{n} http://canary.example/ HTTP/1.1\r\nHost: canary.example\r\ntraceparent: canary\r\n\r\n"
            ),
        };
        assert!(tunnel::exchange(&mut stream, request).await.status >= 400);
    }

    let after = scrape_until(&proxy, "keyferry_request_seconds_count", 40.0).await;
    assert_eq!(before.series(), after.series());
    assert!(!after.series().iter().any(|series| series.to_lowercase().contains("canary")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_counted_while_it_is() {
    let origin = Origin::builder("api.example").alpn(&["http/1.1"]).start().await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;

    let idle = tunnel::open(&proxy, &origin.authority()).await;
    let mut busy = tunnel::open_secure(&proxy, &origin.authority()).await;
    let request = format!("GET /gate HTTP/1.1\r\nHost: {}\r\n\r\n", origin.authority());
    let asked = tokio::spawn(async move { tunnel::exchange(&mut busy, request).await.status });
    let page = scrape_until(&proxy, "keyferry_requests_active", 1.0).await;
    assert_eq!(page.get("keyferry_tunnels_active"), 2.0);
    assert_eq!(page.get("keyferry_connections_open"), 2.0);

    origin.open_gate(1);
    assert_eq!(asked.await.expect("an answer"), 200);
    drop(idle);
    let page = scrape_until(&proxy, "keyferry_tunnels_active", 0.0).await;
    assert_eq!(page.get("keyferry_requests_active"), 0.0);
    scrape_until(&proxy, "keyferry_connections_open", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_are_told_apart_in_errors_and_metrics() {
    let closed = ports::free_port();
    let origin = Origin::builder("api.example").alpn(&["http/1.1"]).start().await;
    let untrusted = Origin::builder("tls.example").certificate_for("other.example").start().await;
    // It accepts, and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let silent_port = silent.local_addr().expect("its address").port();
    let proxy = Proxy::builder(KEYFERRY)
        .allow(&["*.example"])
        .name("silent.example")
        .port(silent_port)
        .option("upstream_response_header_timeout: 300ms")
        .route(&origin)
        .route(&untrusted)
        .name("closed.example")
        .port(closed)
        .start()
        .await;
    let sandbox = Sandbox::of(&proxy);
    let within = |what: &str| format!("{what} within 0.3 s");
    let asked = [
        (format!("https://nowhere.example:{closed}/"), "upstream_dns", "has no address".to_owned()),
        (format!("https://closed.example:{closed}/"), "upstream_connect", "could not be reached".to_owned()),
        (untrusted.url("/"), "upstream_tls", "the TLS handshake with tls.example failed".to_owned()),
        (
            format!("https://silent.example:{silent_port}/"),
            "upstream_timeout",
            within("the upstream did not finish the TLS handshake"),
        ),
        (origin.url("/stall/head"), "upstream_timeout", within("the upstream sent no response")),
    ];

    for (url, reason, words) in &asked {
        let refusal = sandbox.fetch([url]).await;
        assert_eq!(refusal.reason(), *reason, "{url}");
        let said = refusal.json()["message"].as_str().expect("text").to_owned();
        assert!(said.contains(words), "{url}: {said}");
    }

    let page = scrape_until(&proxy, "keyferry_requests_total{outcome=\"failed\"}", 5.0).await;
    let each = [("connect", 1.0), ("dns", 1.0), ("header", 1.0), ("tls", 2.0)];
    let each = each.map(|(phase, count)| (format!("{{phase=\"{phase}\"}}"), count));
    let counted: Vec<_> = page
        .counted("keyferry_upstream_failures_total")
        .into_iter()
        .map(|(labels, value)| (labels.to_owned(), value))
        .collect();
    assert_eq!(counted, each);
}

#[tokio::test(flavor = "multi_thread")]
async fn t20_a_sandbox_does_not_reach_the_page_and_a_reload_moves_it() {
    let port = ports::free_port();
    let proxy = Proxy::builder(KEYFERRY)
        .policy(POLICY)
        .env("EXAMPLE_API_KEY", REAL)
        .name("gone.example")
        .option("upstream_allow_cidrs: [\"127.0.0.0/8\"]")
        .option("allowed_ports: [\"*\"]")
        .start()
        .await;
    let before = proxy.admin_address();
    let sandbox = Sandbox::of(&proxy);
    let url = format!("http://gone.example:{}/metrics", before.port());
    assert_eq!(sandbox.fetch([&url]).await.reason(), "address_denied");

    proxy.edit(&format!("listen: \"{before}\""), &format!("listen: \"127.0.0.1:{port}\""));
    proxy.signal("HUP").await;
    proxy.wait_for_log("a new configuration is in force", 1).await;

    assert!(tokio::net::TcpStream::connect(before).await.is_err(), "the old address is closed");
    assert_eq!(
        sandbox.fetch([format!("http://gone.example:{port}/metrics")]).await.reason(),
        "address_denied"
    );
    let page = sandbox.curl(["--noproxy", "*", &format!("http://127.0.0.1:{port}/metrics")]).await.success();
    let page = Page::parse(&page);
    // The file is looked at as well: the signal may not have been the only reason to reload.
    let reloads = page.get("keyferry_config_reloads_total{result=\"ok\"}");
    assert!(reloads >= 1.0);
    assert_eq!(page.get("keyferry_policy_generation"), 1.0 + reloads);
    assert_eq!(page.get("keyferry_refusals_total{reason=\"address_denied\"}"), 2.0);

    proxy.edit("transforms:", "tranforms:");
    proxy.signal("HUP").await;
    proxy.wait_for_log("could not be reloaded", 1).await;
    let page = sandbox.curl(["--noproxy", "*", &format!("http://127.0.0.1:{port}/metrics")]).await.success();
    let page = Page::parse(&page);
    assert!(page.get("keyferry_config_reloads_total{result=\"failed\"}") >= 1.0);
    assert_eq!(page.get("keyferry_policy_generation"), 1.0 + reloads);
}
