//! A control service over a real database, asked as its clients ask.
#![allow(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

mod conform;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use keyferry_control::{Bootstrap, Bootstrapped, Control, SCHEMA, Settings};
use keyferry_store::Store;
use keyferry_store::testing::TestDatabase;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::ServiceExt;

pub struct World {
    pub router: Router,
    pub control: Control,
    pub store: Store,
    pub key: String,
    pub moved: Arc<AtomicI64>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("JSON, not {self:?}"))
    }

    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }

    pub fn id(&self) -> String {
        self.data()["id"].as_str().unwrap_or_else(|| panic!("an id in {self:?}")).to_owned()
    }

    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().expect("text").to_owned()
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    #[track_caller]
    pub fn fault(self, field: &str) -> String {
        let answer = self.is(422);
        let body = answer.json();
        assert_eq!(body["error"]["message"], "validation failed");
        body["error"]["details"][field][0].as_str().unwrap_or_else(|| panic!("{field} in {body}")).to_owned()
    }
}

impl World {
    pub async fn on(database: &TestDatabase) -> Self {
        let store = database.open(&[SCHEMA]).await;
        Self::over(store).await
    }

    pub async fn over(store: Store) -> Self {
        let moved = Arc::new(AtomicI64::new(0));
        let by = Arc::clone(&moved);
        let clock: keyferry_control::Clock =
            Arc::new(move || Timestamp::now() + SignedDuration::from_secs(by.load(Ordering::Relaxed)));
        let settings = Settings { proxy_address: Some("proxy.test:3128".into()) };
        let control = Control::start(store.clone(), clock, settings).await.expect("it starts");
        let key = match control.bootstrap(Bootstrap::default()).await.expect("a first operator") {
            Bootstrapped::WithNewKey(key) => key.expose_secret().to_owned(),
            other => panic!("a key is made, not {other:?}"),
        };
        Self { router: control.router(), control, store, key, moved }
    }

    /// Moves the clock.
    pub fn later(&self, seconds: i64) {
        self.moved.fetch_add(seconds, Ordering::Relaxed);
    }

    pub async fn raw(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        conform::check(&method, &path, head.status, &head.headers, &text);
        Answer { status: head.status, headers: head.headers, text }
    }

    pub async fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.raw(request.body(body).expect("a request")).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(&self.key, "GET", path, None).await
    }

    pub async fn post(&self, path: &str, data: Value) -> Answer {
        self.call(&self.key, "POST", path, Some(json!({ "data": data }))).await
    }

    pub async fn put(&self, path: &str, data: Value) -> Answer {
        self.call(&self.key, "PUT", path, Some(json!({ "data": data }))).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(&self.key, "DELETE", path, None).await
    }

    pub async fn principal(&self, foreign_id: &str) -> String {
        self.post("/api/v1/principals", json!({ "foreign_id": foreign_id })).await.is(201).id()
    }

    /// A static secret for one host, whose value is kept here.
    pub async fn secret(&self, foreign_id: &str, value: &str, host: &str) -> String {
        self.post("/api/v1/static_secrets", static_secret(foreign_id, value, host)).await.is(201).id()
    }

    pub async fn grant(&self, principal: &str, secret: &str) -> String {
        let grant = json!({ "principal_id": principal, "static_secret_id": secret });
        self.post("/api/v1/grants", grant).await.is(201).id()
    }

    /// A dedicated proxy of a principal: its id and its token.
    pub async fn proxy(&self, principal: Option<&str>) -> (String, String) {
        let proxy =
            self.post("/api/v1/proxies", json!({ "name": "edge", "principal_id": principal })).await.is(201);
        (proxy.id(), proxy.data()["token"].as_str().expect("a token").to_owned())
    }

    pub async fn sync(&self, token: &str, body: Value) -> Answer {
        self.call(token, "POST", "/api/v1/proxy/sync", Some(body)).await
    }
}

pub fn static_secret(foreign_id: &str, value: &str, host: &str) -> Value {
    json!({
        "foreign_id": foreign_id,
        "inject_config": { "header": "X-Key" },
        "source": { "source_type": "control_plane", "secret": value, "config": {} },
        "rules": [{ "host": host }],
    })
}
