use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keyferry_config::document::parse_rendered;
use keyferry_config::policy::{Destination, Host, RequestHead, Scheme};
use serde_json::{Value, json};

use super::*;
use crate::principal::{PrincipalKind, SlackIdentity};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(super) fn now() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

pub(super) fn holder(row: i64, grants: Vec<HeldGrant>) -> Holder {
    let principal = Principal {
        row,
        namespace: "default".into(),
        foreign_id: None,
        name: None,
        labels: BTreeMap::from([("tenant".to_owned(), json!("acme"))]),
        kind: PrincipalKind::Unknown,
        identity: SlackIdentity::default(),
        created_at: now(),
        updated_at: now(),
    };
    Holder { principal, grants, rules: Vec::new() }
}

pub(super) fn grant(id: &str, secret: i64, priority: i64) -> HeldGrant {
    HeldGrant { id: id.into(), via: Via::Direct, secret, priority, expires_at: None }
}

fn through_role(grant: HeldGrant) -> HeldGrant {
    HeldGrant { via: Via::Role { role_id: "role_x".into(), role: "infra".into() }, ..grant }
}

fn secret(row: i64, kind: SecretKind, spec: Value) -> (i64, GrantedSecret) {
    let Value::Object(spec) = spec else { panic!("an object") };
    let spec = Spec::read(kind, spec).unwrap_or_else(|faults| panic!("{faults:?}")).0;
    (
        row,
        GrantedSecret {
            row,
            kind,
            foreign_id: Some(format!("s{row}")),
            name: None,
            enabled: true,
            created_at: at(&format!("2026-01-{row:02}T00:00:00Z")),
            spec,
        },
    )
}

fn inject(row: i64, value: &str, hosts: &[&str]) -> (i64, GrantedSecret) {
    let rules: Vec<_> = hosts.iter().map(|host| json!({ "host": host })).collect();
    secret(
        row,
        SecretKind::Static,
        json!({
            "inject_config": { "header": "X-Key" },
            "source": { "source_type": "control_plane", "secret": value },
            "rules": rules,
        }),
    )
}

fn ask(
    holder: &Holder,
    requester: Option<&Holder>,
    secrets: impl IntoIterator<Item = (i64, GrantedSecret)>,
) -> Effective {
    let secrets: HashMap<_, _> = secrets.into_iter().collect();
    effective(&Question { holder, requester, secrets: &secrets, proxy_labels: &Labels::new(), now: now() })
}

/// What a proxy that compiles the delivered policy does with a request: the secret that it injects, or the refusal.
fn enforced(effective: &Effective, host: &str) -> Result<Option<String>, &'static str> {
    let document = effective.policy.document(now());
    let loaded = parse_rendered("policy", &document.reveal()).unwrap_or_else(|problems| panic!("{problems}"));
    let policy =
        Arc::new(keyferry_config::policy::Policy::compile(&loaded.document, 1).expect("it compiles"));
    let destination =
        Destination { scheme: Scheme::Https, host: host.parse::<Host>().expect("a host"), port: 443 };
    let headers = http::HeaderMap::new();
    let request = RequestHead { method: &http::Method::GET, target: "/", headers: &headers };
    let explanation = policy.explain(&destination, &request);
    if let Some(reason) = explanation.reason {
        return Err(reason);
    }
    let injected = explanation.secrets.iter().position(|secret| secret.outcome == "injected");
    Ok(injected.map(|at| {
        let id = effective.policy.secrets[at].get("id").and_then(Tree::as_text).expect("an id");
        id.to_owned()
    }))
}

fn id(row: i64) -> Option<String> {
    Some(crate::id::IdOf::StaticSecret.id(row))
}

#[test]
fn no_grant_and_no_rule_is_nothing() {
    let answer = ask(&holder(1, vec![]), None, []);
    assert!(answer.policy.is_empty());
    assert_eq!(enforced(&answer, "api.test"), Err("host_not_allowed"));
}

