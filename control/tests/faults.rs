//! What goes wrong around the service: its database, its clock, its callers at the same time.

mod world;

use std::time::{Duration, Instant};

use axum::body::Body;
use futures_util::StreamExt;
use http::Request;
use keyferry_store::testing::TestDatabase;
use keyferry_store::{on_both_databases, sql};
use serde_json::{Value, json};
use tower::ServiceExt;
use world::{Answer, World, static_secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_is_named_and_when_it_is_back_everything_goes_on() {
    let database = TestDatabase::postgres_alone();
    let world = World::on(&database).await;
    let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
    let (_, token) = world.proxy(Some(&principal)).await;
    let request = Request::get("/api/v1/proxy/stream").header("authorization", format!("Bearer {token}"));
    let stream = world.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
    let mut stream = stream.expect("infallible").into_body().into_data_stream();
    stream.next().await.expect("a first state").expect("bytes");

    // When it goes
    let cluster = database.cluster().expect("PostgreSQL");
    cluster.stop();
    // Then everything that needs it says so, and nothing else
    let grant = json!({ "data": { "principal_id": principal, "static_secret_id": secret } });
    for (token, method, path, body) in [
        (world.key.as_str(), "GET", "/api/v1/principals?namespace=default", None),
        (world.key.as_str(), "POST", "/api/v1/grants", Some(grant)),
        (token.as_str(), "POST", "/api/v1/proxy/sync", Some(json!({}))),
    ] {
        let began = Instant::now();
        let refused = world.call(token, method, path, body).await.is(503).json();
        assert_eq!(refused, json!({ "error": { "message": "the database is unavailable; try again" } }));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    world.call("", "GET", "/readyz", None).await.is(503);
    world.call("", "GET", "/healthz", None).await.is(200);

    // When it is back, then everything goes on, the stream of before included
    cluster.resume();
    assert_eq!(
        world.get(&format!("/api/v1/principals/{principal}/grants")).await.is(200).json()["meta"]["total"],
        0
    );
    world.call("", "GET", "/readyz", None).await.is(200);
    world.grant(&principal, &secret).await;
    let told = tokio::time::timeout(Duration::from_secs(30), async {
        let mut told = String::new();
        while !told.contains("live-value") {
            let piece = stream.next().await.expect("not the end").expect("bytes");
            told.push_str(std::str::from_utf8(&piece).expect("text"));
        }
    });
    told.await.expect("the stream tells it in time");
    assert_eq!(world.get("/api/v1/changes/verify").await.is(200).data()["ok"], true);
}

async fn if_match(world: &World, method: &str, path: &str, tag: &str, data: &Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {}", world.key))
        .header("if-match", tag);
    world.raw(request.body(Body::from(json!({ "data": data }).to_string())).expect("a request")).await
}

on_both_databases! {
    async fn of_two_who_change_what_they_read_one_is_told(database) {
        let world = World::on(database).await;
        let principal = world.principal("p").await;
        let role = world.post("/api/v1/roles", json!({ "foreign_id": "r" })).await.is(201).id();
        let secret = world.secret("s", "v", "a.test").await;
        let (proxy, _) = world.proxy(None).await;
        let again = static_secret("s", "w", "b.test");
        for (path, data) in [
            (format!("/api/v1/principals/{principal}"), json!({ "name": "x" })),
            (format!("/api/v1/roles/{role}"), json!({ "name": "x" })),
            (format!("/api/v1/static_secrets/{secret}"), again),
            (format!("/api/v1/proxies/{proxy}"), json!({ "name": "x" })),
        ] {
            let read = world.get(&path).await.is(200);
            let tag = read.etag();
            let (first, second) = tokio::join!(
                if_match(&world, "PUT", &path, &tag, &data),
                if_match(&world, "PATCH", &path, &tag, &data),
            );
            let mut statuses = [first.status.as_u16(), second.status.as_u16()];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 412], "{path}");
            if_match(&world, "DELETE", &path, &tag, &data).await.is(412);
            if_match(&world, "PUT", &path, "*", &data).await.is(200);
            let now = world.get(&path).await.is(200).etag();
            if_match(&world, "DELETE", &path, &format!("\"1\", {now}"), &data).await.is(204);
            if_match(&world, "PUT", &path, "*", &data).await.is(404);
        }
        // What is not there yet has no state that could match.
        if_match(&world, "PUT", "/api/v1/principals/new", "*", &json!({})).await.is(412);
        // A sandbox and a grant too
        let (principal, secret) = (world.principal("q").await, world.secret("t", "v", "a.test").await);
        let sandbox = world.post("/api/v1/sandboxes", json!({ "name": "x", "principal_id": principal })).await.is(201);
        let path = format!("/api/v1/sandboxes/{}", sandbox.id());
        let rotated = world.call(&world.key, "POST", &format!("{path}/rotate"), None).await.is(200);
        if_match(&world, "DELETE", &path, &sandbox.etag(), &json!({})).await.is(412);
        if_match(&world, "DELETE", &path, &rotated.etag(), &json!({})).await.is(204);
        let grant = world.grant(&principal, &secret).await;
        let path = format!("/api/v1/grants/{grant}");
        if_match(&world, "DELETE", &path, "\"1\"", &json!({})).await.is(412);
        if_match(&world, "DELETE", &path, &world.get(&path).await.etag(), &json!({})).await.is(204);
    }

    async fn many_first_upserts_grants_and_assignments_at_once_make_one_of_each(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "v", "a.test").await);
        let role = world.post("/api/v1/roles", json!({ "foreign_id": "r" })).await.is(201).id();
        for (method, path, data) in [
            ("PUT", "/api/v1/principals/new".to_owned(), json!({ "name": "n" })),
            ("PUT", "/api/v1/roles/new".to_owned(), json!({ "name": "n" })),
            ("PUT", "/api/v1/static_secrets/new".to_owned(), static_secret("new", "v", "a.test")),
            ("POST", "/api/v1/grants".to_owned(), json!({ "principal_id": principal, "static_secret_id": secret })),
            ("POST", format!("/api/v1/principals/{principal}/roles"), json!({ "role_id": role })),
        ] {
            let all = (0..8).map(|_| world.call(&world.key, method, &path, Some(json!({ "data": data }))));
            let answers = futures_util::future::join_all(all).await;
            let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201], "{path}");
            let first = answers[0].id();
            assert!(answers.iter().all(|answer| answer.id() == first), "{path}");
        }
        // POST always makes: all but one are told that the name is taken.
        let all = (0..4).map(|_| world.post("/api/v1/principals", json!({ "foreign_id": "one" })));
        let mut statuses: Vec<_> =
            futures_util::future::join_all(all).await.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 422, 422, 422]);
    }

    async fn t88_a_clock_that_steps_ends_what_has_ended_and_repeats_no_state(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        let in_an_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let grant = json!({ "principal_id": principal, "static_secret_id": secret, "expires_at": in_an_hour });
        world.post("/api/v1/grants", grant).await.is(201);
        let (_, token) = world.proxy(Some(&principal)).await;
        let capable = json!({ "capabilities": ["expiry"] });
        assert!(world.sync(&token, capable.clone()).await.is(200).text.contains("live-value"));
        let path = format!("/api/v1/principals/{principal}");
        let mut tags = vec![world.get(&path).await.etag()];
        // Two hours ahead: the grant has ended, though its policy was ready.
        world.later(7200);
        assert!(!world.sync(&token, capable.clone()).await.is(200).text.contains("live-value"));
        tags.push(world.put(&path, json!({ "name": "ahead" })).await.is(200).etag());
        // Back by a day: a state that was there does not come back, and numbers go on.
        world.later(-86_400);
        let before = world.store.fetch_one(sql("SELECT number FROM control_state")).await.expect("a row");
        for name in ["back", "again"] {
            tags.push(world.put(&path, json!({ "name": name })).await.is(200).etag());
        }
        let after = world.store.fetch_one(sql("SELECT number FROM control_state")).await.expect("a row");
        let number = |row: &keyferry_store::Row| row.get::<i64>("number").expect("a number");
        assert_eq!(number(&after), number(&before) + 2);
        let mut once = tags.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), tags.len(), "{tags:?}");
        if_match(&world, "PUT", &path, &tags[1], &json!({ "name": "lost" })).await.is(412);
        let checked = world.get("/api/v1/changes/verify").await.is(200).data();
        assert_eq!(checked["ok"], true, "{checked}");
    }

    async fn t87_a_change_log_that_was_tampered_with_says_where(database) {
        let world = World::on(database).await;
        for name in ["a", "b", "c", "d"] {
            world.principal(name).await;
        }
        let verify = "/api/v1/changes/verify";
        let good = world.get(verify).await.is(200).data();
        let entries = world.get("/api/v1/changes").await.json()["data"].as_array().expect("a list").clone();
        assert_eq!((&good["ok"], &good["entries"], &good["head"]), (&json!(true), &json!(5), &entries[4]["hash"]));
        let noted = entries[2]["hash"].as_str().expect("a hash").to_owned();
        assert_eq!(world.get(&format!("{verify}?noted={noted}")).await.data()["noted"], true);
        assert_eq!(world.get(&format!("{verify}?noted={}", "1".repeat(64))).await.data()["noted"], false);
        let tamper = async |statement: &'static str| {
            world.store.execute(sql(statement)).await.expect("it is changed");
            let found = world.get(verify).await.is(200).data();
            (found["ok"].clone(), found["broken_at"].clone(), found["reason"].clone())
        };
        let broken = |at: i64, reason: &str| (json!(false), json!(at), json!(reason));
        assert_eq!(
            tamper("UPDATE control_changes SET actor = 'ak_somebody' WHERE seq = 4").await,
            broken(4, "it is not as it was written")
        );
        assert_eq!(tamper("DELETE FROM control_changes WHERE seq = 3").await, broken(4, "entries before it are missing"));
        assert_eq!(
            tamper("UPDATE control_changes SET hash = previous_hash WHERE seq = 2").await,
            broken(2, "it is not as it was written")
        );
        // What is cut off at the end shows where its hash was noted.
        tamper("DELETE FROM control_changes WHERE seq > 1").await;
        let cut = world.get(&format!("{verify}?noted={noted}")).await.data();
        assert_eq!((&cut["ok"], &cut["noted"]), (&json!(true), &json!(false)));
    }
}
