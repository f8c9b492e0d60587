//! Credentials that are the sandbox's own, and values that cannot travel.

use keyferry_tests::origin::Origin;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::Sandbox;
use serde_json::json;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

const OWN: &str = "Authorization: Bearer the-sandbox's-own-account";

/// A proxy before one origin, to which a secret is bound.
fn policy(foreign_credentials: &str) -> String {
    format!(
        r#"
transforms:
  - name: allowlist
    config:
      rules: [{{ host: api.example, foreign_credentials: {foreign_credentials} }}, {{ host: plain.example }}]
  - name: secrets
    config:
      secrets:
        - source: {{ type: env, var: REAL }}
          replace: {{ proxy_value: API_KEY, match_headers: [Authorization, X-Api-Key] }}
          rules: [{{ host: api.example }}]
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn t51_credentials_of_the_sandboxs_own_pass_with_a_word_in_the_record() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).policy(&policy("allow")).env("REAL", "real-value").route(&origin);
    let proxy = proxy.start().await;

    let answer = Sandbox::of(&proxy).fetch(["-H", OWN, &origin.url("/")]).await;

    assert_eq!(answer.status, 200);
    assert_eq!(origin.only_request().header("authorization"), OWN.strip_prefix("Authorization: "));
    assert_eq!(
        proxy.stop().await.only_record()["request_transforms"],
        json!([{ "name": "secrets", "action": "allow", "annotations": { "foreign_passed": ["header:authorization"] } }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t51_they_are_stripped_and_what_is_ours_beside_them_stays() {
    for flag in ["--http1.1", "--http2"] {
        let origin = Origin::start("api.example").await;
        let proxy =
            Proxy::builder(KEYFERRY).policy(&policy("strip")).env("REAL", "real-value").route(&origin);
        let proxy = proxy.start().await;

        let answer = Sandbox::of(&proxy)
            .fetch([flag, "-H", OWN, "-H", "X-Api-Key: own", "-H", "X-Api-Key: API_KEY", &origin.url("/")])
            .await;

        assert_eq!(answer.status, 200);
        let seen = origin.only_request();
        assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (None, Some("real-value")));
        assert_eq!(
            proxy.stop().await.only_record()["request_transforms"],
            json!([{ "name": "secrets", "action": "allow", "annotations": {
                "swapped": [{ "secret": "REAL", "locations": ["header:x-api-key"] }],
                "foreign_stripped": ["header:authorization", "header:x-api-key"],
            } }])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t51_they_are_denied_before_a_byte_leaves() {
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(KEYFERRY).policy(&policy("deny")).env("REAL", "real-value").route(&origin);
    let proxy = proxy.start().await;
    let sandbox = Sandbox::of(&proxy);

    let denied = sandbox.fetch(["-H", OWN, &origin.url("/")]).await;
    let granted = sandbox.fetch(["-H", "Authorization: Bearer API_KEY", &origin.url("/")]).await;

    assert_eq!((denied.status, granted.status), (403, 200));
    assert!(denied.body.contains("\"reason\":\"foreign_credential\""), "{}", denied.body);
    assert_eq!(origin.only_request().header("authorization"), Some("Bearer real-value"));
    let ended = proxy.stop().await;
    let records = ended.records();
    let audit = &records[0]["audit"];
    assert_eq!(
        (&audit["action"], &audit["reason"], &audit["rule"], &records[0]["rejected_by"]),
        (&json!("reject"), &json!("foreign_credential"), &json!("allowlist.rules[0]"), &json!("secrets"))
    );
    assert!(!ended.audit.contains("own-account"), "no record holds what the client sent: {}", ended.audit);
}

#[tokio::test(flavor = "multi_thread")]
async fn t52_a_value_that_would_split_a_request_or_is_not_ascii_refuses_it() {
    let origin = Origin::start("api.example").await;
    let policy = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example] }
  - name: secrets
    config:
      secrets:
        - { source: { type: file, path: key.txt, ttl: "-1ns" }, replace: { proxy_value: API_KEY }, rules: [{ host: api.example, paths: [/swapped] }] }
        - { source: { type: file, path: key.txt, ttl: "-1ns" }, inject: { header: X-Set, formatter: "Key {{ .Value }}" }, rules: [{ host: api.example, paths: [/set] }] }
"#;
    let proxy = Proxy::builder(KEYFERRY).policy(policy).route(&origin).start().await;
    let sandbox = Sandbox::of(&proxy);
    for value in ["real\r\nX-Evil: 1", "real\n", "real\0", "ré\u{e4}l"] {
        std::fs::write(proxy.file("key.txt"), value).expect("write the secret");
        for (path, name) in [("/swapped", "the placeholder API_KEY"), ("/set", "header x-set")] {
            let answer = sandbox.fetch(["-H", "X-Api-Key: API_KEY", &origin.url(path)]).await;
            assert_eq!(answer.status, 403, "{value:?} {path}");
            let said = format!("the value for {name} holds a byte that no header may hold");
            assert!(
                answer.body.contains("\"reason\":\"secret_unavailable\"") && answer.body.contains(&said),
                "{value:?} {path}: {}",
                answer.body
            );
        }
    }
    assert_eq!(origin.connections(), 0);

    std::fs::write(proxy.file("key.txt"), "a-good-value").expect("write the secret");
    assert_eq!(sandbox.fetch(["-H", "X-Api-Key: API_KEY", &origin.url("/swapped")]).await.status, 200);
    assert_eq!(origin.only_request().header("x-api-key"), Some("a-good-value"));
    let ended = proxy.stop().await;
    let reasons: Vec<_> = ended.records().iter().map(|record| record["audit"]["reason"].clone()).collect();
    assert_eq!(
        (reasons.len(), reasons.iter().filter(|reason| **reason == "secret_unavailable").count()),
        (9, 8)
    );
}
