//! What proxies are told, over both databases.

mod world;

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use http::Request;
use keyferry_contract::sync::{Message, Reach, Response, Serves, Status};
use keyferry_store::on_both_databases;
use serde_json::json;
use tower::ServiceExt;
use world::World;

/// A proxy that listens.
struct Listener {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Listener {
    async fn open(world: &World, token: &str, capabilities: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(format!("/api/v1/proxy/stream?capabilities={capabilities}"))
            .header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = world
            .router
            .clone()
            .oneshot(request.body(Body::empty()).expect("a request"))
            .await
            .expect("infallible");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The messages of the next state, and the event id that ends it.
    async fn state(&mut self) -> (Vec<Message>, String) {
        let mut messages = Vec::new();
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let id = event.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
                if let Some(data) = data {
                    messages.push(serde_json::from_str::<Message>(data).expect("a message"));
                }
                self.text = rest.to_owned();
                match messages.last() {
                    Some(Message::Commit { generation }) => {
                        let generation = generation.to_string();
                        assert_eq!(id.as_deref(), Some(generation.as_str()));
                        return (messages, generation);
                    }
                    Some(Message::Revoked) => return (messages, String::new()),
                    _ => {}
                }
            }
            let piece = tokio::time::timeout(Duration::from_secs(10), self.body.next())
                .await
                .expect("an event in time");
            self.text
                .push_str(std::str::from_utf8(&piece.expect("not the end").expect("bytes")).expect("text"));
        }
    }
}

const ALL: &str = "deny_rules,ports,schemes,foreign_credentials,expiry,sandboxes";
const ALL_AND_SOCKETS: &str = "deny_rules,ports,schemes,foreign_credentials,expiry,sandboxes,sandbox_sockets";

