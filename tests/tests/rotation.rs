//! A value that is replaced while requests are on their way.

use std::sync::{Arc, Mutex};

use http::header::AUTHORIZATION;
use http_body_util::BodyExt;
use hyper::Response;
use keyferry_tests::origin::{Origin, full};
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::{Fetched, Sandbox};
use serde_json::json;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const FIRST: &str = "first-value-0123456789";
const SECOND: &str = "second-value-0123456789";

const POLICY: &str = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example] }
  - name: secrets
    config:
      secrets:
        - { source: { type: file, path: key.txt }, replace: { proxy_value: API_KEY, match_body: true }, rules: [{ host: api.example, paths: ["/", "/body"] }] }
        - { source: { type: file, path: key.txt }, inject: { header: Authorization, formatter: "Bearer {{ .Value }}" }, rules: [{ host: api.example, paths: ["/injected"] }] }
        - { source: { type: env, var: BODY }, replace: { proxy_value: BODY_PLACEHOLDER, match_body: true }, rules: [{ host: api.example, paths: ["/body"] }] }
        - { source: { type: file, path: key.txt }, replace: { proxy_value: STREAMED_KEY }, rules: [{ host: api.example, paths: ["/streamed"] }] }
        - { source: { type: env, var: FIXED }, replace: { proxy_value: FIXED_KEY }, rules: [{ host: api.example, paths: ["/fixed"] }] }
"#;

/// A service that takes one token, and says which it was shown.
struct Service {
    origin: Origin,
    proxy: Proxy,
    taken: Arc<Mutex<&'static str>>,
    shown: Arc<Mutex<Vec<(String, String)>>>,
}

impl Service {
    /// It and the proxy know the first value, which has been used once.
    async fn start(alpn: &'static str) -> Self {
        let (taken, shown) = (Arc::new(Mutex::new(FIRST)), Arc::new(Mutex::new(Vec::new())));
        let (good, seen) = (Arc::clone(&taken), Arc::clone(&shown));
        let handler = move |request: hyper::Request<hyper::body::Incoming>| {
            let (good, seen) = (Arc::clone(&good), Arc::clone(&seen));
            let answer = async move {
                let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
                let token = token.unwrap_or_default().to_owned();
                let body =
                    request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                seen.lock()
                    .expect("a lock")
                    .push((token.clone(), String::from_utf8_lossy(&body).into_owned()));
                let known = token == format!("Bearer {}", good.lock().expect("a lock"));
                let status = if known { 200 } else { 401 };
                let both = format!("{token}; once {FIRST}");
                Response::builder().status(status).body(full(both)).expect("an answer")
            };
            Box::pin(answer) as keyferry_tests::origin::Answer
        };
        let origin = Origin::builder("api.example").alpn(&[alpn]).handler(Arc::new(handler)).start().await;
        let proxy = Proxy::builder(KEYFERRY).policy(POLICY).route(&origin);
        let proxy = proxy.env("BODY", "value-in-the-body").env("FIXED", "value-of-a-variable").start().await;
        std::fs::write(proxy.file("key.txt"), FIRST).expect("write the secret");
        let service = Self { origin, proxy, taken, shown };
        assert_eq!(service.fetch("/", "API_KEY", &[]).await.status, 200);
        service.shown.lock().expect("a lock").clear();
        service
    }

    /// The service takes the second value only, which is in the file.
    fn rotate(&self) {
        *self.taken.lock().expect("a lock") = SECOND;
        std::fs::write(self.proxy.file("key.txt"), SECOND).expect("replace the secret");
    }

    async fn fetch(&self, path: &str, placeholder: &str, arguments: &[&str]) -> Fetched {
        let (token, url) = (format!("Authorization: Bearer {placeholder}"), self.origin.url(path));
        let all = arguments.iter().copied().chain(["-H", &token, &url]);
        Sandbox::of(&self.proxy).fetch(all).await
    }

    /// The tokens and bodies that it was shown since it started.
    fn shown(&self) -> Vec<(String, String)> {
        self.shown.lock().expect("a lock").clone()
    }
}

fn shown(value: &str, body: &str) -> (String, String) {
    (format!("Bearer {value}"), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn t58_a_request_that_is_refused_with_an_old_value_is_sent_once_more_with_the_new_one() {
    for alpn in ["http/1.1", "h2"] {
        let service = Service::start(alpn).await;
        service.rotate();

        let answer = service.fetch("/", "API_KEY", &[]).await;

        // Neither value goes back, the old one included.
        assert_eq!((answer.status, answer.body.as_str()), (200, "Bearer API_KEY; once API_KEY"), "{alpn}");
        assert_eq!(service.shown(), [shown(FIRST, ""), shown(SECOND, "")]);
        assert_eq!(service.fetch("/injected", "whatever", &[]).await.status, 200);
        let ended = service.proxy.stop().await;
        let records: Vec<_> = ended
            .records()
            .iter()
            .map(|record| {
                json!([
                    record["audit"]["status_code"],
                    record["retried"],
                    record["request_transforms"][0]["annotations"]
                ])
            })
            .collect();
        let swapped = json!({ "swapped": [{ "secret": "key.txt", "locations": ["header:authorization"] }] });
        let injected =
            json!({ "injected": [{ "secret": "key.txt", "locations": ["header:authorization"] }] });
        assert_eq!(
            records,
            [json!([200, null, swapped]), json!([200, true, swapped]), json!([200, null, injected])]
        );
        ended.assert_never_wrote(FIRST);
        ended.assert_never_wrote(SECOND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t58_what_the_source_does_not_change_is_not_sent_again() {
    let service = Service::start("http/1.1").await;
    *service.taken.lock().expect("a lock") = SECOND;

    assert_eq!(service.fetch("/", "API_KEY", &[]).await.status, 401);
    assert_eq!(service.fetch("/fixed", "FIXED_KEY", &[]).await.status, 401);
    // A credential of the client's own has no source.
    assert_eq!(service.fetch("/", "own", &[]).await.status, 401);
    assert_eq!(service.shown(), [shown(FIRST, ""), shown("value-of-a-variable", ""), shown("own", "")]);
    let records = service.proxy.stop().await.records();
    assert!(records.iter().all(|record| record.get("retried").is_none()), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t58_a_body_is_sent_again_where_it_was_held_and_not_where_it_streamed() {
    let service = Service::start("http/1.1").await;
    service.rotate();

    // Streamed: nothing of it is left.
    let streamed = service.fetch("/streamed", "STREAMED_KEY", &["-d", "streamed"]).await;
    assert_eq!((streamed.status, service.shown()), (401, vec![shown(FIRST, "streamed")]));

    let held = service.fetch("/body", "API_KEY", &["-d", "it holds BODY_PLACEHOLDER"]).await;
    let body = "it holds value-in-the-body";
    assert_eq!(held.status, 200);
    assert_eq!(service.shown()[1..], [shown(FIRST, body), shown(SECOND, body)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t58_a_body_that_holds_the_old_value_is_not_sent_again() {
    let service = Service::start("http/1.1").await;
    service.rotate();

    let answer = service.fetch("/body", "API_KEY", &["-d", "it holds API_KEY"]).await;

    assert_eq!((answer.status, service.shown().len()), (401, 1));
    // The next request has the new value in both places.
    assert_eq!(service.fetch("/body", "API_KEY", &["-d", "it holds API_KEY"]).await.status, 200);
    assert_eq!(service.shown()[1], shown(SECOND, &format!("it holds {SECOND}")));
}
