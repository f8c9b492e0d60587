//! The table of routes: whom each admits, and the document that is made of it.

mod world;

use keyferry_store::testing::TestDatabase;
use serde_json::{Value, json};
use world::World;

/// The checked-in copy.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

#[test]
fn the_document_in_the_tree_is_the_one_that_is_served() {
    if std::env::var_os("KEYFERRY_REGENERATE").is_some() {
        std::fs::write(FILE, keyferry_control::openapi_document()).expect("the file is written");
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        file == keyferry_control::openapi_document(),
        "docs/openapi.json is stale\nhint: KEYFERRY_REGENERATE=1 cargo test -p keyferry-control --test routes"
    );
}

/// Every operation of the document: method, path, and the class of caller that it names.
fn operations() -> Vec<(String, String, String)> {
    let document: Value = serde_json::from_str(keyferry_control::openapi_document()).expect("JSON");
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let class = match &operation["security"] {
                Value::Array(classes) if classes.is_empty() => "anyone".to_owned(),
                classes => classes[0].as_object().expect("a class").keys().next().expect("a name").clone(),
            };
            operations.push((method.to_uppercase(), path.clone(), class));
        }
    }
    operations
}

#[tokio::test]
async fn t66_t76_every_route_refuses_every_class_of_caller_but_its_own() {
    let database = TestDatabase::sqlite();
    let world = World::on(&database).await;
    let principal = world.principal("p").await;
    let (_, proxy) = world.proxy(Some(&principal)).await;
    let sandbox = world
        .post("/api/v1/sandboxes", json!({ "name": "x", "principal_id": principal }))
        .await
        .is(201)
        .data();
    let sandbox = sandbox["token"].as_str().expect("a token");
    let unknown = [format!("iak_{}", "a".repeat(64)), format!("iprx_{}", "a".repeat(64))];
    let callers = [
        ("operator", world.key.as_str()),
        ("proxy", proxy.as_str()),
        ("sandbox", sandbox),
        ("nobody", ""),
        ("nobody", unknown[0].as_str()),
        ("nobody", unknown[1].as_str()),
        ("nobody", "' OR 1=1 --"),
    ];
    let operations = operations();
    assert!(operations.len() > 90, "{}", operations.len());
    let mut refused = 0;
    for (method, path, class) in &operations {
        let real =
            path.replace("{namespace}", "default").replace("{foreign_id}", "p").replace("{id}", &principal);
        let real = real.replace("{role_id}", "role_x").replace("{rule_id}", "rqr_x");
        for (caller, token) in callers {
            // Its own class is what all other tests are about; a stream has no end.
            if class == caller || class == "anyone" {
                continue;
            }
            let answer = world.call(token, method, &real, Some(json!({ "data": {} }))).await;
            assert_eq!(answer.status, 401, "{caller} at {method} {path}: {}", answer.text);
            assert_eq!(answer.json()["error"]["message"].as_str().map(str::is_empty), Some(false));
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
    // Nothing happened.
    assert_eq!(world.get("/api/v1/principals?namespace=default").await.json()["meta"]["total"], 1);
}

#[tokio::test]
async fn t68_only_a_well_formed_bearer_is_looked_at() {
    let database = TestDatabase::sqlite();
    let world = World::on(&database).await;
    let before = world.store.queries();
    for header in [
        "",
        "Bearer",
        "Bearer ",
        "Basic aWFrOng=",
        "Token iak_x",
        &format!("Bearer {}", "iak_".repeat(5000)),
        &world.key,
    ] {
        let request = http::Request::get("/api/v1/api_keys").header("authorization", header);
        world.raw(request.body(axum::body::Body::empty()).expect("a request")).await.is(401);
    }
    let twice = http::Request::get("/api/v1/api_keys")
        .header("authorization", format!("Bearer {}", world.key))
        .header("authorization", "Bearer x");
    world.raw(twice.body(axum::body::Body::empty()).expect("a request")).await.is(401);
    assert_eq!(world.store.queries(), before, "the database was not asked");
    // A token in a URL is no token.
    let path = format!("/api/v1/api_keys?access_token={}", world.key);
    world.call("", "GET", &path, None).await.is(401);
}

#[tokio::test]
async fn health_is_for_everybody_and_names_nothing() {
    let database = TestDatabase::sqlite();
    let world = World::on(&database).await;
    for (path, text) in [("/up", "ok\n"), ("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        assert_eq!(world.call("", "GET", path, None).await.is(200).text, text);
    }
    assert_eq!(
        world.call("", "GET", "/openapi.json", None).await.is(200).text,
        keyferry_control::openapi_document()
    );
}

keyferry_store::on_both_databases! {
    async fn no_write_however_odd_is_our_fault(database) {
        let world = World::on(database).await;
        let principal = world.principal("p").await;
        let document: Value = serde_json::from_str(keyferry_control::openapi_document()).expect("JSON");
        let odd = [
            json!(null), json!(true), json!(-1), json!(i64::MAX), json!(1e300), json!(""), json!("a\0b"), json!("\u{feff}\u{202e}' OR 1=1 --"),
            json!("x".repeat(5000)), json!([]), json!([null]), json!([["a"]]), json!({}), json!({ "a": { "b": [1] } }), json!("9999-12-31T23:59:59.999999999Z"),
        ];
        let role = world.put("/api/v1/roles/r", json!({})).await.id();
        let mut asked = 0;
        for (method, path, class) in operations() {
            // PATCH is PUT.
            if class != "operator" || !["POST", "PUT"].contains(&method.as_str()) {
                continue;
            }
            let operation = &document["paths"][&path][method.to_lowercase()];
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let Some(name) = schema["properties"]["data"]["$ref"].as_str().and_then(|it| it.rsplit_once('/')) else { continue };
            let properties = document["components"]["schemas"][name.1]["properties"].as_object().expect("properties");
            // A route under a resource needs one that is there; an upsert makes one.
            let id = match path.as_str() {
                _ if path.ends_with("/{id}") => "odd",
                _ if path.starts_with("/api/v1/roles") => role.as_str(),
                _ => principal.as_str(),
            };
            let path = path.replace("{id}", id);
            for key in properties.keys() {
                for value in &odd {
                    let answer = world.call(&world.key, &method, &path, Some(json!({ "data": { key.as_str(): value } }))).await;
                    assert!(answer.status.as_u16() < 500, "{method} {path} {key} {value}: {}", answer.text);
                    // What the document names is known; what a value was, nobody says.
let known = answer.json()["error"]["details"][key] != json!(["is not an attribute of this resource"]);
                    assert!(known, "{path} {key}: {}", answer.text);
                    asked += 1;
                }
            }
        }
        assert!(asked > 2000, "{asked}");
        for path in ["/api/v1/proxy/sync", "/api/v1/proxy/applied"] {
            let (_, token) = world.proxy(None).await;
            for value in &odd {
                let answer = world.call(&token, "POST", path, Some(json!({ "config_hash": value, "generation": value, "capabilities": value }))).await;
                assert!(answer.status.as_u16() < 500, "{path} {value}: {}", answer.text);
            }
        }
        // T76: the same in every part of every path, and in every parameter
        let texts = ["%27%20OR%201=1%20--", "%3Cscript%3E", "%00", "%ff", "..%2f..%2fetc", "%F0%9F%98%80", "a%0d%0aX:%20y", "-1", "99999999999999999999"];
        for (method, path, class) in operations() {
            if class != "operator" || path.ends_with("/rotate") {
                continue;
            }
            for text in texts {
                let parts = path.split('/').map(|part| if part.starts_with('{') { text } else { part });
                let real = parts.collect::<Vec<_>>().join("/");
                let mut targets = vec![real.clone()];
                let parameters = document["paths"][&path][method.to_lowercase()]["parameters"].as_array();
                let queries = parameters.into_iter().flatten().filter(|parameter| parameter["in"] == "query");
                for parameter in queries {
                    let name = parameter["name"].as_str().expect("a name");
                    let name = if name == "labels" { "labels[a]" } else { name };
                    let namespace = if name == "namespace" { "" } else { "&namespace=default" };
                    targets.push(format!("{}?{name}={text}{namespace}", path.replace("{id}", &principal)));
                    targets.push(format!("{}?{text}={text}{namespace}", path.replace("{id}", &principal)));
                }
                for target in targets.iter().filter(|target| !target.contains('{')) {
                    let answer = world.call(&world.key, &method, target, Some(json!({ "data": {} }))).await;
                    assert!(answer.status.as_u16() < 500, "{method} {target}: {}", answer.text);
                    assert!(!answer.text.contains("<script>") || answer.status == 200, "{method} {target}: {}", answer.text);
                }
            }
        }
    }
}

#[tokio::test]
async fn t66_at_the_owners_door_whoever_shows_no_key_is_the_first_operator_and_nothing_else() {
    let database = TestDatabase::sqlite();
    let mut world = World::on(&database).await;
    let (_, proxy) = world.proxy(None).await;
    world.router = world.control.owners_router();

    let made =
        world.call("", "POST", "/api/v1/principals", Some(json!({ "data": { "foreign_id": "p" } }))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let changes = world.call("", "GET", "/api/v1/changes?limit=200", None).await.json();
    let last = changes["data"].as_array().and_then(|all| all.last()).expect("a change");
    assert!(last["actor"].as_str().is_some_and(|who| who.starts_with("usr_")), "{last}");
    let keys = world.call("", "GET", "/api/v1/api_keys", None).await.json();
    assert_eq!(keys["meta"]["total"], 1, "the first operator's: {keys}");

    // A token that is shown is judged as at any other door.
    let unknown = format!("iak_{}", "a".repeat(64));
    for (token, method, path) in [
        (unknown.as_str(), "GET", "/api/v1/principals?namespace=default"),
        (proxy.as_str(), "GET", "/api/v1/principals?namespace=default"),
        ("", "POST", "/api/v1/proxy/sync"),
        ("", "GET", "/api/v1/proxy/stream"),
    ] {
        let answer = world.call(token, method, path, None).await;
        assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text);
    }
}