#[test]
fn the_strongest_live_grant_of_a_secret_counts() {
    let mut ended = grant("g0", 1, 900);
    ended.expires_at = Some(now());
    let mut ending = grant("g3", 1, 50);
    ending.expires_at = Some(at("2026-06-02T00:00:00Z"));
    let grants = vec![ended, through_role(grant("g1", 1, 0)), through_role(grant("g2", 1, 70)), ending];
    let answer = ask(&holder(1, grants), None, [inject(1, "value", &["api.test"])]);
    let [held] = answer.secrets.as_slice() else { panic!("one secret") };
    assert_eq!(held.priority, 70);
    assert_eq!(held.reason, "granted to the role infra with priority 70");
    assert_eq!(
        held.grants.iter().map(|grant| grant.grant_id.as_str()).collect::<Vec<_>>(),
        ["g2", "g3", "g1"]
    );
    assert_eq!((held.not_after, answer.valid_until), (None, Some(at("2026-06-02T00:00:00Z"))));
    assert_eq!(enforced(&answer, "api.test"), Ok(id(1)));
}

#[test]
fn a_grant_that_ends_is_delivered_with_its_end() {
    let mut ending = grant("g1", 1, 50);
    ending.expires_at = Some(at("2026-06-02T00:00:00Z"));
    let answer = ask(&holder(1, vec![ending]), None, [inject(1, "value", &["api.test"])]);
    assert!(answer.needs.contains(&Capability::Expiry));
    assert_eq!(enforced(&answer, "api.test"), Ok(id(1)));
    let later = answer.policy.document(at("2026-06-02T00:00:00Z"));
    assert!(!later.reveal().contains("api.test"));
}

#[test]
fn of_two_secrets_for_one_place_priority_decides_then_the_exact_host_then_age() {
    let secrets = || {
        [
            inject(1, "one", &["*.test"]),
            inject(2, "two", &["api.test"]),
            inject(3, "three", &["api.test", "other.test"]),
        ]
    };
    let equal = vec![grant("a", 1, 5), grant("b", 2, 5), grant("c", 3, 5)];
    let answer = ask(&holder(1, equal), None, secrets());
    // Exact before wide, and of the exact ones the older.
    assert_eq!(enforced(&answer, "api.test"), Ok(id(2)));
    assert_eq!(enforced(&answer, "other.test"), Ok(id(3)));
    assert_eq!(enforced(&answer, "third.test"), Ok(id(1)));
    let three = answer.secrets.iter().find(|held| Some(&held.secret_id) == id(3).as_ref()).expect("three");
    assert!(three.yields.iter().any(|other| other.because == Because::Age && other.left_out), "{three:?}");

    let wide_is_stronger = vec![grant("a", 1, 6), grant("b", 2, 5), grant("c", 3, 5)];
    let answer = ask(&holder(1, wide_is_stronger), None, secrets());
    assert_eq!(enforced(&answer, "api.test"), Ok(id(1)));
    let two = answer.secrets.iter().find(|held| Some(&held.secret_id) == id(2).as_ref()).expect("two");
    assert!(!two.delivered && !answer.policy.secrets.iter().any(|entry| entry.reveal().contains("two")));
    assert_eq!(two.yields[0].because, Because::Priority);
}

#[test]
fn across_blocks_the_weaker_secret_leaves_the_stronger_ones_requests_alone() {
    let oauth = secret(
        2,
        SecretKind::OauthToken,
        json!({
            "grant": "client_credentials", "token_endpoint": "https://login.test/token", "header": "X-Key",
            "credentials": {
                "client_id": { "source_type": "env", "config": { "var": "ID" } },
                "client_secret": { "source_type": "env", "config": { "var": "SECRET" } },
            },
            "rules": [{ "host": "api.test" }],
        }),
    );
    let answer = ask(
        &holder(1, vec![grant("a", 1, 5), grant("b", 2, 9)]),
        None,
        [inject(1, "wide", &["*.test"]), oauth],
    );
    // The wide one stays away from the host of the stronger, by a rule of the language itself.
    assert_eq!(enforced(&answer, "api.test"), Ok(None));
    assert_eq!(enforced(&answer, "www.test"), Ok(id(1)));
    assert!(answer.needs.contains(&Capability::DenyRules));
}