on_both_databases! {
    async fn an_iron_proxy_gets_what_it_reads_and_its_hash_alone_when_nothing_changed(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        world.grant(&principal, &secret).await;
        let (_, token) = world.proxy(Some(&principal)).await;
        let first = world.sync(&token, json!({ "config_hash": "" })).await.is(200).json();
        let hash = first["config_hash"].as_str().expect("a hash").to_owned();
        assert!(hash.starts_with("sha256:") && hash.len() == 71);
        assert_eq!(first["status"], "assigned");
        assert_eq!(first["principal_id"], json!(principal));
        assert_eq!(first["rules"], json!([{ "host": "a.test", "id": secret }]));
        assert_eq!(first["secrets"], json!([{
            "id": secret, "name": "s", "priority": 1, "inject": { "header": "X-Key" },
            "source": { "type": "control_plane", "value": "live-value" }, "rules": [{ "host": "a.test" }],
        }]));
        assert_eq!((&first["transforms"], &first["postgres"]), (&json!([]), &json!([])));
        assert_eq!(world.sync(&token, json!({ "config_hash": hash })).await.is(200).json(), json!({ "config_hash": hash }));
        // A swap within the same second is another assignment.
        let other = world.principal("q").await;
        let proxies = world.get("/api/v1/proxies").await.json();
        let path = format!("/api/v1/proxies/{}", proxies["data"][0]["id"].as_str().expect("an id"));
        let mut seen = vec![hash];
        for principal in [Some(&other), Some(&principal), None, Some(&principal)] {
            world.put(&path, json!({ "principal_id": principal })).await.is(200);
            let now = world.sync(&token, json!({ "config_hash": seen.last() })).await.is(200).json();
            let hash = now["config_hash"].as_str().expect("a hash").to_owned();
            assert!(!seen.contains(&hash), "{hash} again");
            assert_eq!(now["status"], if principal.is_some() { "assigned" } else { "unassigned" });
            seen.push(hash);
        }
        // T76: the same to an operator, without values.
        let config = world.get(&format!("/api/v1/principals/{principal}/effective_config")).await.is(200);
        assert!(!config.text.contains("live-value") && config.text.contains("[redacted]"));
        assert_eq!(config.headers["cache-control"], "no-store");
        let by_name = world.get("/api/v1/principals/lookup/default/p/effective_config").await.is(200);
        assert_eq!((by_name.etag(), by_name.data()), (config.etag(), config.data()));
    }

    async fn a_policy_that_a_proxy_cannot_enforce_is_not_given_to_it(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        world.grant(&principal, &secret).await;
        world.post(&format!("/api/v1/principals/{principal}/egress_rules"), json!({ "host": "a.test", "paths": ["/admin/*"], "action": "deny" })).await.is(201);
        let (proxy, token) = world.proxy(Some(&principal)).await;
        let old = world.sync(&token, json!({})).await.is(200).json();
        assert_eq!(old["status"], "incompatible");
        assert_eq!(old["missing_capabilities"], json!(["deny_rules"]));
        for key in ["rules", "secrets", "transforms", "postgres"] {
            assert_eq!(old[key], json!([]), "{key}");
        }
        assert_eq!(world.get(&format!("/api/v1/proxies/{proxy}")).await.data()["status"], "incompatible");
        let new = world.sync(&token, json!({ "config_hash": old["config_hash"], "capabilities": ["deny_rules"] })).await.is(200).json();
        assert_eq!((&new["status"], new["secrets"].as_array().map(Vec::len)), (&json!("assigned"), Some(1)));
        assert_eq!(world.get(&format!("/api/v1/proxies/{proxy}")).await.data()["status"], "assigned");
    }

    async fn t67_a_proxy_that_was_deleted_is_told_so_and_one_that_never_was_is_not(database) {
        let world = World::on(database).await;
        let (proxy, token) = world.proxy(None).await;
        world.sync(&token, json!({})).await.is(200);
        world.delete(&format!("/api/v1/proxies/{proxy}")).await.is(204);
        let revoked = world.sync(&token, json!({})).await.is(401).json();
        assert_eq!(revoked["error"]["code"], "proxy_revoked");
        let unknown = world.sync(&format!("iprx_{}", "0".repeat(64)), json!({})).await.is(401).json();
        assert_eq!(unknown["error"], json!({ "code": "invalid_token", "message": "invalid or missing proxy token" }));
    }

    async fn t67_a_grant_and_its_end_reach_a_dedicated_proxy_at_once(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        let (proxy, token) = world.proxy(Some(&principal)).await;
        let mut listener = Listener::open(&world, &token, ALL, None).await;
        let (first, _) = listener.state().await;
        let [Message::Begin { reach: Reach::Everything, serves: Serves::Dedicated }, Message::Policy(policy), Message::Commit { .. }] = first.as_slice() else {
            panic!("a whole state, not {first:?}");
        };
        assert!(policy.policy.is_empty() && policy.status == Status::Assigned);
        let grant = world.grant(&principal, &secret).await;
        let (granted, _) = listener.state().await;
        assert!(matches!(&granted[1], Message::Policy(policy) if policy.policy.secrets.len() == 1), "{granted:?}");
        world.delete(&format!("/api/v1/grants/{grant}")).await.is(204);
        let (revoked, _) = listener.state().await;
        assert!(matches!(&revoked[1], Message::Policy(policy) if policy.policy.is_empty()), "{revoked:?}");
        // What concerns somebody else is only counted.
        world.principal("other").await;
        let (other, last) = listener.state().await;
        assert!(matches!(other.as_slice(), [Message::Commit { .. }]), "{other:?}");
        drop(listener);
        // Going on from where it was: nothing new is told.
        world.grant(&principal, &secret).await;
        let mut again = Listener::open(&world, &token, ALL, Some(&last)).await;
        let (resumed, _) = again.state().await;
        assert!(matches!(&resumed[1], Message::Policy(policy) if policy.policy.secrets.len() == 1), "{resumed:?}");
        world.delete(&format!("/api/v1/proxies/{proxy}")).await.is(204);
        assert_eq!(again.state().await.0, [Message::Revoked]);
    }

    async fn a_grant_that_ends_by_itself_is_taken_back(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1500);
        world.post("/api/v1/grants", json!({ "principal_id": principal, "static_secret_id": secret, "expires_at": end })).await.is(201);
        let (_, token) = world.proxy(Some(&principal)).await;
        let mut listener = Listener::open(&world, &token, ALL, None).await;
        let (first, _) = listener.state().await;
        assert!(matches!(&first[1], Message::Policy(policy) if policy.policy.secrets[0].get("not_after").is_some()), "{first:?}");
        let (ended, _) = listener.state().await;
        assert!(matches!(&ended[1], Message::Policy(policy) if policy.policy.is_empty()), "{ended:?}");
        let response: Response = serde_json::from_str(&world.sync(&token, json!({})).await.is(200).text).expect("a response");
        assert!(response.payload.expect("a payload").policy.is_empty());
    }

    async fn t66_a_sandbox_with_a_socket_is_told_to_proxies_that_make_sockets_and_has_no_token(database) {
        let world = World::on(database).await;
        let principal = world.principal("p").await;
        let proxy = world.post("/api/v1/proxies", json!({ "name": "shared", "kind": "shared", "namespaces": ["default"] })).await.is(201);
        let token = proxy.data()["token"].as_str().expect("a token").to_owned();
        let wanted = json!({ "name": "box", "principal_id": principal, "transport": "unix" });

        // Nobody says that it can: nothing is made.
        let mut deaf = Listener::open(&world, &token, ALL, None).await;
        deaf.state().await;
        let fault = world.post("/api/v1/sandboxes", wanted.clone()).await.fault("transport");
        assert!(fault.contains("no proxy that serves the namespace \"default\" makes sockets"), "{fault}");
        let from = json!({ "name": "box", "principal_id": principal, "transport": "unix", "source_cidrs": ["10.0.0.0/8"] });
        world.post("/api/v1/sandboxes", from).await.fault("source_cidrs");

        // The same proxy, started with a directory for them.
        let mut listener = Listener::open(&world, &token, ALL_AND_SOCKETS, None).await;
        listener.state().await;
        let applying = async {
            let (state, generation) = listener.state().await;
            let (epoch, number) = generation.split_once('.').expect("a generation");
            let number: u64 = number.parse().expect("a number");
            let report = json!({ "generation": { "epoch": epoch, "number": number }, "sandbox_sockets": "/run/sockets" });
            world.call(&token, "POST", "/api/v1/proxy/applied", Some(report)).await.is(204);
            state
        };
        let (made, state) = tokio::join!(world.post("/api/v1/sandboxes", wanted), applying);
        let made = made.is(201).data();
        let id = made["id"].as_str().expect("an id");
        assert_eq!(
            (&made["pending"], &made["socket"], &made["token"], &made["proxy_url"]),
            (&json!(false), &json!(format!("/run/sockets/{id}/proxy.sock")), &json!(null), &json!(null))
        );
        let told = state.iter().filter(|it| matches!(it, Message::Sandbox(told) if told.id == id)).count();
        assert_eq!(told, 1, "{state:?}");
        let (unheard, _) = deaf.state().await;
        assert!(unheard.iter().all(|it| !matches!(it, Message::Sandbox(_) | Message::Policy(_))), "{unheard:?}");
    }

    async fn t65_t66_a_shared_proxy_hears_of_the_sandboxes_of_its_namespaces_and_of_no_others(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        world.grant(&principal, &secret).await;
        let elsewhere = world.post("/api/v1/principals", json!({ "namespace": "b" })).await.is(201).id();
        let proxy = world.post("/api/v1/proxies", json!({ "name": "shared", "kind": "shared", "namespaces": ["default"] })).await.is(201);
        let token = proxy.data()["token"].as_str().expect("a token").to_owned();
        let unconnected = world.post("/api/v1/sandboxes", json!({ "name": "early", "principal_id": principal })).await.is(201);
        assert_eq!(unconnected.data()["pending"], true, "no proxy is there that could have applied it");
        let mut listener = Listener::open(&world, &token, ALL, None).await;
        let (first, generation) = listener.state().await;
        let sandboxes = |messages: &[Message]| -> Vec<String> {
            messages.iter().filter_map(|it| if let Message::Sandbox(sandbox) = it { Some(sandbox.id.clone()) } else { None }).collect()
        };
        assert_eq!(sandboxes(&first), [unconnected.id()]);
        let policies = |messages: &[Message]| messages.iter().filter(|it| matches!(it, Message::Policy(_))).count();
        assert_eq!(policies(&first), 1);
        let report = |generation: &str| {
            let (epoch, number) = generation.split_once('.').expect("a generation");
            json!({ "generation": { "epoch": epoch, "number": number.parse::<u64>().expect("a number") } })
        };
        world.call(&token, "POST", "/api/v1/proxy/applied", Some(report(&generation))).await.is(204);

        // A sandbox of somebody else's namespace is not this proxy's.
        world.post("/api/v1/sandboxes", json!({ "name": "theirs", "principal_id": elsewhere })).await.is(201);
        let (theirs, _) = listener.state().await;
        assert_eq!((sandboxes(&theirs), policies(&theirs)), (vec![], 0));
        world.post("/api/v1/sandboxes", json!({ "name": "x", "principal_id": principal, "requester_principal_id": elsewhere }))
            .await
            .fault("requester_principal_id");

        // One is answered once the proxy applied it.
        let applying = async {
            let (state, generation) = listener.state().await;
            world.call(&token, "POST", "/api/v1/proxy/applied", Some(report(&generation))).await.is(204);
            state
        };
        let making = world.post("/api/v1/sandboxes", json!({
            "name": "x", "principal_id": principal, "source_cidrs": ["10.0.0.0/8"], "expires_at": "2999-01-01T00:00:00Z",
        }));
        let (made, state) = tokio::join!(making, applying);
        let made = made.is(201).data();
        assert_eq!(made["pending"], false);
        let sandbox_token = made["token"].as_str().expect("a token");
        assert!(sandbox_token.starts_with("sbxt_") && sandbox_token.len() == 69);
        let id = made["id"].as_str().expect("an id");
        assert_eq!(made["proxy_url"], json!(format!("http://{id}:{sandbox_token}@proxy.test:3128")));
        let told = state.iter().find_map(|it| if let Message::Sandbox(it) = it { Some(it) } else { None }).expect("a sandbox");
        assert_eq!((told.policy.as_str(), told.source_cidrs.len(), told.not_after.is_some()), (principal.as_str(), 1, true));
        assert!(!serde_json::to_string(&state[1]).expect("JSON").contains(sandbox_token), "its hash alone");
        assert!(!world.get(&format!("/api/v1/sandboxes/{id}")).await.text.contains(sandbox_token));
        // The sandbox's token opens nothing here.
        for path in ["/api/v1/principals?namespace=default", "/api/v1/proxy/stream"] {
            world.call(sandbox_token, "GET", path, None).await.is(401);
        }
        world.sync(sandbox_token, json!({})).await.is(401);

        // Rotation is another hash; deletion is gone; a change of access is one policy for all its sandboxes.
        let old = told.token_sha256.clone();
        let rotated = async { world.call(&world.key, "POST", &format!("/api/v1/sandboxes/{id}/rotate"), None).await.is(200) };
        let (rotated, (state, _)) = tokio::join!(rotated, listener.state());
        assert_ne!(rotated.data()["token"], made["token"]);
        assert!(matches!(&state[1], Message::Sandbox(it) if it.token_sha256 != old), "{state:?}");
        world.delete(&format!("/api/v1/sandboxes/{id}")).await.is(204);
        let (state, _) = listener.state().await;
        assert!(state.contains(&Message::SandboxGone { id: id.to_owned() }), "{state:?}");
        world.post(&format!("/api/v1/principals/{principal}/egress_rules"), json!({ "host": "b.test" })).await.is(201);
        let (state, last) = listener.state().await;
        assert_eq!((policies(&state), sandboxes(&state)), (1, vec![]), "{state:?}");

        // After a lost connection, what changed meanwhile and nothing else.
        drop(listener);
        world.post(&format!("/api/v1/principals/{principal}/egress_rules"), json!({ "host": "c.test" })).await.is(201);
        let mut again = Listener::open(&world, &token, ALL, Some(&last)).await;
        let (state, _) = again.state().await;
        assert_eq!(state[0], Message::Begin { reach: Reach::Changes, serves: Serves::Shared });
        assert_eq!(policies(&state), 1);
        // The last sandbox of a principal takes its policy with it.
        world.delete(&format!("/api/v1/sandboxes/{}", unconnected.id())).await.is(204);
        let (state, _) = again.state().await;
        assert!(state.contains(&Message::PolicyGone { id: principal.clone() }), "{state:?}");
        // A generation of another epoch is no place to go on from.
        let mut other = Listener::open(&world, &token, ALL, Some("ffff.1")).await;
        assert_eq!(other.state().await.0[0], Message::Begin { reach: Reach::Everything, serves: Serves::Shared });
    }

    async fn in_a_shared_proxy_too_a_grant_and_a_sandbox_end_by_themselves(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1500);
        world.post("/api/v1/grants", json!({ "principal_id": principal, "static_secret_id": secret, "expires_at": end })).await.is(201);
        let proxy = world.post("/api/v1/proxies", json!({ "name": "shared", "kind": "shared", "namespaces": ["default"] })).await.is(201);
        let token = proxy.data()["token"].as_str().expect("a token").to_owned();
        let sandbox = json!({ "name": "x", "principal_id": principal, "expires_at": end + jiff::SignedDuration::from_millis(700) });
        let sandbox = world.post("/api/v1/sandboxes", sandbox).await.is(201).id();
        let mut listener = Listener::open(&world, &token, ALL, None).await;
        let (first, _) = listener.state().await;
        assert!(first.iter().any(|it| matches!(it, Message::Policy(policy) if policy.policy.secrets.len() == 1)), "{first:?}");
        let (ended, _) = listener.state().await;
        assert!(ended.iter().any(|it| matches!(it, Message::Policy(policy) if policy.policy.is_empty())), "{ended:?}");
        let (gone, _) = listener.state().await;
        assert!(gone.contains(&Message::SandboxGone { id: sandbox }), "{gone:?}");
        assert!(gone.contains(&Message::PolicyGone { id: principal }), "{gone:?}");
    }

    async fn one_principals_access_costs_a_fixed_number_of_queries(database) {
        let world = World::on(database).await;
        let mut costs = Vec::new();
        for (name, grants) in [("few", 2), ("many", 40)] {
            let principal = world.principal(name).await;
            let role = world.put(&format!("/api/v1/roles/{name}"), json!({})).await.id();
            world.post(&format!("/api/v1/principals/{principal}/roles"), json!({ "role_id": role })).await.is(201);
            for n in 0..grants {
                let secret = world.secret(&format!("{name}{n}"), "v", &format!("h{n}.test")).await;
                let grantee = if n % 2 == 0 { json!({ "principal_id": principal }) } else { json!({ "role_id": role }) };
                let mut grant = grantee;
                grant["static_secret_id"] = json!(secret);
                world.post("/api/v1/grants", grant).await.is(201);
            }
            let before = world.store.queries();
            world.get(&format!("/api/v1/principals/{principal}/explain")).await.is(200);
            costs.push(world.store.queries() - before);
        }
        assert_eq!(costs[0], costs[1]);
        assert!(costs[0] <= 8, "{costs:?}");
    }

    async fn two_replicas_know_of_each_others_changes(database) {
        let world = World::on(database).await;
        let (principal, secret) = (world.principal("p").await, world.secret("s", "live-value", "a.test").await);
        let (_, token) = world.proxy(Some(&principal)).await;
        let clock: keyferry_control::Clock = std::sync::Arc::new(jiff::Timestamp::now);
        let other = keyferry_control::Control::start(database.open(&[keyferry_control::SCHEMA]).await, clock, Default::default()).await;
        // Two processes on one SQLite file do not hear of each other: control has one replica there.
        if database.dialect() == keyferry_store::Dialect::Sqlite {
            return;
        }
        let here = World { router: other.expect("it starts").router(), ..world };
        let mut listener = Listener::open(&here, &token, ALL, None).await;
        listener.state().await;
        let there = here.control.router();
        let body = json!({ "data": { "principal_id": principal, "static_secret_id": secret } }).to_string();
        let request = Request::post("/api/v1/grants").header("authorization", format!("Bearer {}", here.key));
        let made = there.oneshot(request.body(Body::from(body)).expect("a request")).await.expect("infallible");
        assert_eq!(made.status(), 201);
        let (state, _) = listener.state().await;
        assert!(matches!(&state[1], Message::Policy(policy) if policy.policy.secrets.len() == 1), "{state:?}");
    }
}
