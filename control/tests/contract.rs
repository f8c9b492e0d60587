//! The smaller promises of the API: what does not change, what filters and pages mean, how much a request asks of the database.

mod world;

use keyferry_store::on_both_databases;
use serde_json::{Value, json};
use world::{World, static_secret};

const COLLECTIONS: [&str; 3] = ["principals", "roles", "static_secrets"];

fn write(collection: &str, more: &[(&str, Value)]) -> Value {
    let mut data = match collection {
        "static_secrets" => static_secret("x", "v", "a.test"),
        _ => json!({}),
    };
    data.as_object_mut().expect("an object").remove("foreign_id");
    for (key, value) in more {
        data[*key] = value.clone();
    }
    data
}

fn foreign_ids(answer: &Value) -> Vec<&str> {
    let rows = answer["data"].as_array().expect("a list");
    rows.iter().map(|row| row["foreign_id"].as_str().expect("text")).collect()
}

on_both_databases! {
    async fn where_a_resource_belongs_and_what_it_is_called_never_change(database) {
        let world = World::on(database).await;
        for collection in COLLECTIONS {
            let base = format!("/api/v1/{collection}");
            let made = world.put(&format!("{base}/one"), write(collection, &[("namespace", json!("here"))])).await.is(201);
            assert_eq!((&made.data()["namespace"], &made.data()["foreign_id"]), (&json!("here"), &json!("one")));
            let path = format!("{base}/{}", made.id());
            // Saying it again is no fault; leaving it out is not saying `default`.
            world.put(&path, write(collection, &[("namespace", json!("here")), ("foreign_id", json!("one"))])).await.is(200);
            world.put(&path, write(collection, &[])).await.is(200);
            let moved = world.put(&path, write(collection, &[("namespace", json!("there"))])).await.fault("namespace");
            assert_eq!(moved, "is immutable");
            let renamed = world.put(&path, write(collection, &[("foreign_id", json!("two"))])).await.fault("foreign_id");
            assert_eq!(renamed, "is immutable");
            world.put(&format!("{base}/three"), write(collection, &[("foreign_id", json!("four"))])).await.fault("foreign_id");
            world.get(&format!("{base}/lookup/here/one")).await.is(200);
            for absent in ["lookup/here/two", "lookup/there/one", "lookup/one", "lookup/three", "lookup/four"] {
                world.get(&format!("{base}/{absent}")).await.is(404);
            }
            // An id never creates.
            let unknown = made.id().replace(|c: char| c.is_ascii_digit(), "x");
            world.put(&format!("{base}/{unknown}x"), write(collection, &[])).await.is(404);
        }
    }

    async fn every_list_with_labels_filters_by_them_and_every_list_has_pages(database) {
        let world = World::on(database).await;
        for collection in ["principals", "roles", "static_secrets", "proxies"] {
            let base = format!("/api/v1/{collection}");
            for n in 0..3 {
                let labels = json!({ "team": if n == 0 { "a" } else { "b" }, "n": n.to_string() });
                let data = match collection {
                    "proxies" => json!({ "name": format!("f{n}"), "labels": labels }),
                    _ => write(collection, &[("labels", labels), ("foreign_id", json!(format!("f{n}"))), ("namespace", json!("l"))]),
                };
                world.post(&base, data).await.is(201);
            }
            let key = if collection == "proxies" { "name" } else { "foreign_id" };
            for (query, expected) in [
                ("labels[team]=b", vec!["f1", "f2"]),
                ("labels[team]=b&labels[n]=2", vec!["f2"]),
                ("labels[team]=a&labels[n]=2", vec![]),
                ("labels[other]=b", vec![]),
                ("labels[team]=", vec![]),
                ("labels[team]=%27%20OR%201=1", vec![]),
                ("page=2&limit=2", vec!["f2"]),
                ("page=3&limit=2", vec![]),
                ("page=-7&limit=0", vec!["f0"]),
                ("page=999999999999999999999", vec![]),
                ("labels[team]=b&limit=1&page=2", vec!["f2"]),
            ] {
                let answer = world.get(&format!("{base}?namespace=l&{query}")).await.is(200).json();
                let rows = answer["data"].as_array().expect("a list");
                let found: Vec<_> = rows.iter().map(|row| row[key].as_str().expect("text")).collect();
                assert_eq!(found, expected, "{collection} {query}");
            }
            for query in ["page=1.0", "page=", "limit=a", "page=0x1", "labels=a", "labels[]=a", "labels[a=b", "page=1&page=2"] {
                world.get(&format!("{base}?namespace=l&{query}")).await.is(400);
            }
            let empty = world.get(&format!("{base}?namespace=l&labels[n]=9")).await.json();
            assert_eq!(empty["meta"], json!({ "page": 1, "limit": 50, "total": 0, "total_pages": 0 }));
        }
    }

    async fn principals_are_found_by_who_they_are_in_slack_given_in_one_of_two_ways(database) {
        let world = World::on(database).await;
        world.post("/api/v1/principals", json!({ "foreign_id": "top", "slack_user_id": "U1", "slack_team_id": "T1", "kind": "user" })).await.is(201);
        world.post("/api/v1/principals", json!({ "foreign_id": "label", "labels": { "slack_user_id": "U2", "slack_team_id": "T1" } })).await.is(201);
        for (query, expected) in [
            ("slack_user_id=U1", vec!["top"]),
            ("slack_user_id=U2", vec!["label"]),
            ("slack_team_id=T1", vec!["top", "label"]),
            ("slack_team_id=T1&kind=user", vec!["top"]),
            ("slack_user_id=u1", vec![]),
            ("slack_email=x", vec![]),
        ] {
            let found = world.get(&format!("/api/v1/principals?namespace=default&{query}")).await.is(200).json();
            assert_eq!(foreign_ids(&found), expected, "{query}");
        }
        for key in ["slack_user_id", "slack_channel_id", "slack_team_id", "slack_email"] {
            let value = match key { "slack_user_id" => "U3", "slack_channel_id" => "C3", "slack_team_id" => "T3", _ => "a@b.test" };
            world.post("/api/v1/principals", json!({ key: value, "labels": { key: value } })).await.fault(key);
            world.post("/api/v1/principals", json!({ key: "nonsense" })).await.fault(key);
        }
    }

    async fn a_requesting_user_is_of_the_same_namespace_and_there(database) {
        let world = World::on(database).await;
        let (channel, user) = (world.principal("channel").await, world.principal("user").await);
        let (own, lent) = (world.secret("own", "live-own", "a.test").await, world.secret("lent", "live-lent", "b.test").await);
        world.grant(&channel, &own).await;
        world.grant(&user, &lent).await;
        let elsewhere = world.post("/api/v1/principals", json!({ "namespace": "other", "foreign_id": "e" })).await.is(201).id();
        let secrets = |answer: &Value| answer["data"]["secrets"].as_array().map(Vec::len);
        for route in ["effective_config", "explain"] {
            let path = format!("/api/v1/principals/{channel}/{route}");
            assert_eq!(secrets(&world.get(&path).await.is(200).json()), Some(1), "{route}");
            let both = world.get(&format!("{path}?requester_principal_id={user}")).await.is(200).json();
            assert_eq!(secrets(&both), Some(2), "{route}");
            // T66: another tenant's grants are nothing that one could ask for.
            world.get(&format!("{path}?requester_principal_id={elsewhere}")).await.fault("requester_principal_id");
            for nobody in ["prn_aaaaaaaa", "", own.as_str(), "%27"] {
                world.get(&format!("{path}?requester_principal_id={nobody}")).await.is(404);
            }
        }
        let sandbox = json!({ "name": "x", "principal_id": channel, "requester_principal_id": elsewhere });
        world.post("/api/v1/sandboxes", sandbox).await.fault("requester_principal_id");
    }

    async fn t76_a_hash_that_operators_see_does_not_depend_on_values(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "1234", "a.test").await);
        world.grant(&principal, &secret).await;
        let path = format!("/api/v1/principals/{principal}/effective_config");
        let before = world.get(&path).await.is(200).etag();
        world.put(&format!("/api/v1/static_secrets/{secret}"), static_secret("s", "5678", "a.test")).await.is(200);
        assert_eq!(world.get(&path).await.is(200).etag(), before);
        world.put(&format!("/api/v1/static_secrets/{secret}"), static_secret("s", "5678", "b.test")).await.is(200);
        assert_ne!(world.get(&path).await.is(200).etag(), before);
    }

    async fn however_many_rows_there_are_a_request_asks_as_often(database) {
        let world = World::on(database).await;
        let mut costs: Vec<Vec<u64>> = Vec::new();
        let principal = world.principal("p").await;
        let role = world.put("/api/v1/roles/r", json!({ "labels": { "team": "a" } })).await.id();
        world.post(&format!("/api/v1/principals/{principal}/roles"), json!({ "role_id": role })).await.is(201);
        let (_, token) = world.proxy(Some(&principal)).await;
        for (round, rows) in [(0, 2), (1, 30)] {
            for n in 0..rows {
                let secret = world.secret(&format!("s{round}-{n}"), "v", &format!("h{round}-{n}.test")).await;
                let grantee = if n % 2 == 0 { json!({ "principal_id": principal }) } else { json!({ "role_id": role }) };
                let mut grant = grantee;
                grant["static_secret_id"] = json!(secret);
                world.post("/api/v1/grants", grant).await.is(201);
                let other = world.post("/api/v1/principals", json!({ "labels": { "team": "a" } })).await.is(201).id();
                world.post("/api/v1/sandboxes", json!({ "name": "x", "principal_id": other })).await.is(201);
                world.proxy(Some(&other)).await;
                world.post(&format!("/api/v1/principals/{principal}/egress_rules"), json!({ "host": format!("e{round}-{n}.test") })).await.is(201);
            }
            let mut asked = Vec::new();
            for path in [
                "/api/v1/principals?namespace=default&labels[team]=a&limit=200".to_owned(),
                "/api/v1/roles?namespace=default&limit=200".to_owned(),
                "/api/v1/static_secrets?namespace=default&limit=200".to_owned(),
                "/api/v1/proxies?limit=200".to_owned(),
                "/api/v1/sandboxes?limit=200".to_owned(),
                "/api/v1/changes?limit=200".to_owned(),
                format!("/api/v1/principals/{principal}/grants?limit=200"),
                format!("/api/v1/principals/{principal}/egress_rules"),
                format!("/api/v1/roles/{role}/grants?limit=200"),
                format!("/api/v1/principals/{principal}/effective_config"),
                format!("/api/v1/principals/{principal}/explain?url=https%3A%2F%2Fh0-0.test%2F"),
            ] {
                let before = world.store.queries();
                world.get(&path).await.is(200);
                asked.push(world.store.queries() - before);
            }
            // A change, so that nothing is ready, then a whole sync and a poll
            world.put("/api/v1/principals/p", json!({ "name": format!("{round}") })).await.is(200);
            for known in [Value::Null, Value::Null] {
                let before = world.store.queries();
                world.sync(&token, json!({ "config_hash": known })).await.is(200);
                asked.push(world.store.queries() - before);
            }
            costs.push(asked);
        }
        // The first sync of a proxy notes that it was seen.
        let (few, many) = (&costs[0], &costs[1]);
        assert!(few.iter().zip(many).all(|(few, many)| many <= few), "{few:?} with few rows, {many:?} with many");
        assert!(many.iter().all(|asked| *asked <= 9), "{many:?}");
        assert!(many.last().is_some_and(|polled| *polled <= 2), "a poll: {many:?}");
    }
}
