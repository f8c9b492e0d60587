//! What the control service costs: a sync, a change on its way to proxies, and lists and answers over many rows, on both
//! databases. Prints a table of docs/performance.md.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its table is what it is for, and takes some minutes"
)]

mod enforcing;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use futures_util::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use keyferry_control::{Bootstrap, Bootstrapped, Clock, Control, IdOf, SCHEMA, Settings};
use keyferry_store::testing::TestDatabase;
use keyferry_store::{Dialect, Store, sql};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt;

use self::enforcing::Served;

const PRINCIPALS: i64 = 10_000;
const ROLES: i64 = 1_000;
const SECRETS: i64 = 1_000;
const OWN_GRANTS: i64 = 5;
const GRANTS_OF_A_ROLE: i64 = 50;
/// Where the rows of each resource begin.
const FIRST_PRINCIPAL: i64 = 1_000_000;
const FIRST_ROLE: i64 = 2_000_000;
const FIRST_SECRET: i64 = 3_000_000;
const FIRST_GRANT: i64 = 4_000_000;
const NEXT_ROW: i64 = 10_000_000;
/// A principal that every secret is granted to; no other row of the tables asks about it.
const HOLDS_ALL: i64 = 1;

/// Beside the one that enforces: 50 proxies in all.
const STREAMS: usize = 49;
const SERVED_PRINCIPALS: usize = 1_000;
const CHANGES: usize = 200;
const CAPABILITIES: &str = "deny_rules,ports,schemes,foreign_credentials,expiry,sandboxes";

#[tokio::main]
async fn main() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres()] {
        let name = match database.dialect() {
            Dialect::Sqlite => "SQLite",
            Dialect::Postgres => "PostgreSQL",
        };
        eprintln!("control: {name}");
        let service = Service::on(&database).await;
        service.one_principal_with_200_grants().await;
        service.changes_to_many_proxies().await;
        service.many_rows().await;
    }
    println!("| ms | SQLite, p50 | p99 | PostgreSQL, p50 | p99 |\n|---|---:|---:|---:|---:|");
    let rows = ROWS.lock().expect("no holder of this lock panics");
    let (sqlite, postgres) = rows.split_at(rows.len() / 2);
    for ((what, p50, p99), (_, postgres_p50, postgres_p99)) in sqlite.iter().zip(postgres) {
        println!("| {what} | {p50:.1} | {p99:.1} | {postgres_p50:.1} | {postgres_p99:.1} |");
    }
}

/// What was measured, with p50 and p99 in milliseconds: all of one database, then all of the other.
static ROWS: Mutex<Vec<(String, f64, f64)>> = Mutex::new(Vec::new());

struct Service {
    router: Router,
    store: Store,
    key: String,
}

