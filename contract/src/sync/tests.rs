use serde_json::json;

use super::*;

fn policy() -> Policy {
    serde_json::from_value(json!({
        "rules": [{ "host": "api.vendor.test" }, { "host": "old.test", "not_after": "2026-01-01T00:00:00Z" }],
        "secrets": [{
            "id": "ssr_1", "name": "vendor", "not_after": "2027-01-01T00:00:00Z",
            "source": { "type": "control_plane", "value": "l\"ive\u{7f}\n\u{1}" },
            "replace": { "proxy_value": "PH_VENDOR" },
            "rules": [{ "host": "api.vendor.test" }],
        }],
        "transforms": [{ "id": "x", "name": "oauth_token", "config": { "tokens": [
            { "id": "ots_1", "header": "A" }, { "id": "ots_2", "header": "B", "not_after": "2026-06-01T00:00:00Z" },
        ] } }],
    }))
    .expect("a policy")
}

#[test]
fn t46_a_live_value_is_shown_by_nothing_but_reveal() {
    let policy = policy();
    assert!(!format!("{policy:?}").contains("ive"), "{policy:?}");
    assert!(!serde_json::to_string(&policy).expect("JSON").contains("ive"));
    let response = Response {
        config_hash: "sha256:1".into(),
        payload: Some(Payload {
            status: Status::Assigned,
            principal_id: Some("prn_1".into()),
            generation: None,
            missing_capabilities: Vec::new(),
            policy: policy.clone(),
        }),
    };
    let text = response.clone().into_tree().reveal();
    assert!(text.contains("l\\\"ive\u{7f}\\n\\u0001"), "{}", *text);
    // And it comes back whole.
    assert_eq!(serde_json::from_str::<Response>(&text).expect("the same shape"), response);
    let message = Message::Policy(PolicyOf {
        id: "prn_1".into(),
        config_hash: "sha256:1".into(),
        status: Status::Assigned,
        principal_id: Some("prn_1".into()),
        requester_principal_id: None,
        policy,
    });
    let text = message.clone().into_tree().reveal();
    assert_eq!(serde_json::from_str::<Message>(&text).expect("the same shape"), message);
}

#[test]
fn a_document_holds_what_has_not_ended_and_only_the_languages_own_keys() {
    let now = "2026-07-01T00:00:00Z".parse().expect("a time");
    let document = serde_json::to_value(policy().document(now)).expect("JSON");
    assert_eq!(
        document,
        json!({ "transforms": [
            { "name": "allowlist", "config": { "rules": [{ "host": "api.vendor.test" }] } },
            { "name": "secrets", "config": { "secrets": [{
                "name": "vendor",
                "source": { "type": "control_plane", "value": "[redacted]", "id": "ssr_1" },
                "replace": { "proxy_value": "PH_VENDOR" },
                "rules": [{ "host": "api.vendor.test" }],
            }] } },
            { "name": "oauth_token", "config": { "tokens": [{ "header": "A" }] } },
        ] })
    );
    let values: Vec<_> = policy()
        .values(now)
        .into_iter()
        .map(|(id, value)| (id, secrecy::ExposeSecret::expose_secret(&value).to_owned()))
        .collect();
    assert_eq!(values, [("ssr_1".to_owned(), "l\"ive\u{7f}\n\u{1}".to_owned())]);
    assert_eq!(policy().next_expiry(now), "2027-01-01T00:00:00Z".parse().ok());
}

#[test]
fn t83_an_older_number_of_the_same_epoch_is_a_replay() {
    let at = |text: &str| text.parse::<Generation>().expect("a generation");
    assert!(at("a.5").may_become(&at("a.5")));
    assert!(at("a.5").may_become(&at("a.6")));
    assert!(!at("a.5").may_become(&at("a.4")));
    assert!(at("a.5").may_become(&at("b.1")));
    for text in ["", "a", ".1", "a.", "a.-1", "a b.1", "a.1.2"] {
        assert_eq!(text.parse::<Generation>(), Err(GenerationError), "{text}");
    }
}

#[test]
fn a_capability_of_a_newer_proxy_is_no_error() {
    let request: Request =
        serde_json::from_value(json!({ "capabilities": ["ports", "time_travel"] })).expect("a request");
    assert_eq!(request.capabilities, [Capability::Ports, Capability::Unknown]);
}
