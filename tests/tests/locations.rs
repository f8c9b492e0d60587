//! Where a placeholder is looked for, what becomes of the bytes around it, and where a value is set.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry_tests::origin::{Origin, Received, sha256_hex};
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::{Fetched, Sandbox};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

/// A proxy whose secrets block is given, before one origin.
struct Bench {
    origin: Origin,
    proxy: Proxy,
    sandbox: Sandbox,
}

impl Bench {
    async fn start(secrets: &str, values: &[(&str, &str)]) -> Self {
        Self::with(secrets, values, &["h2", "http/1.1"], None).await
    }

    async fn with(
        secrets: &str,
        values: &[(&str, &str)],
        alpn: &[&'static str],
        option: Option<&str>,
    ) -> Self {
        let origin = Origin::builder("api.example").alpn(alpn).start().await;
        let indented: String = secrets.trim().lines().map(|line| format!("        {line}\n")).collect();
        let policy = format!(
            "transforms:\n  - {{ name: allowlist, config: {{ domains: [api.example] }} }}\n  \
             - name: secrets\n    config:\n      secrets:\n{indented}"
        );
        let mut proxy = Proxy::builder(KEYFERRY).route(&origin).policy(&policy);
        for (name, value) in values {
            proxy = proxy.env(name, value);
        }
        if let Some(line) = option {
            proxy = proxy.option(line);
        }
        let proxy = proxy.start().await;
        let sandbox = Sandbox::of(&proxy);
        Self { origin, proxy, sandbox }
    }

    /// A swap of `PLACEHOLDER` for the value, in the locations of these keys.
    async fn replacing(keys: &str, value: &str) -> Self {
        let entry = format!(
            "- source: {{ type: env, var: KEY }}\n  replace: {{ proxy_value: PLACEHOLDER_VALUE, {keys} }}\n  \
             rules: [{{ host: api.example }}]"
        );
        Self::start(&entry, &[("KEY", value)]).await
    }

    /// Sends by curl, which must get a 200, and returns what the origin saw.
    async fn send(&self, path: &str, arguments: &[&str]) -> Received {
        let answer = self.fetch(path, arguments).await;
        assert_eq!(answer.status, 200, "{answer:#?}");
        self.origin.received().pop().expect("the request that was just answered")
    }

    async fn fetch(&self, path: &str, arguments: &[&str]) -> Fetched {
        self.sandbox.fetch(arguments.iter().copied().chain([self.origin.url(path).as_str()])).await
    }

    /// What the only record says about secrets.
    async fn uses(self) -> serde_json::Value {
        self.proxy.stop().await.only_record()["request_transforms"][0]["annotations"].take()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_header_is_swapped_in_any_case_and_no_other() {
    let bench = Bench::replacing("match_headers: [x-api-KEY]", "real").await;
    let headers = ["--http1.1", "-H", "X-Api-Key: PLACEHOLDER_VALUE", "-H", "X-Other: PLACEHOLDER_VALUE"];

    let seen = bench.send("/", &headers).await;

    assert_eq!((seen.header("x-api-key"), seen.header("x-other")), (Some("real"), Some("PLACEHOLDER_VALUE")));
    let expected = serde_json::json!({ "swapped": [{ "secret": "KEY", "locations": ["header:x-api-key"] }] });
    assert_eq!(bench.uses().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_names_headers() {
    let bench = Bench::replacing("match_headers: [/^X-.*-Key$/]", "real").await;
    let headers = ["-H", "x-tenant-key: a PLACEHOLDER_VALUE b", "-H", "x-key-tenant: PLACEHOLDER_VALUE"];

    let seen = bench.send("/", &headers).await;

    assert_eq!(seen.header("x-tenant-key"), Some("a real b"));
    assert_eq!(seen.header("x-key-tenant"), Some("PLACEHOLDER_VALUE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_names_every_header_is_swapped_and_every_occurrence() {
    let bench = Bench::replacing("match_headers: []", "real").await;
    let headers =
        ["-H", "Cookie: a=PLACEHOLDER_VALUE; b=PLACEHOLDER_VALUE", "-H", "X-Any: PLACEHOLDER_VALUE"];

    let seen = bench.send("/?k=PLACEHOLDER_VALUE", &headers).await;

    assert_eq!((seen.header("cookie"), seen.header("x-any")), (Some("a=real; b=real"), Some("real")));
    assert_eq!(seen.target, "/?k=PLACEHOLDER_VALUE");
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_credentials_are_decoded_whatever_the_case_of_the_scheme() {
    let bench = Bench::replacing("match_headers: [Authorization]", "re:al/ü").await;
    let credentials = STANDARD.encode("user:PLACEHOLDER_VALUE");
    for scheme in ["Basic", "basic", "BASIC"] {
        let seen = bench.send("/", &["-H", &format!("Authorization: {scheme} {credentials}")]).await;
        let expected = format!("{scheme} {}", STANDARD.encode("user:re:al/ü"));
        assert_eq!(seen.header("authorization"), Some(expected.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_query_only_the_bytes_of_the_placeholder_change() {
    let bench = Bench::replacing("match_query: true", "a&b c%d").await;

    let seen =
        bench.send("/p%7Eth?z=%201&bare&key=PLACEHOLDER_VALUE&a=x+y&z=2", &["-H", "X-Any: plain"]).await;

    assert_eq!(seen.target, "/p%7Eth?z=%201&bare&key=a%26b%20c%25d&a=x+y&z=2");
    let expected = serde_json::json!({ "swapped": [{ "secret": "KEY", "locations": ["query:key"] }] });
    assert_eq!(bench.uses().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_path_only_the_bytes_of_the_placeholder_change() {
    let bench = Bench::replacing("match_path: true", "a/b?c").await;

    let seen = bench.send("/bot%2DPLACEHOLDER_VALUE/%7Esend?x=1", &[]).await;

    assert_eq!(seen.target, "/bot%2Da%2Fb%3Fc/%7Esend?x=1");
    let expected = serde_json::json!({ "swapped": [{ "secret": "KEY", "locations": ["path"] }] });
    assert_eq!(bench.uses().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_body_arrives_with_its_exact_length_however_it_was_framed() {
    for alpn in ["http/1.1", "h2"] {
        let entry = "- source: { type: env, var: KEY }\n  replace: { proxy_value: PLACEHOLDER_VALUE, match_body: true }\n  \
                     rules: [{ host: api.example }]";
        let bench = Bench::with(entry, &[("KEY", "real")], &[alpn], None).await;
        let body = "{\"a\":\"PLACEHOLDER_VALUE\",\"b\":\"xPLACEHOLDER_VALUEx\"}";
        let swapped = "{\"a\":\"real\",\"b\":\"xrealx\"}";
        for arguments in [
            &["--http1.1", "-d", body][..],
            &["--http1.1", "-H", "Transfer-Encoding: chunked", "-d", body],
            &["--http2", "-d", body],
        ] {
            let seen = bench.send("/", arguments).await;
            assert_eq!(seen.body(), swapped, "{alpn} {arguments:?}");
            assert_eq!(
                seen.header("content-length"),
                Some(swapped.len().to_string().as_str()),
                "{alpn} {arguments:?}"
            );
            assert_eq!(seen.header("transfer-encoding"), None, "{alpn} {arguments:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_the_placeholder_arrives_byte_for_byte() {
    let bench = Bench::replacing("match_body: true", "real").await;
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let file = bench.sandbox.write("body", &content);

    let seen = bench.send("/", &["--data-binary", &format!("@{}", file.display())]).await;

    let payload = seen.payload.expect("a body that was read");
    assert_eq!((payload.length, payload.sha256), (100_000, sha256_hex(&content)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_of_several_placeholders_wins_wherever_it_stands_in_the_file() {
    let secrets = "
- source: { type: env, var: LONG }
  replace: { proxy_value: SERVICE_KEY_ADMIN }
  rules: [{ host: api.example }]
- source: { type: env, var: SHORT }
  replace: { proxy_value: SERVICE_KEY }
  rules: [{ host: api.example }]";
    let bench = Bench::start(secrets, &[("LONG", "the-admins"), ("SHORT", "everyones")]).await;

    let seen = bench.send("/", &["-H", "X-Keys: SERVICE_KEY_ADMIN SERVICE_KEY"]).await;

    assert_eq!(seen.header("x-keys"), Some("the-admins everyones"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_not_searched_again() {
    let secrets = "
- source: { type: env, var: FIRST }
  replace: { proxy_value: FIRST_PLACEHOLDER }
  rules: [{ host: api.example }]
- source: { type: env, var: SECOND }
  replace: { proxy_value: SECOND_PLACEHOLDER }
  rules: [{ host: api.example }]";
    let values = [("FIRST", "is SECOND_PLACEHOLDER"), ("SECOND", "is FIRST_PLACEHOLDER")];
    let bench = Bench::start(secrets, &values).await;

    let seen = bench.send("/", &["-H", "X-Keys: FIRST_PLACEHOLDER, SECOND_PLACEHOLDER"]).await;

    assert_eq!(seen.header("x-keys"), Some("is SECOND_PLACEHOLDER, is FIRST_PLACEHOLDER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_priority_wins_over_the_later_entry() {
    let secrets = "
- source: { type: env, var: FIRST }
  replace: { proxy_value: PLACEHOLDER_VALUE }
  priority: 10
  rules: [{ host: api.example }]
- source: { type: env, var: SECOND }
  replace: { proxy_value: PLACEHOLDER_VALUE }
  rules: [{ host: api.example, paths: [\"/v1/*\"] }]";
    let bench = Bench::start(secrets, &[("FIRST", "one"), ("SECOND", "two")]).await;
    let seen = bench.send("/v1/x", &["-H", "X-Key: PLACEHOLDER_VALUE"]).await;
    assert_eq!(seen.header("x-key"), Some("one"));

    let bench =
        Bench::start(&secrets.replace("  priority: 10\n", ""), &[("FIRST", "one"), ("SECOND", "two")]).await;
    for (path, expected) in [("/v1/x", "two"), ("/v2/x", "one")] {
        let seen = bench.send(path, &["-H", "X-Key: PLACEHOLDER_VALUE"]).await;
        assert_eq!(seen.header("x-key"), Some(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_is_set_whatever_the_sandbox_sent_in_it() {
    let secrets = "
- source: { type: env, var: KEY }
  inject: { header: Authorization, formatter: 'Basic {{ base64 \"user:\" .Value }}' }
  rules: [{ host: api.example }]
- source: { type: env, var: KEY }
  inject: { header: X-Api-Key }
  rules: [{ host: api.example, paths: [\"/v1/*\"] }]";
    let bench = Bench::start(secrets, &[("KEY", "real")]).await;
    let basic = format!("Basic {}", STANDARD.encode("user:real"));

    let seen = bench.send("/v1/", &["-H", "Authorization: Bearer mine", "-H", "X-Api-Key: mine"]).await;
    assert_eq!(
        (seen.header("authorization"), seen.header("x-api-key")),
        (Some(basic.as_str()), Some("real"))
    );

    let seen = bench.send("/v2/", &[]).await;
    assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (Some(basic.as_str()), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_parameter_is_set_and_the_others_stay_as_they_are() {
    let secrets = "
- source: { type: env, var: KEY }
  inject: { query_param: key }
  rules: [{ host: api.example }]";
    let bench = Bench::start(secrets, &[("KEY", "a&b")]).await;

    for (sent, arrives) in [
        ("/p", "/p?key=a%26b"),
        ("/p?b=%201&bare&a=x+y", "/p?b=%201&bare&a=x+y&key=a%26b"),
        ("/p?key=mine&b=2", "/p?key=a%26b&b=2"),
    ] {
        assert_eq!(bench.send(sent, &[]).await.target, arrives);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t34_a_body_is_swapped_with_an_exact_length_within_the_limit_and_streams_beyond_it() {
    let entry = "- source: { type: env, var: KEY }\n  replace: { proxy_value: PLACEHOLDER_VALUE, match_body: true }\n  \
                 rules: [{ host: api.example, paths: [\"/searched/*\"] }]";
    let limit = Some("max_request_body_bytes: 1000");
    for alpn in ["http/1.1", "h2"] {
        let bench = Bench::with(entry, &[("KEY", "real")], &[alpn], limit).await;
        for (filler, framing) in [
            (100, "X: y"),
            (100, "Transfer-Encoding: chunked"),
            (50_000, "X: y"),
            (50_000, "Transfer-Encoding: chunked"),
        ] {
            let filler = "x".repeat(filler);
            let body =
                bench.sandbox.write("body", format!("{filler} PLACEHOLDER_VALUE {filler} PLACEHOLDER_VALUE"));
            let data = format!("@{}", body.display());
            let seen = bench.send("/searched/", &["--http1.1", "-H", framing, "--data-binary", &data]).await;
            let expected = format!("{filler} real {filler} real");
            let length = (filler.len() < 1000).then(|| expected.len().to_string());
            let payload = seen.payload.clone().expect("a body that was read");
            assert_eq!(
                (payload.length, payload.sha256),
                (expected.len() as u64, sha256_hex(expected.as_bytes())),
                "{alpn} {framing}"
            );
            assert_eq!(seen.header("content-length"), length.as_deref(), "{alpn} {framing}");
        }
        let body = bench.sandbox.write("body", "PLACEHOLDER_VALUE");
        let untouched = bench.send("/other/", &["--data-binary", &format!("@{}", body.display())]).await;
        assert_eq!(untouched.body(), "PLACEHOLDER_VALUE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t34_a_compressed_body_is_searched_and_one_that_cannot_be_is_refused() {
    let bench = Bench::replacing("match_body: true", "real").await;
    let compress =
        "import gzip, sys; open(sys.argv[1], 'wb').write(gzip.compress(b'key=PLACEHOLDER_VALUE;'))";
    let decompress = "import gzip, sys; print(gzip.decompress(bytes.fromhex(sys.argv[1])).decode())";
    let file = bench.sandbox.write("body.gz", "");
    let python = async |arguments: [&str; 3]| bench.sandbox.run("python3", arguments).await.success();
    python(["-c", compress, file.to_str().expect("UTF-8")]).await;

    let data = format!("@{}", file.display());
    let seen = bench.send("/", &["-H", "Content-Encoding: gzip", "--data-binary", &data]).await;
    let bytes: String =
        seen.payload.expect("a body").bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(python(["-c", decompress, &bytes]).await.trim(), "key=real;");

    for (coding, body) in [("compress", "x"), ("gzip, br", "x"), ("gzip", "not really gzip")] {
        let answer = bench.fetch("/", &["-H", &format!("Content-Encoding: {coding}"), "-d", body]).await;
        assert_eq!((answer.status, answer.reason().as_str()), (415, "coding_not_swappable"), "{coding}");
    }
    assert_eq!(bench.origin.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_form_of_an_entry_means_the_same() {
    let secrets = "
- source: { type: env, var: KEY }
  proxy_value: PLACEHOLDER_VALUE
  match_headers: [Authorization]
  rules: [{ host: api.example }]";
    let bench = Bench::start(secrets, &[("KEY", "real")]).await;
    let seen = bench.send("/", &["-H", "Authorization: token PLACEHOLDER_VALUE"]).await;
    assert_eq!(seen.header("authorization"), Some("token real"));
}