impl Service {
    async fn on(database: &TestDatabase) -> Self {
        let store = database.open(&[SCHEMA]).await;
        let clock: Clock = Arc::new(Timestamp::now);
        let control = Control::start(store.clone(), clock, Settings::default()).await.expect("it starts");
        let Bootstrapped::WithNewKey(key) = control.bootstrap(Bootstrap::default()).await.expect("a key")
        else {
            panic!("the database is new");
        };
        Self { router: control.router(), store, key: key.expose_secret().to_owned() }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Value {
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer =
            self.router.clone().oneshot(request.body(body).expect("a request")).await.expect("infallible");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        assert!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        self.call(&self.key, "GET", path, None).await
    }

    async fn make(&self, path: &str, data: Value) -> Value {
        self.call(&self.key, "POST", &format!("/api/v1/{path}"), Some(json!({ "data": data }))).await["data"]
            .clone()
    }

    async fn secret(&self, foreign_id: &str, host: &str) -> Value {
        let secret = json!({
            "foreign_id": foreign_id, "inject_config": { "header": "Authorization", "formatter": "Bearer {{ .Value }}" },
            "rules": [{ "host": host, "paths": ["/v1/*"] }],
            "source": { "source_type": "control_plane", "secret": "a value of the usual length, forty bytes" },
        });
        self.make("static_secrets", secret).await["id"].clone()
    }

    async fn one_principal_with_200_grants(&self) {
        let principal = self.make("principals", json!({ "foreign_id": "many" })).await["id"].clone();
        for n in 0..200 {
            let secret = self.secret(&format!("many-{n}"), &format!("m{n}.test")).await;
            self.make("grants", json!({ "principal_id": principal, "static_secret_id": secret })).await;
        }
        let proxy = self.make("proxies", json!({ "name": "edge", "principal_id": principal })).await;
        let token = proxy["token"].as_str().expect("a token");
        let sync = |known: Value| {
            self.call(token, "POST", "/api/v1/proxy/sync", Some(json!({ "config_hash": known })))
        };
        let first = sync(Value::Null).await;
        assert_eq!(first["secrets"].as_array().map(Vec::len), Some(200));
        report("sync, 200 grants, nothing new", 300, |_| sync(first["config_hash"].clone())).await;
        report("sync, 200 grants, everything", 300, |_| sync(Value::Null)).await;
        // Whatever changes takes the policy that was ready away.
        let path = format!("/api/v1/principals/{}", principal.as_str().expect("an id"));
        let mut took = Vec::new();
        for n in 0..100 {
            self.call(&self.key, "PUT", &path, Some(json!({ "data": { "name": format!("{n}") } }))).await;
            let began = Instant::now();
            sync(Value::Null).await;
            took.push(began.elapsed());
        }
        row("sync, 200 grants, after a change", took);
    }

    async fn changes_to_many_proxies(&self) {
        let mut served = Vec::new();
        for n in 0..SERVED_PRINCIPALS {
            let principal =
                self.make("principals", json!({ "foreign_id": format!("served-{n}") })).await["id"].clone();
            let secret = self.secret(&format!("served-{n}"), &format!("s{n}.test")).await;
            self.make("grants", json!({ "principal_id": principal, "static_secret_id": secret })).await;
            served.push(Served::new(self, principal).await);
        }
        let extra = self.secret("extra", "extra.test").await;
        let (heard, mut hears) = mpsc::unbounded_channel::<(usize, u64, Instant)>();
        for proxy in 0..STREAMS {
            let token = self.shared_proxy(&format!("{proxy}")).await;
            let request = Request::get(format!("/api/v1/proxy/stream?capabilities={CAPABILITIES}"))
                .header("authorization", format!("Bearer {token}"));
            let answer = self.router.clone().oneshot(request.body(Body::empty()).expect("a request"));
            let mut body = answer.await.expect("infallible").into_body().into_data_stream();
            let heard = heard.clone();
            tokio::spawn(async move {
                while let Some(Ok(bytes)) = body.next().await {
                    // A piece is a whole state; its id is that of its last event.
                    let text = String::from_utf8_lossy(&bytes);
                    let id = text.rsplit_once("\nid: ").and_then(|(_, rest)| rest.split('\n').next());
                    let number = id.and_then(|id| id.rsplit_once('.')?.1.parse().ok());
                    if let Some(number) = number {
                        let _ = heard.send((proxy, number, Instant::now()));
                    }
                }
            });
        }
        self.all_heard(&mut hears).await;
        let folder = tempfile::TempDir::new().expect("a folder");
        let token = self.shared_proxy("enforcing").await;
        let (proxy, address) = enforcing::start(self, folder.path(), &token).await;
        enforcing::grant_and_revoke(self, address, &served, &extra).await;
        let mut took = Vec::new();
        for n in 0..CHANGES {
            let principal = &served[(n * 7) % SERVED_PRINCIPALS].principal;
            let began = Instant::now();
            self.make("grants", json!({ "principal_id": principal, "static_secret_id": extra })).await;
            took.extend(self.all_heard(&mut hears).await.into_iter().map(|at| at - began));
        }
        row("grant to pushed, to each of 49 streams", took);
        proxy.run_until(async {}).await;
    }

    async fn shared_proxy(&self, name: &str) -> String {
        let made = json!({ "name": name, "kind": "shared", "namespaces": ["default"] });
        self.make("proxies", made).await["token"].as_str().expect("a token").to_owned()
    }

    /// When each proxy heard of the newest state.
    async fn all_heard(&self, hears: &mut mpsc::UnboundedReceiver<(usize, u64, Instant)>) -> Vec<Instant> {
        let state = self.store.fetch_one(sql("SELECT number FROM control_state")).await.expect("a row");
        let newest = u64::try_from(state.get::<i64>("number").expect("a number")).expect("not negative");
        let mut at = vec![None; STREAMS];
        while at.iter().any(Option::is_none) {
            let heard = tokio::time::timeout(Duration::from_secs(60), hears.recv()).await;
            let (proxy, number, when) = heard.expect("in time").expect("streams are open");
            if number >= newest {
                at[proxy].get_or_insert(when);
            }
        }
        at.into_iter().flatten().collect()
    }

    async fn many_rows(&self) {
        self.fill().await;
        let list = |path: &'static str| async move {
            let answer = self.get(path).await;
            assert!(answer["data"].as_array().is_some_and(|rows| !rows.is_empty()), "{path}: {answer}");
        };
        for path in [
            "/api/v1/principals?namespace=many",
            "/api/v1/principals?namespace=many&limit=200&page=50",
            "/api/v1/principals?namespace=many&labels[team]=t3",
            "/api/v1/principals?namespace=many&labels[team]=t3&labels[n]=4003",
            "/api/v1/principals?namespace=many&kind=service",
            "/api/v1/roles?namespace=many&page=20",
            "/api/v1/static_secrets?namespace=many&limit=200",
            "/api/v1/changes?page=100",
        ] {
            report(&format!("`GET {}`", path.trim_start_matches("/api/v1")), 60, |_| list(path)).await;
        }
        let role = IdOf::Role.id(FIRST_ROLE + 7);
        report("grants of a role", 60, |_| self.get_owned(format!("/api/v1/roles/{role}/grants"))).await;
        // Another principal each time: nothing is ready.
        let of = |n: i64| IdOf::Principal.id(FIRST_PRINCIPAL + (n * 37) % PRINCIPALS);
        let all = IdOf::Principal.id(FIRST_PRINCIPAL + HOLDS_ALL);
        report("`effective_config`, 1,000 grants", 20, |_| {
            self.get_owned(format!("/api/v1/principals/{all}/effective_config"))
        })
        .await;
        report("`effective_config`, 105 grants", 60, |n| {
            self.get_owned(format!("/api/v1/principals/{}/effective_config", of(n)))
        })
        .await;
        report("`explain`, 105 grants", 60, |n| {
            self.get_owned(format!("/api/v1/principals/{}/explain", of(n + 1)))
        })
        .await;
        report("`explain` of a request, 105 grants", 60, |n| {
            let url = "method=GET&url=https%3A%2F%2Fh7.test%2Fv1%2Fx";
            self.get_owned(format!("/api/v1/principals/{}/explain?{url}", of(n + 2)))
        })
        .await;
    }

