use std::fs;
use std::os::unix::fs::PermissionsExt;

use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use keyferry_config::document::{Options, parse};
use keyferry_dial::OwnListeners;
use keyferry_source::Environment;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::generation::Builder;
use crate::telemetry::Telemetry;
use crate::tls::{Authority, NewAuthority};

/// An enforcer over a real file's settings.
async fn enforcer(folder: &TempDir) -> Enforcer {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = Authority::generate(&NewAuthority { name: "test".to_owned(), days: 2 }).unwrap();
    fs::write(path("ca.crt"), made.certificate).unwrap();
    fs::write(path("ca.key"), made.key.as_bytes()).unwrap();
    fs::set_permissions(path("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let yaml = format!(
        "proxy: {{ tunnel_listen: '127.0.0.1:0' }}\ntls: {{ ca_cert: {}, ca_key: {} }}\naudit: {{ sink: file, path: {} }}\n",
        path("ca.crt"),
        path("ca.key"),
        path("audit.jsonl")
    );
    let document = parse("t", &yaml, &|_| None, Options::default()).unwrap().document;
    let own = OwnListeners::default();
    let telemetry = Arc::new(Telemetry::start(None, &own).unwrap());
    let sources = Sources::new(Environment::of(Vec::<(String, String)>::new()));
    let mut builder = Builder::new(sources, own, telemetry);
    let (fresh, _) = builder.build(&document).await.unwrap();
    let nobody = Enforcer::nobody(&fresh.base);
    let identity = Arc::new(Identity::new(Who::One(Arc::clone(&nobody), None)));
    let file = FileSide { base: fresh.base, allowed_ports: None, credentials: None };
    Enforcer::new(identity, nobody, Arc::clone(&builder.sources), file, Duration::from_secs(900), None)
}

fn policy(id: &str, hash: &str, value: &str) -> Value {
    json!({
        "type": "policy", "id": id, "config_hash": hash, "status": "assigned", "principal_id": id,
        "rules": [{ "host": "a.example" }], "transforms": [], "postgres": [],
        "secrets": [{ "id": "ssr_1", "name": "vendor", "source": { "type": "control_plane", "value": value },
            "inject": { "header": "X-Key" }, "rules": [{ "host": "a.example" }] }],
    })
}

/// A sandbox whose token is its id.
fn sandbox(id: &str, policy: &str) -> Value {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "type": "sandbox", "id": id, "policy": policy, "token_sha256": hash, "transport": "token" })
}

fn tell(
    enforcer: &mut Enforcer,
    reach: &str,
    messages: &[Value],
    number: u64,
) -> Result<Taken, EnforceError> {
    let begin = json!({ "type": "begin", "reach": reach, "serves": "shared" });
    let commit = json!({ "type": "commit", "generation": { "epoch": "e", "number": number } });
    let mut taken = Ok(Taken::More);
    for message in [&begin].into_iter().chain(messages).chain([&commit]) {
        taken = enforcer.take(serde_json::from_value(message.clone()).unwrap(), Timestamp::now());
        taken.clone()?;
    }
    taken
}

/// What counts for whoever shows this sandbox and its token.
fn generation_of(enforcer: &Enforcer, id: &str) -> Option<Arc<data_plane::Generation>> {
    use base64::Engine as _;
    let shown = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{id}"));
    let mut headers = HeaderMap::new();
    headers.insert(PROXY_AUTHORIZATION, format!("Basic {shown}").parse().unwrap());
    let caller = enforcer.identity.of(&headers, [127, 0, 0, 1].into()).ok()?;
    caller.sandbox.is_some().then(|| caller.principal.generation.load_full())
}

#[tokio::test]
async fn a_change_touches_what_it_names_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let mut enforcer = enforcer(&folder).await;
    let all =
        [policy("a", "1", "value-one"), policy("b", "1", "value-two"), sandbox("s", "a"), sandbox("t", "b")];
    assert_eq!(tell(&mut enforcer, "everything", &all, 1), Ok(Taken::InForce));
    let (a, b) = (generation_of(&enforcer, "s").unwrap(), generation_of(&enforcer, "t").unwrap());
    assert!(!Arc::ptr_eq(&a.policy, &b.policy));

    // A new value of the same secret: the same handle, so what is open goes on; the old value is still known.
    assert_eq!(tell(&mut enforcer, "changes", &[policy("a", "2", "value-new")], 2), Ok(Taken::InForce));
    let again = generation_of(&enforcer, "s").unwrap();
    assert_eq!(again.policy.generation(), 2);
    assert!(Arc::ptr_eq(&a.secrets[0], &again.secrets[0]));
    let live: Vec<_> = again.secrets[0].live().iter().map(|value| value.expose().to_owned()).collect();
    assert_eq!(live, ["value-one", "value-new"]);
    assert_eq!(&**again.policy.secrets()[0].name(), "vendor");
    assert!(Arc::ptr_eq(&b, &generation_of(&enforcer, "t").unwrap()));

    // Everything again, as it was: nothing is compiled, nobody is told apart anew.
    let all =
        [policy("a", "2", "value-new"), policy("b", "1", "value-two"), sandbox("s", "a"), sandbox("t", "b")];
    assert_eq!(tell(&mut enforcer, "everything", &all, 3), Ok(Taken::InForce));
    assert!(Arc::ptr_eq(&again, &generation_of(&enforcer, "s").unwrap()));
    assert!(Arc::ptr_eq(&b, &generation_of(&enforcer, "t").unwrap()));

    // A policy goes with its sandboxes.
    let gone = [json!({ "type": "policy_gone", "id": "b" })];
    assert_eq!(tell(&mut enforcer, "changes", &gone, 4), Ok(Taken::InForce));
    assert!(generation_of(&enforcer, "t").is_none());
    assert!(generation_of(&enforcer, "s").is_some());
}

#[tokio::test]
async fn t83_a_state_that_does_not_fit_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let mut enforcer = enforcer(&folder).await;
    let changes = tell(&mut enforcer, "changes", &[], 1);
    assert_eq!(changes, Err(EnforceError::OutOfTurn("begin")));
    tell(&mut enforcer, "everything", &[policy("a", "1", "value-one"), sandbox("s", "a")], 5).unwrap();
    let before = generation_of(&enforcer, "s").unwrap();

    let older = tell(&mut enforcer, "everything", &[], 4);
    assert!(matches!(older, Err(EnforceError::Replay { .. })), "{older:?}");
    let unknown = tell(&mut enforcer, "changes", &[sandbox("u", "nowhere")], 6);
    assert_eq!(unknown, Err(EnforceError::NoSuchPolicy("nowhere".to_owned())));
    assert!(Arc::ptr_eq(&before, &generation_of(&enforcer, "s").unwrap()));

    // A shared proxy without a sandbox is nobody's, whatever policy it has.
    tell(&mut enforcer, "everything", &[policy("a", "1", "value-one")], 7).unwrap();
    assert!(enforcer.identity.of(&HeaderMap::new(), [127, 0, 0, 1].into()).is_err());
}
