use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::super::tests::{grant, holder, now};
use super::super::{GrantedSecret, Question, held};
use super::*;
use crate::attributes::Labels;
use crate::secret::{SecretKind, Spec};

/// What a secret writes, where it may go, how strong it is granted.
#[derive(Clone, Debug)]
struct Wanted {
    writes: Writes,
    rules: Vec<Value>,
    priority: i64,
}

#[derive(Clone, Copy, Debug)]
enum Writes {
    Header(&'static str),
    Placeholder,
    OauthHeader,
    Database(&'static str),
}

fn granted(row: i64, wanted: &Wanted) -> GrantedSecret {
    let source = json!({ "source_type": "env", "config": { "var": "X" } });
    let rules = &wanted.rules;
    let (kind, spec) = match wanted.writes {
        Writes::Header(header) => (
            SecretKind::Static,
            json!({ "inject_config": { "header": header }, "source": source, "rules": rules }),
        ),
        Writes::Placeholder => (
            SecretKind::Static,
            json!({ "replace_config": { "proxy_value": "PLACEHOLDER" }, "source": source, "rules": rules }),
        ),
        Writes::OauthHeader => (
            SecretKind::OauthToken,
            json!({
                "grant": "client_credentials", "token_endpoint": "https://login.test/token", "header": "X-Key",
                "credentials": { "client_id": source, "client_secret": source }, "rules": rules,
            }),
        ),
        Writes::Database(name) => (SecretKind::PgDsn, json!({ "database": name, "dsn": source })),
    };
    let Value::Object(spec) = spec else { panic!("an object") };
    let spec = Spec::read(kind, spec).unwrap_or_else(|faults| panic!("{faults:?}")).0;
    GrantedSecret {
        row,
        kind,
        foreign_id: Some(format!("s{row}")),
        name: None,
        enabled: true,
        created_at: now(),
        spec,
    }
}

/// What is left of these secrets after `arbitrate`, in every detail.
fn outcome(
    wanted: &[Wanted],
    arbitrate: impl Fn(Vec<Candidate<'_>>) -> Vec<Candidate<'_>>,
) -> Vec<(super::super::Held, Vec<Rule>, Vec<keyferry_contract::sync::Tree>)> {
    let secrets: HashMap<_, _> = (1..).zip(wanted).map(|(row, wanted)| (row, granted(row, wanted))).collect();
    let grants = (1..).zip(wanted).map(|(row, wanted)| grant(&format!("g{row}"), row, wanted.priority));
    let (holder, labels) = (holder(1, grants.collect()), Labels::new());
    let question =
        Question { holder: &holder, requester: None, secrets: &secrets, proxy_labels: &labels, now: now() };
    let settled = arbitrate(held(&question));
    let shown = settled.into_iter().map(|candidate| {
        let rules = candidate.rules.iter().map(|placed| placed.rule.clone()).collect();
        (candidate.held, rules, candidate.leaves)
    });
    shown.collect()
}

/// Every two that write the same place are compared.
fn naive(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    leave_out_what_has_no_value(&mut candidates);
    let delivered: Vec<bool> = candidates.iter().map(|candidate| candidate.held.delivered).collect();
    settle_all(&mut candidates, |candidates, at| {
        let targets = |at: usize| candidates[at].secret.spec.facts().targets();
        let weaker = (0..at).rev().filter(|other| delivered[*other]);
        let mut found: Vec<_> = weaker
            .flat_map(|other| targets(other).into_iter().map(move |target| (other, target)))
            .filter(|(_, target)| targets(at).contains(target))
            .collect();
        found.sort();
        found.reverse();
        found
    });
    candidates
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    const HOSTS: [&str; 9] =
        ["*", "*.test", "*.a.test", "a.test", "b.a.test", "ba.test", "test", "a-*.test", "a-1.test"];
    let host = select(&HOSTS[..]).prop_map(|host| json!({ "host": host }));
    let cidr =
        select(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"][..]).prop_map(|cidr| json!({ "cidr": cidr }));
    let paths = select(&["/*", "/v1/*", "/v1", "/v*/x", "/w"][..]);
    let rule = (prop_oneof![6 => host, 1 => cidr], proptest::option::of(paths), any::<bool>());
    let rule = rule.prop_map(|(mut rule, path, reads)| {
        if let Some(path) = path {
            rule["paths"] = json!([path]);
        }
        if reads {
            rule["http_methods"] = json!(["GET"]);
        }
        rule
    });
    let writes = select(
        &[
            Writes::Header("X-Key"),
            Writes::Header("x-key"),
            Writes::Header("X-Other"),
            Writes::Placeholder,
            Writes::OauthHeader,
            Writes::Database("orders"),
            Writes::Database("bills"),
        ][..],
    );
    (writes, proptest::collection::vec(rule, 1..4), 0..3_i64).prop_map(|(writes, rules, priority)| Wanted {
        writes,
        rules,
        priority,
    })
}

proptest! {
    #[test]
    fn looking_only_at_those_that_may_meet_changes_nothing(
        wanted in proptest::collection::vec(any_wanted(), 0..12)
    ) {
        prop_assert_eq!(outcome(&wanted, arbitrate), outcome(&wanted, naive));
    }
}

#[test]
fn thousands_of_secrets_are_compared_with_those_that_they_may_meet_alone() {
    let at = |host: String, priority| Wanted {
        writes: Writes::Header("Authorization"),
        rules: vec![json!({ "host": host })],
        priority,
    };
    let compared = |wanted: &[Wanted]| {
        let count = std::cell::Cell::new(0);
        outcome(wanted, |mut candidates| {
            let neighbours = Neighbours::of(&candidates);
            settle_all(&mut candidates, |candidates, at| {
                let weaker = neighbours.weaker(candidates, at);
                count.set(count.get() + weaker.len());
                weaker
            });
            candidates
        });
        count.get()
    };
    let apart: Vec<_> = (0..3_000).map(|n| at(format!("h{n}.test"), 0)).collect();
    assert_eq!(compared(&apart), 0);
    let under_one: Vec<_> = apart.iter().cloned().chain([at("*.test".to_owned(), 0)]).collect();
    assert_eq!(compared(&under_one), 3_000);
    // The strongest leaves nothing of the others that could meet.
    let the_same: Vec<_> = (0..3_000).map(|n| at("api.test".to_owned(), n)).collect();
    assert_eq!(compared(&the_same), 2_999);
}