#[test]
fn channel_then_user_the_channels_win_and_the_users_fill_the_gaps() {
    let channel = Holder {
        rules: vec![HeldRule {
            id: "rqr_1".into(),
            via: Via::Direct,
            rule: Rule { host: Some("evil.test".into()), action: Some("deny".into()), ..Rule::default() },
        }],
        ..holder(1, vec![grant("a", 1, 0)])
    };
    let user = holder(2, vec![grant("b", 2, 1000), grant("c", 3, 1000), grant("d", 4, 1000)]);
    let secrets = [
        inject(1, "channel", &["api.test"]),
        inject(2, "user", &["api.test"]),
        inject(3, "gap", &["gap.test"]),
        inject(4, "evil", &["evil.test"]),
    ];
    let answer = ask(&channel, Some(&user), secrets);
    assert_eq!(enforced(&answer, "api.test"), Ok(id(1)));
    assert_eq!(enforced(&answer, "gap.test"), Ok(id(3)));
    assert_eq!(enforced(&answer, "evil.test"), Err("host_not_allowed"));
    assert_eq!(answer.secrets[0].secret_id, id(1).expect("an id"));
}

#[test]
fn a_secret_that_is_disabled_or_has_no_value_opens_nothing() {
    let (row, mut disabled) = inject(1, "off", &["off.test"]);
    disabled.enabled = false;
    let (other, mut empty) = inject(2, "gone", &["gone.test"]);
    empty.spec.take_values();
    let answer =
        ask(&holder(1, vec![grant("a", 1, 5), grant("b", 2, 5)]), None, [(row, disabled), (other, empty)]);
    assert!(answer.policy.is_empty());
    let reasons: Vec<_> = answer.secrets.iter().map(|held| held.reason.as_str()).collect();
    assert_eq!(reasons, ["the secret is disabled", "it has no value to deliver"]);
}

#[test]
fn settings_take_their_values_from_who_connects() {
    let (row, granted) = secret(
        1,
        SecretKind::PgDsn,
        json!({
            "database": "orders", "dsn": { "source_type": "env", "config": { "var": "DSN" } },
            "settings": [
                { "name": "app.tenant", "value_from": { "principal_label": "tenant" } },
                { "name": "app.none", "value_from": { "principal_label": "nothing" } },
                { "name": "app.fixed", "value": "x" },
            ],
        }),
    );
    let answer = ask(&holder(1, vec![grant("a", 1, 5)]), None, [(row, granted)]);
    assert_eq!(
        serde_json::to_value(&answer.policy.postgres).expect("JSON"),
        json!([{
            "id": crate::id::IdOf::PgDsnSecret.id(1), "foreign_id": "s1", "database": "orders",
            "dsn": { "type": "env", "var": "DSN" },
            "settings": [
                { "name": "app.tenant", "value": "acme" }, { "name": "app.none", "value": "" },
                { "name": "app.fixed", "value": "x" },
            ],
        }])
    );
}

#[test]
fn the_hash_changes_with_policy_principal_and_moment_of_assignment() {
    let answer = ask(&holder(1, vec![grant("a", 1, 5)]), None, [inject(1, "value", &["api.test"])]);
    let other = ask(&holder(1, vec![grant("a", 1, 5)]), None, [inject(1, "valuE", &["api.test"])]);
    let hash = |policy: &Policy, id: Option<&str>, at: Option<Timestamp>| {
        assigned_hash(Some(&content_hash(policy)), Status::Assigned, id, at)
    };
    let hashes = [
        hash(&answer.policy, Some("prn_1"), Some(now())),
        hash(&other.policy, Some("prn_1"), Some(now())),
        hash(&answer.policy, Some("prn_2"), Some(now())),
        hash(&answer.policy, Some("prn_1"), Some(at("2026-06-01T00:00:00.000001Z"))),
        hash(&answer.policy, None, None),
    ];
    for (index, one) in hashes.iter().enumerate() {
        assert!(hashes[index + 1..].iter().all(|other| other != one));
    }
    assert_eq!(hashes[0], hash(&answer.policy, Some("prn_1"), Some(now())));
}
