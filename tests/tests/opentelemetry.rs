//! What an OpenTelemetry collector is told: every audit record, and the spans of tunnels and requests. And what an upstream is not told.

use std::time::{Duration, Instant};

use keyferry_tests::audit::forms;
use keyferry_tests::authority::Authority;
use keyferry_tests::collector::{Collector, hexadecimal, json};
use keyferry_tests::exposition::Page;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::{Proxy, ProxyBuilder};
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::{ports, within};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const REAL: &str = "sk-real-0123456789abcdef";
const TOKEN: &str = "collector-token-0123456789";
const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { rules: [{ host: api.example }] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: EXAMPLE_API_KEY }
          replace: { proxy_value: EXAMPLE_API_KEY, match_headers: [Authorization] }
          rules: [{ host: api.example }]
"#;

async fn origin() -> Origin {
    Origin::builder("api.example").alpn(&["http/1.1"]).start().await
}

fn builder(origin: &Origin) -> ProxyBuilder {
    Proxy::builder(KEYFERRY).policy(POLICY).env("EXAMPLE_API_KEY", REAL).route(origin)
}

fn telling(origin: &Origin, endpoint: &str) -> ProxyBuilder {
    builder(origin).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
}

/// A request with a credential and a trace of its own.
fn traced(url: &str) -> Vec<String> {
    let traceparent = format!("traceparent: {CLIENT}");
    let fields = ["Authorization: Bearer EXAMPLE_API_KEY", &traceparent, "tracestate: vendor=value"];
    let fields = fields.iter().flat_map(|field| ["-H".to_owned(), (*field).to_owned()]);
    ["--http1.1".to_owned(), url.to_owned()].into_iter().chain(fields).collect()
}