    async fn get_owned(&self, path: String) -> Value {
        self.get(&path).await
    }

    /// 10,000 principals of 1,000 roles, with 100,000 grants. Not through the API, which would take minutes.
    async fn fill(&self) {
        let template = json!({
            "namespace": "template", "inject_config": { "header": "Authorization" }, "rules": [{ "host": "template.test" }],
            "source": { "source_type": "env", "config": { "var": "KEY" } },
        });
        self.make("static_secrets", template).await;
        let numbers = |count: i64| {
            format!("WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})")
        };
        let grants = PRINCIPALS * OWN_GRANTS;
        let statements = [
            format!(
                "INSERT INTO control_principals (row, namespace, foreign_id, labels, kind, created_at, updated_at) {} \
                 SELECT {FIRST_PRINCIPAL} + i, 'many', 'p' || i, '{{\"team\":\"t' || (i % 10) || '\",\"n\":\"' || i || '\"}}', \
                 CASE WHEN i % 3 = 0 THEN 'service' ELSE 'user' END, i, i FROM n",
                numbers(PRINCIPALS)
            ),
            "INSERT INTO control_labels (resource, row, label, value) \
                 SELECT 'principal', row, 'team', 't' || (created_at % 10) FROM control_principals WHERE namespace = 'many' \
                 UNION ALL SELECT 'principal', row, 'n', '' || created_at FROM control_principals WHERE namespace = 'many'"
                .to_owned(),
            format!(
                "INSERT INTO control_roles (row, namespace, foreign_id, labels, is_default, created_at, updated_at) {} \
                 SELECT {FIRST_ROLE} + i, 'many', 'r' || i, '{{}}', 1 = 0, i, i FROM n",
                numbers(ROLES)
            ),
            format!(
                "INSERT INTO control_assignments (principal, role, created_at) \
                 SELECT row, {FIRST_ROLE} + created_at % {ROLES}, 0 FROM control_principals WHERE namespace = 'many' \
                 UNION ALL SELECT row, {FIRST_ROLE} + (created_at + 500) % {ROLES}, 0 FROM control_principals WHERE namespace = 'many'"
            ),
            format!(
                "INSERT INTO control_secrets (row, kind, namespace, foreign_id, labels, enabled, spec, created_at, updated_at) {} \
                 SELECT {FIRST_SECRET} + i, 'static', 'many', 's' || i, '{{}}', 1 = 1, replace(t.spec, 'template', 'h' || i), i, i \
                 FROM n, control_secrets t WHERE t.namespace = 'template'",
                numbers(SECRETS)
            ),
            format!(
                "INSERT INTO control_grants (row, principal, secret, priority, created_at, updated_at) {} \
                 SELECT {FIRST_GRANT} + i, {FIRST_PRINCIPAL} + i / {OWN_GRANTS}, {FIRST_SECRET} + i % {SECRETS}, 100, i, i FROM n",
                numbers(grants)
            ),
            format!(
                "INSERT INTO control_grants (row, role, secret, priority, created_at, updated_at) {} \
                 SELECT {FIRST_GRANT} + {grants} + i, {FIRST_ROLE} + i / {GRANTS_OF_A_ROLE}, {FIRST_SECRET} + i % {SECRETS}, 0, i, i \
                 FROM n",
                numbers(ROLES * GRANTS_OF_A_ROLE)
            ),
            format!(
                "INSERT INTO control_grants (row, principal, secret, priority, created_at, updated_at) {} \
                 SELECT {NEXT_ROW} + i, {FIRST_PRINCIPAL} + {HOLDS_ALL}, {FIRST_SECRET} + i, 100, i, i FROM n \
                 WHERE NOT EXISTS (SELECT 1 FROM control_grants g \
                 WHERE g.principal = {FIRST_PRINCIPAL} + {HOLDS_ALL} AND g.secret = {FIRST_SECRET} + i)",
                numbers(SECRETS)
            ),
            format!("UPDATE control_state SET next_row = {NEXT_ROW} + {SECRETS}"),
            "ANALYZE".to_owned(),
        ];
        for statement in statements {
            // A statement is a literal of the program, or as good as one.
            self.store.execute(sql(statement.leak())).await.expect("the rows are made");
        }
    }
}

/// Runs it so often, and prints how long it took.
async fn report<T, F: Future<Output = T>>(what: &str, times: i64, mut run: impl FnMut(i64) -> F) {
    run(0).await;
    let mut took = Vec::new();
    for n in 1..=times {
        let began = Instant::now();
        run(n).await;
        took.push(began.elapsed());
    }
    row(what, took);
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1000.0;
    eprintln!("control: {what}: {:.1} ms, {:.1} ms", at(50), at(99));
    ROWS.lock().expect("no holder of this lock panics").push((what.to_owned(), at(50), at(99)));
}
