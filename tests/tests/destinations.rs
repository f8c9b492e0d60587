//! Destination confusion: whatever names a destination names the same one, and none that is not meant.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyferry_tests::http1::Answer;
use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::Sandbox;
use keyferry_tests::tunnel::{self, Encrypted, Hello};
use keyferry_tests::within;
use rustls::AlertDescription;
use serde_json::{Value, json};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

async fn allowing(domains: &[&str]) -> (Origin, Proxy) {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(domains).route(&origin).name("other.example").start().await;
    (origin, proxy)
}

fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

fn refusal(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

/// Reasons in the audit log, in order; null for what was allowed.
async fn reasons(proxy: Proxy) -> Value {
    proxy.stop().await.records().iter().map(|record| record["audit"]["reason"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn t02_a_host_other_than_the_tunnels() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let (authority, port) = (origin.authority(), origin.port());

    for host in
        [format!("other.example:{port}"), "api.example".to_owned(), format!("api.example:{}", port ^ 1)]
    {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        assert_eq!(
            code(&tunnel::exchange(&mut stream, get("/", &host)).await),
            refusal(421, "destination_mismatch")
        );
    }
    assert_eq!(origin.connections(), 0);

    // The same host in other words.
    for host in [format!("API.Example:{port}"), format!("api.example.:{port}")] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        assert_eq!(tunnel::exchange(&mut stream, get("/", &host)).await.status, 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t02_no_host_or_two() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    let authority = origin.authority();
    for request in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {authority}\r\nHost: {authority}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {authority}\r\nHost: other.example\r\n\r\n"),
    ] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        assert_eq!(tunnel::exchange(&mut stream, &request).await.status, 400, "{request}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_a_server_name_other_than_the_tunnels() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;

    let stream = tunnel::open(&proxy, &origin.authority()).await;
    let error =
        tunnel::secure(&proxy, stream, Hello::http1("other.example")).await.expect_err("no handshake");

    assert_eq!(tunnel::alert(&error), Some(AlertDescription::UnrecognisedName), "{error}");
    assert_eq!(origin.connections(), 0);
    let record = proxy.stop().await.only_record();
    assert_eq!(
        json!([record["audit"]["mode"], record["audit"]["reason"], record["audit"]["sni"]]),
        json!(["tunnel", "destination_mismatch", "other.example"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_a_handshake_without_a_server_name_means_the_tunnels_host() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    let stream = tunnel::open(&proxy, &origin.authority()).await;
    let hello = Hello { sni: false, ..Hello::http1("api.example") };
    let mut stream = tunnel::secure(&proxy, stream, hello).await.expect("a handshake");
    assert_eq!(tunnel::exchange(&mut stream, get("/", &origin.authority())).await.status, 200);
    assert_eq!(proxy.stop().await.only_record()["audit"]["sni"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_of_an_encrypted_client_hello_the_outer_name_is_judged_and_the_inner_one_reaches_nobody() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    // Browsers send something that looks like one wherever they go.
    let stream = tunnel::open(&proxy, &origin.authority()).await;
    let hello = Hello { encrypted: Encrypted::Grease, ..Hello::http1("api.example") };
    let mut stream = tunnel::secure(&proxy, stream, hello).await.expect("a handshake");
    assert_eq!(tunnel::exchange(&mut stream, get("/", &origin.authority())).await.status, 200);
    drop(stream);

    for (outer, alert) in [("other.example", Some(AlertDescription::UnrecognisedName)), ("api.example", None)]
    {
        let stream = tunnel::open(&proxy, &origin.authority()).await;
        let hello = Hello { encrypted: Encrypted::Behind(outer), ..Hello::http1("hidden.example") };
        let error = tunnel::secure(&proxy, stream, hello).await.expect_err("no handshake");
        assert_eq!(tunnel::alert(&error), alert, "{outer}: {error}");
    }
    assert_eq!(origin.connections(), 1);
    let ended = proxy.stop().await;
    assert!(ended.records().iter().any(|record| record["audit"]["sni"] == "other.example"));
    ended.assert_never_wrote("hidden.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn t03_an_authority_other_than_the_tunnels_ends_its_stream_and_no_other() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let stream = tunnel::open(&proxy, &origin.authority()).await;
    let stream = tunnel::secure(&proxy, stream, Hello::http2("api.example")).await.expect("a handshake");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut client, connection) = handshake.expect("an HTTP/2 connection");
    tokio::spawn(connection);

    let own = origin.authority();
    let other = format!("other.example:{}", origin.port());
    for (authority, host, status) in
        [(&own, None, 200), (&other, None, 421), (&own, Some(&other), 421), (&own, Some(&own), 200)]
    {
        let mut request = hyper::Request::get(format!("https://{authority}/"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).expect("a request");
        let answer = within("an answer", client.send_request(request))
            .await
            .expect("an answer on a living connection");
        assert_eq!(answer.status(), status, "{authority} {host:?}");
        answer.into_body().collect().await.expect("its body");
    }
    assert_eq!(origin.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_an_absolute_target_inside_a_tunnel_names_the_tunnels_host_and_is_cut_to_its_path() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let authority = origin.authority();

    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    let own = get(&format!("https://{authority}/path?q=1"), &authority);
    assert_eq!(tunnel::exchange(&mut stream, own).await.status, 200);
    assert_eq!(origin.only_request().target, "/path?q=1");

    for target in [format!("https://other.example:{}/", origin.port()), format!("http://{authority}/")] {
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        let answer = tunnel::exchange(&mut stream, get(&target, &authority)).await;
        assert_eq!(code(&answer), refusal(421, "destination_mismatch"), "{target}");
    }
    assert_eq!(origin.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_the_second_request_of_a_tunnel_is_judged_like_the_first() {
    let (origin, proxy) = allowing(&["api.example", "other.example"]).await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;

    assert_eq!(tunnel::exchange(&mut stream, get("/", &authority)).await.status, 200);
    let other = get("/", &format!("other.example:{}", origin.port()));
    assert_eq!(code(&tunnel::exchange(&mut stream, other).await), refusal(421, "destination_mismatch"));

    assert_eq!(origin.received().len(), 1);
    assert_eq!(reasons(proxy).await, json!([null, "destination_mismatch"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_a_name_has_one_form() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    for spelling in ["API.EXAMPLE", "api.example."] {
        let authority = format!("{spelling}:{}", origin.port());
        let stream = tunnel::open(&proxy, &authority).await;
        let mut stream =
            tunnel::secure(&proxy, stream, Hello::http1("api.example")).await.expect("a handshake");
        assert_eq!(tunnel::exchange(&mut stream, get("/", &authority)).await.status, 200, "{spelling}");
    }
    let records = proxy.stop().await.records();
    assert!(records.iter().all(|record| record["audit"]["host"] == "api.example"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_t10_an_address_in_any_spelling_is_no_way_around_names() {
    let (origin, proxy) = allowing(&["*"]).await;
    let spellings = [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "0.0.0.0",
        "[::]",
    ];
    for host in spellings {
        let (_, answer) = tunnel::ask(&proxy, &format!("{host}:{}", origin.port())).await;
        assert!([400, 403].contains(&answer.status), "{host}: {answer:?}");
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
    assert_eq!(proxy.stop().await.records().len(), spellings.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn t09_a_target_that_is_not_a_host_is_refused_and_recorded() {
    let (origin, proxy) = allowing(&["*"]).await;
    let hosts = [
        "api.example\0.other.example",
        "api.example%2eother",
        "api.example%00.other.example",
        "a b",
        "api.example@other.example",
        "[fe80::1%25eth0]",
        "api..example",
        "",
    ];
    for host in hosts {
        let mut stream = tunnel::connect(&proxy).await;
        let target = format!("{host}:{}", origin.port());
        let answer =
            tunnel::exchange(&mut stream, format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
                .await;
        assert!([400, 403].contains(&answer.status), "{host:?}: {answer:?}");
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
    let records = proxy.stop().await.records();
    assert_eq!(records.len(), hosts.len(), "{records:#?}");
    assert!(records.iter().all(|record| record["audit"]["action"] == "reject"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_a_port_that_no_rule_means() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).name("api.example").start().await;
    for port in [22, 25, 80, 8443, origin.port()] {
        let (_, answer) = tunnel::ask(&proxy, &format!("api.example:{port}")).await;
        // 80 is the port of a scheme that cannot be inside a tunnel.
        assert_eq!(answer.status, if port == 80 { 200 } else { 403 }, "{port}: {answer:?}");
        if port != 80 {
            assert_eq!(
                (answer.reason.as_str(), code(&answer)),
                ("port_not_allowed", refusal(403, "port_not_allowed"))
            );
        }
    }
    assert_eq!((origin.connections(), proxy.dns().queries()), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rules_own_ports_widen_what_it_means() {
    let origin = Origin::start("api.example").await;
    let rules = |port: u16| {
        format!(
            "transforms: [{{ name: allowlist, config: {{ rules: [{{ host: api.example, ports: [{port}] }}] }} }}]\n"
        )
    };
    let proxy = Proxy::builder(KEYFERRY).policy(&rules(origin.port())).name("api.example").start().await;
    assert_eq!(Sandbox::of(&proxy).fetch([origin.url("/")]).await.status, 200);

    let (_, answer) = tunnel::ask(&proxy, "api.example:443").await;
    assert_eq!(code(&answer), refusal(403, "port_not_allowed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_name_that_leads_to_a_private_address() {
    let origin = Origin::start("api.example").await;
    let denied =
        ["10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"];
    let mut builder = Proxy::builder(KEYFERRY).allow(&["*.example"]).port(origin.port());
    for (n, address) in denied.iter().enumerate() {
        builder = builder.name_at(&format!("n{n}.example"), address.parse().expect("an address"));
    }
    let proxy = builder.clone().start().await;
    let sandbox = Sandbox::of(&proxy);
    for (n, address) in denied.iter().enumerate() {
        let answer = sandbox.fetch([format!("https://n{n}.example:{}/", origin.port())]).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, "address_denied"), "{address}");
    }

    let proxy = builder.option("upstream_allow_cidrs: []").route(&origin).start().await;
    let answer = Sandbox::of(&proxy).fetch([origin.url("/")]).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "address_denied"));
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t14_a_kept_connection_is_not_used_where_its_address_would_not_be_dialled_any_more() {
    let option = "upstream_allow_cidrs: [\"127.0.0.0/8\"]";
    let allowlist = "transforms: [{ name: allowlist, config: { domains: [api.example] } }]\n";
    let networks = "transforms: [{ name: allowlist, config: { rules: [{ cidr: 127.0.0.0/8 }, { cidr: 0.0.0.0/0 }] } }]\n";
    for (name, option, policy, old, new) in [
        // The operator closes what was open, or denies the very address, or a rule that opened it is gone and another still allows it.
        ("api.example", option, allowlist, option, "upstream_allow_cidrs: []"),
        (
            "api.example",
            option,
            allowlist,
            option,
            &format!("{option}\n  upstream_deny_cidrs: [127.0.0.1/32]"),
        ),
        ("127.0.0.1", "upstream_allow_cidrs: []", networks, "{ cidr: 127.0.0.0/8 }, ", ""),
    ] {
        for alpn in ["http/1.1", "h2"] {
            let origin = Origin::builder(name).alpn(&[alpn]).start().await;
            let proxy = Proxy::builder(KEYFERRY).option(option).policy(policy).route(&origin).start().await;
            let authority = origin.authority();
            let mut stream = tunnel::open_secure(&proxy, &authority).await;
            for _ in 0..2 {
                let answer = tunnel::exchange(&mut stream, get("/", &authority)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            proxy.edit(old, new);
            proxy.signal("HUP").await;
            proxy.wait_for_log("a new configuration is in force", 1).await;

            let refused = tunnel::exchange(&mut stream, get("/", &authority)).await;
            assert_eq!(code(&refused), refusal(403, "address_denied"), "{old} -> {new}, {alpn}");
            assert_eq!((origin.connections(), origin.received().len()), (1, 2), "{old} -> {new}, {alpn}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t14_a_name_that_leads_elsewhere_meanwhile_is_judged_by_where_it_leads_once_the_ranges_change() {
    let (origin, proxy) = allowing(&["api.example"]).await;
    let authority = origin.authority();
    let mut stream = tunnel::open_secure(&proxy, &authority).await;
    assert_eq!(tunnel::exchange(&mut stream, get("/", &authority)).await.status, 200);

    proxy.dns().set("api.example", &[[127, 0, 0, 9].into()]);
    proxy.edit("upstream_allow_cidrs", "upstream_deny_cidrs: [127.0.0.9/32]\n  upstream_allow_cidrs");
    proxy.signal("HUP").await;
    proxy.wait_for_log("a new configuration is in force", 1).await;

    let refused = tunnel::exchange(&mut stream, get("/", &authority)).await;
    assert_eq!(code(&refused), refusal(403, "address_denied"));
    assert_eq!((origin.connections(), origin.received().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn t19_the_proxy_itself() {
    let proxy = Proxy::builder(KEYFERRY).allow(&["self.example"]).name("self.example");
    let proxy = proxy.option("allowed_ports: [\"*\"]").start().await;
    let sandbox = Sandbox::of(&proxy);
    for port in [proxy.address().port(), proxy.admin_address().port()] {
        for scheme in ["http", "https"] {
            let answer = sandbox.fetch([format!("{scheme}://self.example:{port}/readyz")]).await;
            assert_eq!((answer.status, answer.reason().as_str()), (403, "address_denied"), "{scheme} {port}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t19_a_request_that_comes_back_through_another_proxy() {
    for alpn in ["http/1.1", "h2"] {
        let origin = Origin::builder("api.example").alpn(&[alpn]).start().await;
        let proxy = Proxy::builder(KEYFERRY).allow(&["api.example"]).route(&origin).start().await;
        let authority = origin.authority();
        let asked = |fields: &str| format!("GET / HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n");
        let mut stream = tunnel::open_secure(&proxy, &authority).await;
        // Marks of others are theirs, and a list of ours has no say in our own.
        let first = asked("CDN-Loop: another.example; loops=1\r\nConnection: x-hop\r\n");
        assert_eq!(tunnel::exchange(&mut stream, first).await.status, 200);
        let seen = origin.only_request();
        let marks: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "cdn-loop").collect();
        let [(_, theirs), (_, ours)] = marks.as_slice() else { panic!("not two marks: {seen:#?}") };
        assert_eq!((theirs.as_str(), ours.starts_with("keyferry-")), ("another.example; loops=1", true));

        // Whatever brings it back, and whatever the first sender had in it to have the mark removed.
        for fields in [
            format!("CDN-Loop: {ours}\r\n"),
            format!("Connection: cdn-loop\r\nCDN-Loop: a, {ours};x=y, b\r\nVia: 1.1 other\r\n"),
        ] {
            let mut stream = tunnel::open_secure(&proxy, &authority).await;
            let back = tunnel::exchange(&mut stream, asked(&fields)).await;
            assert_eq!(code(&back), refusal(403, "loop_detected"), "{fields}");
        }
        assert_eq!(origin.received().len(), 1);
        assert_eq!(reasons(proxy).await, json!([null, "loop_detected", "loop_detected"]));
    }
}
