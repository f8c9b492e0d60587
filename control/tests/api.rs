//! The API as operators use it, over both databases.

mod world;

use axum::body::Body;
use http::Request;
use keyferry_store::{on_both_databases, sql};
use serde_json::{Value, json};
use world::{World, static_secret};

on_both_databases! {
    async fn a_secret_is_made_shown_without_its_value_replaced_and_deleted(database) {
        let world = World::on(database).await;
        let made = world.post("/api/v1/static_secrets", static_secret("github", "s3cret-1", "api.test")).await.is(201);
        let id = made.id();
        assert!(id.starts_with("ssr_"));
        assert_eq!(made.headers["cache-control"], "no-store");
        let mut expected = json!({
            "id": id, "namespace": "default", "foreign_id": "github", "name": null, "description": null, "labels": {},
            "enabled": true, "inject_config": { "header": "X-Key" }, "replace_config": null,
            "source": { "source_type": "control_plane", "config": {} },
            "rules": [{ "host": "api.test", "cidr": null, "position": 0, "http_methods": [], "paths": [] }],
        });
        for key in ["created_at", "updated_at"] {
            expected[key] = made.data()[key].clone();
        }
        assert_eq!(made.data(), expected);
        for path in [
            format!("/api/v1/static_secrets/{id}"),
            "/api/v1/static_secrets/lookup/default/github".to_owned(),
            "/api/v1/static_secrets/lookup/github".to_owned(),
        ] {
            assert_eq!(world.get(&path).await.is(200).data(), expected, "{path}");
        }
        // The body is the whole secret: what is left out is reset.
        let mut write = static_secret("github", "s3cret-2", "b.test");
        write["name"] = json!("GitHub");
        let put = world.put("/api/v1/static_secrets/github", write).await.is(200);
        assert_eq!((put.id(), put.data()["name"].clone()), (id.clone(), json!("GitHub")));
        let put = world.put(&format!("/api/v1/static_secrets/{id}"), static_secret("github", "s3cret-3", "c.test")).await;
        assert_eq!(put.is(200).data()["name"], Value::Null);
        world.delete(&format!("/api/v1/static_secrets/{id}")).await.is(204);
        world.get(&format!("/api/v1/static_secrets/{id}")).await.is(404);
        // T76: nowhere in the database's readable columns either.
        let changes = world.get("/api/v1/changes").await.is(200).text;
        assert!(!changes.contains("s3cret"), "{changes}");
        let rows = world.store.fetch_all(sql("SELECT value FROM control_secret_values")).await.expect("rows");
        assert!(rows.is_empty(), "values go with their secret");
    }

    async fn an_upsert_by_foreign_id_makes_or_changes_and_by_id_only_changes(database) {
        let world = World::on(database).await;
        let made = world.put("/api/v1/principals/alice", json!({ "name": "Alice" })).await.is(201);
        let again = world.put("/api/v1/principals/alice", json!({ "labels": { "team": "a" } })).await.is(200);
        assert_eq!(again.id(), made.id());
        assert_eq!(again.data()["name"], "Alice", "what is left out stays");
        world.put("/api/v1/principals/alice", json!({ "namespace": "other" })).await.is(201);
        world.put("/api/v1/principals/prn_nothinghere", json!({ "name": "x" })).await.is(404);
        world.post("/api/v1/principals", json!({ "foreign_id": "alice" })).await.fault("foreign_id");
        world.post("/api/v1/principals", json!({ "foreign_id": "prn_x" })).await.fault("foreign_id");
        world.put("/api/v1/roles/ops", json!({})).await.is(201);
        world.put("/api/v1/roles/ops", json!({ "name": "Ops" })).await.is(200);
    }

    async fn two_first_upserts_at_once_make_one(database) {
        let world = World::on(database).await;
        let upserts = (0..8).map(|n| world.put("/api/v1/static_secrets/same", static_secret("same", &format!("v{n}"), "a.test")));
        let answers = futures_util::future::join_all(upserts).await;
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
        let list = world.get("/api/v1/static_secrets?namespace=default").await.is(200).json();
        assert_eq!(list["meta"]["total"], 1);
    }

    async fn a_lost_update_is_refused(database) {
        let world = World::on(database).await;
        let made = world.put("/api/v1/roles/ops", json!({ "name": "1" })).await.is(201);
        let tag = made.etag();
        world.put("/api/v1/roles/ops", json!({ "name": "2" })).await.is(200);
        let request = Request::builder()
            .method("PATCH")
            .uri("/api/v1/roles/ops")
            .header("authorization", format!("Bearer {}", world.key))
            .header("if-match", tag)
            .body(Body::from(r#"{"data":{"name":"3"}}"#))
            .expect("a request");
        world.raw(request).await.is(412);
        let now = world.get("/api/v1/roles/lookup/ops").await.is(200);
        assert_eq!(now.data()["name"], "2");
        // The clock may go back; a state never does.
        world.later(-86_400);
        let again = world.put("/api/v1/roles/ops", json!({ "name": "4" })).await.is(200);
        assert!(again.etag() > now.etag());
    }

    async fn pages_and_filters(database) {
        let world = World::on(database).await;
        for n in 0..5 {
            let labels = json!({ "team": if n % 2 == 0 { "a" } else { "b" }, "n": n });
            world.post("/api/v1/principals", json!({ "foreign_id": format!("p{n}"), "labels": labels, "kind": "service" })).await.is(201);
        }
        let names = |answer: &Value| -> Vec<String> {
            answer["data"].as_array().expect("a list").iter().map(|it| it["foreign_id"].as_str().expect("text").to_owned()).collect()
        };
        let page = world.get("/api/v1/principals?namespace=default&page=2&limit=2").await.is(200).json();
        assert_eq!(names(&page), ["p2", "p3"]);
        assert_eq!(page["meta"], json!({ "page": 2, "limit": 2, "total": 5, "total_pages": 3 }));
        let clamped = world.get("/api/v1/principals?namespace=default&page=0&limit=100000").await.is(200).json();
        assert_eq!(clamped["meta"], json!({ "page": 1, "limit": 200, "total": 5, "total_pages": 1 }));
        let filtered = world.get("/api/v1/principals?namespace=default&labels[team]=b&labels%5Bn%5D=3&kind=service").await;
        assert_eq!(names(&filtered.is(200).json()), ["p3"]);
        assert_eq!(names(&world.get("/api/v1/principals?namespace=default&kind=user").await.is(200).json()), [""; 0]);
        for bad in ["", "?namespace=", "?namespace=default&page=x", "?namespace=default&limit=1.5", "?namespace=default&labels[a][b]=c", "?namespace=default&labels=c", "?namespace=%ff"] {
            world.get(&format!("/api/v1/principals{bad}")).await.is(400);
        }
    }

    async fn a_grant_has_one_grantee_and_one_secret_and_is_made_once(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "v", "a.test").await);
        let role = world.put("/api/v1/roles/ops", json!({})).await.id();
        let made = world.post("/api/v1/grants", json!({ "principal_id": principal, "static_secret_id": secret })).await.is(201);
        assert_eq!(made.data()["priority"], 100);
        let mut keys: Vec<_> = made.data().as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        assert_eq!(keys, ["created_at", "expires_at", "id", "principal_id", "priority", "static_secret_id", "updated_at"]);
        let again = world.post("/api/v1/grants", json!({ "principal_id": principal, "static_secret_id": secret })).await.is(200);
        assert_eq!(again.id(), made.id());
        let of_role = world.post("/api/v1/grants", json!({ "role_id": role, "static_secret_id": secret, "expires_at": "2999-01-01T00:00:00Z" })).await.is(201);
        assert_eq!((of_role.data()["priority"].clone(), of_role.data()["expires_at"].clone()), (json!(0), json!("2999-01-01T00:00:00Z")));
        for (write, message) in [
            (json!({ "static_secret_id": secret }), "must reference one of principal_id, role_id"),
            (json!({ "principal_id": principal, "role_id": role, "static_secret_id": secret }), "must reference only one of principal_id, role_id"),
            (json!({ "principal_id": principal }), "must reference one of static_secret_id, "),
            (json!({ "principal_id": principal, "static_secret_id": secret, "hmac_secret_id": "hms_x" }), "must reference only one of static_secret_id, "),
        ] {
            let fault = world.post("/api/v1/grants", write).await.fault("base");
            assert!(fault.starts_with(message), "{fault}");
        }
        // T76: an id of another kind, or of nothing, names nothing.
        for (who, what) in [("prn_aaaaaaaa", secret.as_str()), (principal.as_str(), "ssr_aaaaaaaa"), (principal.as_str(), role.as_str())] {
            world.post("/api/v1/grants", json!({ "principal_id": who, "static_secret_id": what })).await.is(404);
        }
        let listed = world.get(&format!("/api/v1/principals/{principal}/grants")).await.is(200).json();
        assert_eq!(listed["data"][0]["id"], made.data()["id"]);
        world.delete(&format!("/api/v1/grants/{}", made.id())).await.is(204);
        world.delete(&format!("/api/v1/grants/{}", made.id())).await.is(404);
    }

    async fn roles_are_given_once_within_a_namespace_and_by_default_to_new_principals(database) {
        let world = World::on(database).await;
        let principal = world.principal("p").await;
        let roles = format!("/api/v1/principals/{principal}/roles");
        let held = world.get(&roles).await.is(200).json();
        assert_eq!(held["data"][0]["foreign_id"], "infra", "the default role");
        world.delete(&format!("{roles}/{}", held["data"][0]["id"].as_str().expect("an id"))).await.is(204);
        // Taken away stays away.
        world.put("/api/v1/principals/p", json!({ "name": "x" })).await.is(200);
        assert_eq!(world.get(&roles).await.json()["data"], json!([]));
        let role = world.put("/api/v1/roles/ops", json!({})).await.id();
        world.post(&roles, json!({ "role_id": role })).await.is(201);
        world.post(&roles, json!({ "role_id": role })).await.is(200);
        world.post(&roles, json!({ "role_id": "role_aaaaaaaa" })).await.is(404);
        world.post(&roles, json!({})).await.fault("role_id");
        let elsewhere = world.put("/api/v1/roles/ops", json!({ "namespace": "other" })).await.id();
        world.post(&roles, json!({ "role_id": elsewhere })).await.fault("role_id");
        world.delete(&format!("{roles}/{role}")).await.is(204);
        world.delete(&format!("{roles}/{role}")).await.is(404);
    }

    async fn keys_are_ones_own_shown_once_and_revoked_softly(database) {
        let world = World::on(database).await;
        let made = world.post("/api/v1/api_keys", json!({ "name": "ci" })).await.is(201);
        let token = made.data()["token"].as_str().expect("a token").to_owned();
        assert!(token.starts_with("iak_") && token.len() == 68);
        let listed = world.get("/api/v1/api_keys").await.is(200);
        assert!(!listed.text.contains(&token) && listed.json()["meta"]["total"] == 2);
        world.post("/api/v1/api_keys", json!({})).await.fault("name");
        // The key in use cannot take itself away.
        let own = world.call(&token, "DELETE", &format!("/api/v1/api_keys/{}", made.id()), None).await.is(422);
        assert_eq!(own.json()["error"]["message"], "cannot revoke the API key used for this request");
        world.delete(&format!("/api/v1/api_keys/{}", made.id())).await.is(204);
        world.call(&token, "GET", "/api/v1/api_keys", None).await.is(401);
        let kept = world.store.fetch_one(sql("SELECT COUNT(*) AS total FROM control_api_keys")).await.expect("a row");
        assert_eq!(kept.get::<i64>("total").expect("a number"), 2);
        // T76: somebody else's key is not there.
        let user = sql("INSERT INTO control_users (row, email, created_at) VALUES (9001, 'other@test', 0)");
        world.store.execute(user).await.expect("a user");
        let key = sql("INSERT INTO control_api_keys (row, owner, name, token_hash, created_at, updated_at) VALUES (9002, 9001, 'x', 'h', 0, 0)");
        world.store.execute(key).await.expect("a key");
        let foreign = keyferry_control::IdOf::ApiKey.id(9002);
        world.get(&format!("/api/v1/api_keys/{foreign}")).await.is(404);
        world.delete(&format!("/api/v1/api_keys/{foreign}")).await.is(404);
    }

    async fn t76_hostile_texts_are_kept_as_they_are_or_refused_at_their_field(database) {
        let world = World::on(database).await;
        let texts = ["'; DROP TABLE control_principals; --", "<script>alert(1)</script>", "\u{202e}\u{1f600}", "\u{1b}[31m\n\r", "{{7*7}}", "%00", "../../etc"];
        for (n, text) in texts.iter().enumerate() {
            let labels = json!({ *text: text });
            let made = world.post("/api/v1/principals", json!({ "foreign_id": format!("h{n}"), "name": text, "labels": labels })).await.is(201);
            let shown = world.get(&format!("/api/v1/principals/{}", made.id())).await.is(200).data();
            assert_eq!((shown["name"].clone(), shown["labels"].clone()), (json!(text), labels));
            world.post("/api/v1/principals", json!({ "foreign_id": text })).await.fault("foreign_id");
            world.post("/api/v1/principals", json!({ "namespace": text })).await.fault("namespace");
        }
        for (write, field) in [
            (json!({ "name": "a\0b" }), "name"),
            (json!({ "name": "x".repeat(256) }), "name"),
            (json!({ "name": 7 }), "name"),
            (json!({ "labels": { "a": { "b": 1 } } }), "labels"),
            (json!({ "labels": { "a": null } }), "labels"),
            (json!({ "labels": [] }), "labels"),
            (json!({ "labels": { "a\0": "x" } }), "labels"),
            (json!({ "kind": "admin" }), "kind"),
            (json!({ "slack_user_id": "u1" }), "slack_user_id"),
            (json!({ "slack_user_id": "U1", "labels": { "slack_user_id": "U1" } }), "slack_user_id"),
            (json!({ "is_admin": true }), "is_admin"),
            (json!({ "id": "prn_x" }), "id"),
        ] {
            world.post("/api/v1/principals", write).await.fault(field);
        }
        for body in ["", "{", "[]", "null", "{\"data\":[]}", "{\"name\":\"x\"}", "{\"data\":null}", "\u{feff}{}"] {
            let request = Request::post("/api/v1/principals").header("authorization", format!("Bearer {}", world.key));
            world.raw(request.body(Body::from(body)).expect("a request")).await.is(400);
        }
        let large = format!("{{\"data\":{{\"name\":\"{}\"}}}}", "x".repeat(1024 * 1024));
        let request = Request::post("/api/v1/principals").header("authorization", format!("Bearer {}", world.key));
        world.raw(request.body(Body::from(large)).expect("a request")).await.is(413);
        for path in ["/api/v1/nothing", "/", "/api/v1/principals/", "/api/v1/principals/prn_x/y", "/api/v1/principals/lookup/a%00b", "/api/v1/principals/%ff"] {
            let answer = world.get(path).await.is(404);
            assert_eq!(answer.json(), json!({ "error": { "message": "not found" } }), "{path}");
        }
        world.call(&world.key, "PATCH", "/api/v1/grants", None).await.is(405).json();
    }

    async fn the_change_log_tells_who_did_what_and_is_a_chain(database) {
        let world = World::on(database).await;
        let principal = world.principal("p").await;
        let secret = world.secret("s", "s3cret", "a.test").await;
        let grant = world.grant(&principal, &secret).await;
        world.delete(&format!("/api/v1/grants/{grant}")).await.is(204);
        let log = world.get("/api/v1/changes").await.is(200).json();
        let entries = log["data"].as_array().expect("a list");
        let actions: Vec<_> = entries.iter().map(|it| it["action"].as_str().expect("text")).collect();
        assert_eq!(actions, ["bootstrap", "principal.create", "secret.create", "grant.create", "grant.delete"]);
        let key = world.get("/api/v1/api_keys").await.json()["data"][0]["id"].clone();
        assert_eq!(entries[1]["actor"], key);
        assert_eq!(entries[4]["before"]["id"], json!(grant));
        assert_eq!(entries[4]["after"], Value::Null);
        let mut previous = json!("0".repeat(64));
        for entry in entries {
            assert_eq!(entry["previous_hash"], previous);
            previous = entry["hash"].clone();
        }
        let only = world.get(&format!("/api/v1/changes?resource={grant}&action=grant.delete")).await.json();
        assert_eq!(only["meta"]["total"], 1);
    }

    async fn an_egress_rule_is_ones_own_or_a_roles_and_judged_by_the_policy_language(database) {
        let world = World::on(database).await;
        let principal = world.principal("p").await;
        let rules = format!("/api/v1/principals/{principal}/egress_rules");
        let made = world.post(&rules, json!({ "host": "*.test", "http_methods": ["GET"], "ports": [8443] })).await.is(201);
        assert_eq!(made.data()["action"], "allow");
        assert_eq!(world.get(&rules).await.json()["data"], json!([made.data()]));
        world.post(&rules, json!({ "host": "a.test", "cidr": "10.0.0.0/8" })).await.fault("base");
        world.post(&rules, json!({ "host": "a.test", "paths": ["x"] })).await.fault("paths[0]");
        world.post(&rules, json!({ "host": "a.test", "action": "maybe" })).await.fault("action");
        let other = world.principal("q").await;
        world.delete(&format!("/api/v1/principals/{other}/egress_rules/{}", made.id())).await.is(404);
        world.delete(&format!("{rules}/{}", made.id())).await.is(204);
        let role = world.put("/api/v1/roles/ops", json!({})).await.id();
        world.post(&format!("/api/v1/roles/{role}/egress_rules"), json!({ "host": "a.test", "action": "deny" })).await.is(201);
    }

    async fn explain_says_which_rule_and_secret_and_why(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "s3cret", "a.test").await);
        world.grant(&principal, &secret).await;
        let url = |host: &str| format!("/api/v1/principals/{principal}/explain?method=GET&url=https%3A%2F%2F{host}%2Fv1");
        let yes = world.get(&url("a.test")).await.is(200);
        assert!(!yes.text.contains("s3cret"));
        let request = &yes.data()["request"];
        assert_eq!(request["verdict"], "forward");
        assert_eq!(request["rule_from"], json!({ "of": "secret", "id": secret, "name": "s" }));
        assert_eq!((&request["secrets"][0]["secret_id"], &request["secrets"][0]["outcome"]), (&json!(secret), &json!("injected")));
        assert_eq!(yes.data()["secrets"][0]["reason"], "granted directly with priority 100");
        let no = world.get(&url("b.test")).await.is(200);
        assert_eq!((&no.data()["request"]["verdict"], &no.data()["request"]["reason"]), (&json!("refuse"), &json!("host_not_allowed")));
        for bad in ["method=GET&url=ftp%3A%2F%2Fx", "method=GET", "url=nonsense"] {
            world.get(&format!("/api/v1/principals/{principal}/explain?{bad}")).await.is(400);
        }
    }

    async fn a_deleted_principal_takes_its_grants_rules_and_sandboxes_and_leaves_its_proxies_unassigned(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "v", "a.test").await);
        let grant = world.grant(&principal, &secret).await;
        let (proxy, token) = world.proxy(Some(&principal)).await;
        let sandbox = world.post("/api/v1/sandboxes", json!({ "name": "x", "principal_id": principal })).await.is(201).id();
        world.delete(&format!("/api/v1/principals/{principal}")).await.is(204);
        for gone in [format!("/api/v1/grants/{grant}"), format!("/api/v1/sandboxes/{sandbox}"), format!("/api/v1/principals/{principal}")] {
            world.get(&gone).await.is(404);
        }
        let shown = world.get(&format!("/api/v1/proxies/{proxy}")).await.is(200).data();
        assert_eq!((&shown["status"], &shown["principal_id"], &shown["principal_assigned_at"]), (&json!("unassigned"), &Value::Null, &Value::Null));
        assert_eq!(world.sync(&token, json!({})).await.is(200).json()["status"], "unassigned");
    }
}