async fn page(proxy: &Proxy) -> Page {
    let body = proxy.admin("/metrics").await.body;
    Page::parse(std::str::from_utf8(&body).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_audit_record_is_told_as_a_log_record() {
    let collector = Collector::start_tls().await;
    let origin = origin().await;
    let roots = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(roots.path(), Authority::trusted().pem()).expect("write the roots");
    let proxy = telling(&origin, &collector.endpoint())
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", &roots.path().display().to_string())
        .env("OTEL_EXPORTER_OTLP_HEADERS", &format!("authorization=Bearer%20{TOKEN}"))
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_SERVICE_NAME", "egress")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .start()
        .await;
    let sandbox = Sandbox::of(&proxy);

    assert_eq!(sandbox.fetch(traced(&origin.url("/v1/a?secret=query"))).await.status, 200);
    sandbox.curl(["https://other.example/"]).await.failure();

    let logs = collector.wait_for_logs(2).await;
    let resource = json!({
        "service.name": "egress", "service.version": "0.1.0", "deployment.environment.name": "test",
    });
    assert!(collector.resources().iter().all(|told| *told == resource), "{:#?}", collector.resources());
    assert!(
        collector.headers().iter().all(|head| head["authorization"] == format!("Bearer {TOKEN}").as_str())
    );
    let ended = proxy.stop().await;
    ended.assert_never_wrote(TOKEN);
    let records = ended.records();
    assert_eq!(logs.len(), 2);
    for (log, record) in logs.iter().zip(&records) {
        let mut expected: Value = record["audit"].clone();
        let audit = expected.as_object_mut().expect("an object");
        let trace_id = audit.remove("trace_id").unwrap_or(json!(""));
        audit.retain(|_, value| !value.is_null());
        for key in ["tunnel", "rejected_by", "error", "request_transforms", "response_transforms"] {
            record.get(key).map(|value| audit.insert(key.to_owned(), value.clone()));
        }
        assert_eq!(json(&log.attributes), expected);
        assert_eq!(log.severity_text, record["level"]);
        assert_eq!(json!(hexadecimal(&log.trace_id)), trace_id);
        assert!(log.time_unix_nano > 0 && log.observed_time_unix_nano >= log.time_unix_nano);
    }
    assert_eq!(records[0]["audit"]["trace_id"], TRACE);
    let told = String::from_utf8_lossy(&collector.bytes()).into_owned();
    for form in forms(REAL) {
        assert!(!told.contains(&form), "the collector was told {form}");
    }
    assert!(!told.contains("secret=query"), "a query is nobody's business");
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let [only] = found.as_slice() else { panic!("not one span {name}: {spans:#?}") };
    only
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_with_its_phases_in_the_clients_trace() {
    let collector = Collector::start().await;
    let origin = origin().await;
    let proxy = telling(&origin, &collector.endpoint()).env("OTEL_LOGS_EXPORTER", "none").start().await;

    assert_eq!(Sandbox::of(&proxy).fetch(traced(&origin.url("/v1/a?q=1"))).await.status, 200);

    let spans = collector.wait_for_spans(6).await;
    assert_eq!(spans.len(), 6, "{spans:#?}");
    let (request, tunnel) = (named(&spans, "GET"), named(&spans, "CONNECT"));
    assert_eq!(hexadecimal(&request.trace_id), TRACE);
    assert_eq!(hexadecimal(&request.parent_span_id), "b7ad6b7169203331");
    assert_eq!(request.links.len(), 1);
    assert_eq!((&request.links[0].trace_id, &request.links[0].span_id), (&tunnel.trace_id, &tunnel.span_id));
    assert!(tunnel.trace_id != request.trace_id && tunnel.parent_span_id.is_empty());
    let attributes = json(&request.attributes);
    for (key, expected) in [
        ("http.request.method", json!("GET")),
        ("http.response.status_code", json!(200)),
        ("url.scheme", json!("https")),
        ("url.path", json!("/v1/a")),
        ("server.address", json!("api.example")),
        ("server.port", json!(origin.port())),
        ("network.protocol.version", json!("1.1")),
        ("keyferry.rule", json!("allowlist.rules[0]")),
    ] {
        assert_eq!(attributes[key], expected, "{key}");
    }
    let mut from = request.start_time_unix_nano;
    for phase in ["policy", "upstream connect", "upstream request", "response"] {
        let phase = named(&spans, phase);
        assert_eq!((&phase.trace_id, &phase.parent_span_id), (&request.trace_id, &request.span_id));
        assert!(phase.start_time_unix_nano >= from, "{spans:#?}");
        assert!(phase.end_time_unix_nano >= phase.start_time_unix_nano);
        assert!(phase.end_time_unix_nano <= request.end_time_unix_nano, "{spans:#?}");
        from = phase.end_time_unix_nano;
    }
    let dialled = json(&named(&spans, "upstream connect").attributes);
    for key in ["keyferry.dns.seconds", "keyferry.connect.seconds", "keyferry.tls.seconds"] {
        assert!(dialled[key].as_f64().is_some_and(|seconds| seconds > 0.0), "{dialled}");
    }
    let told = String::from_utf8_lossy(&collector.bytes()).into_owned();
    assert!(forms(REAL).iter().all(|form| !told.contains(form)));
    let ended = proxy.stop().await;
    assert_eq!(ended.records()[0]["audit"]["trace_id"], TRACE);
    // Neither the client's trace nor ours.
    let seen = origin.only_request();
    assert_eq!((seen.header("traceparent"), seen.header("tracestate")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_trace_belongs_to_its_tunnel_and_a_failed_one_says_why() {
    let collector = Collector::start().await;
    let origin = Origin::builder("api.example").certificate_for("other.example").start().await;
    let proxy = telling(&origin, &collector.endpoint()).start().await;

    assert_eq!(Sandbox::of(&proxy).fetch([origin.url("/")]).await.reason(), "upstream_tls");

    let spans = collector.wait_for_spans(3).await;
    let (request, tunnel) = (named(&spans, "GET"), named(&spans, "CONNECT"));
    assert_eq!((&request.trace_id, &request.parent_span_id), (&tunnel.trace_id, &tunnel.span_id));
    assert_eq!(json(&request.attributes)["error.type"], "upstream_tls");
    let status = request.status.as_ref().expect("a status");
    assert_eq!((status.code, status.message.as_str()), (2, "upstream_tls"));
    let logs = collector.wait_for_logs(1).await;
    assert_eq!((&logs[0].trace_id, &logs[0].span_id), (&request.trace_id, &request.span_id));
    assert_eq!(logs[0].severity_text, "ERROR");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_trace_goes_no_further_unless_the_operator_says_so() {
    let origin = origin().await;
    // Without a collector there is no span of ours: the client's is passed on, or not.
    for (option, expected) in [("propagate_trace: false", None), ("propagate_trace: true", Some(CLIENT))] {
        let proxy = builder(&origin).option(option).start().await;
        assert_eq!(Sandbox::of(&proxy).fetch(traced(&origin.url("/"))).await.status, 200);
        let seen = origin.received().pop().expect("a request");
        assert_eq!(seen.header("traceparent"), expected, "{option}");
        assert_eq!(seen.header("tracestate"), expected.map(|_| "vendor=value"), "{option}");
        let record = proxy.stop().await.only_record();
        assert_eq!(record["audit"]["trace_id"], TRACE);
    }
    // With one, the upstream's parent is our span, in the client's trace.
    let collector = Collector::start().await;
    let proxy = telling(&origin, &collector.endpoint()).option("propagate_trace: true").start().await;
    assert_eq!(Sandbox::of(&proxy).fetch(traced(&origin.url("/"))).await.status, 200);
    let spans = collector.wait_for_spans(6).await;
    let request = named(&spans, "GET");
    let seen = origin.received().pop().expect("a request");
    let expected = format!("00-{TRACE}-{}-01", hexadecimal(&request.span_id));
    assert_eq!(seen.header("traceparent"), Some(expected.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_not_told() {
    let collector = Collector::start().await;
    let origin = origin().await;
    let proxy =
        telling(&origin, &collector.endpoint()).env("OTEL_TRACES_SAMPLER", "always_off").start().await;

    assert_eq!(Sandbox::of(&proxy).fetch(traced(&origin.url("/"))).await.status, 200);

    let logs = collector.wait_for_logs(1).await;
    assert_eq!(hexadecimal(&logs[0].trace_id), TRACE);
    proxy.stop().await;
    assert_eq!(collector.wait_for_spans(0).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_stops_nothing_and_is_seen() {
    let origin = origin().await;
    let dead = format!("http://127.0.0.1:{}", ports::free_port());
    let proxy = telling(&origin, &dead).start().await;
    let sandbox = Sandbox::of(&proxy);

    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(sandbox.fetch(["--http1.1", &origin.url("/")]).await.status, 200);
    }
    proxy.wait_for_log("the OpenTelemetry collector takes no records", 2).await;

    assert!(began.elapsed() < Duration::from_secs(20), "requests waited for the collector");
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    let ended = proxy.stop().await;
    assert_eq!((ended.code, ended.records().len()), (Some(0), 5));
    // Once for each signal, however often it is tried.
    assert_eq!(ended.stderr.matches("the OpenTelemetry collector takes no records").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let collector = Collector::start().await;
    let origin = origin().await;
    let proxy = telling(&origin, &collector.endpoint()).env("OTEL_TRACES_EXPORTER", "none").start().await;
    let sandbox = Sandbox::of(&proxy);
    let dropped = "keyferry_otlp_dropped_total{signal=\"logs\"}";
    let sent = "keyferry_otlp_sent_total{signal=\"logs\"}";

    collector.refuse_with(400);
    sandbox.fetch([origin.url("/")]).await;
    within("the record to be dropped", async {
        while page(&proxy).await.get(dropped) != 1.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    proxy.wait_for_log("takes no records", 1).await;

    collector.refuse_with(503);
    sandbox.fetch([origin.url("/")]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    collector.refuse_with(0);
    assert_eq!(collector.wait_for_logs(1).await.len(), 1);

    proxy.wait_for_log("takes records again", 1).await;
    let page = page(&proxy).await;
    assert_eq!((page.get(sent), page.get(dropped)), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_the_end_is_told() {
    let collector = Collector::start().await;
    let origin = origin().await;
    let proxy = telling(&origin, &collector.endpoint()).start().await;
    let sandbox = Sandbox::of(&proxy);
    for _ in 0..3 {
        sandbox.fetch(["--http1.1", &origin.url("/")]).await;
    }

    // At once: before the second that a batch waits for others is over.
    proxy.stop().await;

    assert_eq!(collector.wait_for_logs(3).await.len(), 3);
    let spans = collector.wait_for_spans(3 * 5).await;
    assert_eq!(spans.iter().filter(|span| span.name == "GET").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_mean_nothing_here_end_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    keyferry_tests::proxy::make_ca(KEYFERRY, folder.path()).await;
    let config = "proxy: { tunnel_listen: \"127.0.0.1:0\" }\ntls: { ca_cert: ca.crt, ca_key: ca.key }\n";
    std::fs::write(folder.path().join("keyferry.yaml"), config).expect("write the configuration");
    let run = keyferry_tests::proxy::command(KEYFERRY, folder.path())
        .args(["proxy", "--config", "keyferry.yaml"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .stderr(std::process::Stdio::piped())
        .output();
    let run = within("the end", run).await.expect("a run");
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&run.stderr),
        "error: OTEL_EXPORTER_OTLP_PROTOCOL: this version speaks http/protobuf\n  hint: leave the variable out; collectors listen for it on port 4318\n"
    );
}
