//! The policy as its author sees it: a document, a request, a verdict.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::document::{self, Options};

fn policy(yaml: &str) -> Arc<Policy> {
    let loaded = document::parse("test.yaml", yaml, &|_| None, Options::default())
        .unwrap_or_else(|problems| panic!("{problems}"));
    Arc::new(Policy::compile(&loaded.document, 1).unwrap())
}

/// `allowlist` rules, one per line.
fn allowlist(rules: &str) -> Arc<Policy> {
    let rules: String = rules
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("        - {}\n", line.trim()))
        .collect();
    policy(&format!("transforms:\n  - name: allowlist\n    config:\n      rules:\n{rules}"))
}

/// Everything allowed, and these secrets, one per line.
fn secrets(entries: &str) -> Arc<Policy> {
    let entries: String = entries
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("        - {}\n", line.trim()))
        .collect();
    policy(&format!(
        "default_action: allow\ntransforms:\n  - name: secrets\n    config:\n      secrets:\n{entries}"
    ))
}

fn destination(url: &str) -> (Destination, &str) {
    let (scheme, rest) = url.split_once("://").unwrap();
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (authority, target) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let (host, port) = Host::parse_authority(authority).unwrap();
    (Destination { scheme, host, port: port.unwrap_or(scheme.default_port()) }, target)
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn decide(policy: &Arc<Policy>, method: &str, url: &str, fields: &[(&'static str, &str)]) -> Verdict {
    let (destination, target) = destination(url);
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let headers = headers(fields);
    Scope::new(Arc::clone(policy), destination).decide(&RequestHead {
        method: &method,
        target,
        headers: &headers,
    })
}

/// `ok RULE` or the code of the refusal.
fn answer(policy: &Arc<Policy>, method: &str, url: &str) -> String {
    match decide(policy, method, url, &[]) {
        Verdict::Forward(plan) => {
            format!("ok {}", plan.rule.map_or("-".to_owned(), |rule| rule.as_str().to_owned()))
        }
        Verdict::Refuse(refusal) => refusal.reason.code().to_owned(),
    }
}

fn tunnel(policy: &Policy, target: &str) -> &'static str {
    let (host, port) = Host::parse_authority(target).unwrap();
    match policy.decide_tunnel(&host, port.unwrap()) {
        TunnelVerdict::Open(_) => "open",
        TunnelVerdict::Refuse(refusal) => refusal.reason.code(),
    }
}

fn plan(policy: &Arc<Policy>, method: &str, url: &str, fields: &[(&'static str, &str)]) -> Plan {
    match decide(policy, method, url, fields) {
        Verdict::Forward(plan) => plan,
        Verdict::Refuse(refusal) => panic!("{refusal}"),
    }
}

fn refusal(policy: &Arc<Policy>, method: &str, url: &str, fields: &[(&'static str, &str)]) -> Reason {
    match decide(policy, method, url, fields) {
        Verdict::Forward(plan) => panic!("forwarded: {plan:?}"),
        Verdict::Refuse(refusal) => refusal.reason,
    }
}

/// What each swapped or injected secret would do: `NAME@location`.
fn uses(policy: &Policy, plan: &Plan) -> Vec<String> {
    let name = |number: u32| policy.secret(number).name().to_string();
    let headers = plan
        .headers
        .iter()
        .flat_map(|swap| swap.hits.iter().map(|hit| format!("{}@header:{}", name(hit.secret), swap.name)));
    let target =
        plan.target.iter().map(|swap| format!("{}@{}", name(swap.hit.secret), Location::from(&swap.place)));
    let injected =
        plan.injections.iter().map(|&n| format!("{}@{}", name(n), policy.secret(n).injected_at().unwrap()));
    let body = plan.body.iter().map(|&n| format!("{}@body", name(n)));
    headers.chain(target).chain(injected).chain(body).collect()
}

#[test]
fn nothing_is_allowed_by_default() {
    for yaml in ["{}", "transforms: []", "transforms: [{ name: allowlist, config: {} }]"] {
        let policy = policy(yaml);
        assert_eq!(answer(&policy, "GET", "https://api.example/"), "host_not_allowed", "{yaml}");
        assert_eq!(tunnel(&policy, "api.example:443"), "host_not_allowed", "{yaml}");
    }
}

#[test]
fn each_part_of_a_rule_must_match_and_the_refusal_names_the_part() {
    let policy = allowlist(
        r#"
        { host: api.example, methods: [GET, POST], paths: ["/v1/*"] }
        { host: "*.cdn.example" }
        { host: metrics.example, ports: [8080], schemes: [http] }
        { cidr: 203.0.113.0/24 }
        "#,
    );
    for (method, url, expected) in [
        ("GET", "https://api.example/v1/x?y", "ok allowlist.rules[0]"),
        ("POST", "https://API.example./v1", "ok allowlist.rules[0]"),
        ("DELETE", "https://api.example/v1/x", "method_not_allowed"),
        ("get", "https://api.example/v1/x", "method_not_allowed"),
        ("GET", "https://api.example/v2", "path_not_allowed"),
        ("GET", "https://api.example:8443/v1/x", "port_not_allowed"),
        ("GET", "https://api.example:22/v1/x", "port_not_allowed"),
        ("GET", "http://api.example/v1/x", "ok allowlist.rules[0]"),
        ("GET", "http://api.example:443/v1/x", "port_not_allowed"),
        ("GET", "https://a.b.cdn.example/", "ok allowlist.rules[1]"),
        ("GET", "https://cdn.example/", "ok allowlist.rules[1]"),
        ("GET", "https://evilcdn.example/", "host_not_allowed"),
        ("GET", "http://metrics.example:8080/", "ok allowlist.rules[2]"),
        ("GET", "https://metrics.example:8080/", "port_not_allowed"),
        ("GET", "http://metrics.example/", "port_not_allowed"),
        ("GET", "https://203.0.113.7/", "ok allowlist.rules[3]"),
        ("GET", "https://203.0.114.7/", "host_not_allowed"),
    ] {
        assert_eq!(answer(&policy, method, url), expected, "{method} {url}");
    }
}

#[test]
fn t17_a_deny_rule_wins_wherever_it_stands() {
    for rules in [
        "{ host: \"*.example\" }\n{ host: api.example, paths: [\"/admin/*\"], action: deny }\n{ host: bad.example, action: deny }",
        "{ host: bad.example, action: deny }\n{ host: api.example, paths: [\"/admin/*\"], action: deny }\n{ host: \"*.example\" }",
    ] {
        let policy = allowlist(rules);
        assert_eq!(answer(&policy, "GET", "https://api.example/admin/x"), "path_not_allowed");
        assert_eq!(answer(&policy, "GET", "https://api.example//admin/x"), "path_not_allowed");
        assert_eq!(answer(&policy, "GET", "https://api.example/%61dmin/x"), "path_not_allowed");
        assert_eq!(answer(&policy, "GET", "https://api.example/a%2Fb"), "ambiguous_request");
        assert_eq!(answer(&policy, "GET", "https://other.example/a%2Fb").split(' ').next(), Some("ok"));
        assert_eq!(answer(&policy, "GET", "https://api.example/x/../admin/x"), "ambiguous_request");
        assert_eq!(answer(&policy, "GET", "https://bad.example/"), "host_not_allowed");
        assert_eq!(answer(&policy, "GET", "http://bad.example/"), "host_not_allowed");
        assert_eq!(tunnel(&policy, "bad.example:443"), "host_not_allowed");
        assert_eq!(tunnel(&policy, "api.example:443"), "open");
    }
}

#[test]
fn a_tunnel_opens_for_host_and_port_whatever_the_methods_and_paths() {
    let policy = allowlist(
        r#"
        { host: api.example, methods: [POST], paths: ["/v1/*"] }
        { host: tunnel.example, methods: [CONNECT] }
        { host: odd.example, ports: [8443] }
        { host: api.example, methods: [DELETE], action: deny }
        { host: api.example, schemes: [http], action: deny }
        "#,
    );
    assert_eq!(tunnel(&policy, "api.example:443"), "open");
    assert_eq!(tunnel(&policy, "api.example:8443"), "port_not_allowed");
    assert_eq!(tunnel(&policy, "odd.example:8443"), "open");
    assert_eq!(tunnel(&policy, "odd.example:443"), "port_not_allowed");
    assert_eq!(tunnel(&policy, "tunnel.example:443"), "open");
    assert_eq!(answer(&policy, "GET", "https://tunnel.example/"), "method_not_allowed");
    assert_eq!(answer(&policy, "DELETE", "https://api.example/v1/x"), "method_not_allowed");
    assert_eq!(answer(&policy, "POST", "http://api.example/v1/x"), "host_not_allowed");
}

#[test]
fn allowed_ports_widen_rules_that_name_none() {
    let list = "transforms: [{ name: allowlist, config: { domains: [api.example] } }]";
    let some = policy(&format!("proxy: {{ allowed_ports: [8443] }}\n{list}"));
    assert_eq!(answer(&some, "GET", "https://api.example:8443/"), "ok allowlist.domains[0]");
    assert_eq!(answer(&some, "GET", "https://api.example/"), "ok allowlist.domains[0]");
    assert_eq!(answer(&some, "GET", "https://api.example:22/"), "port_not_allowed");
    let any = policy(&format!("proxy: {{ allowed_ports: [\"*\"] }}\n{list}"));
    assert_eq!(answer(&any, "GET", "https://api.example:22/"), "ok allowlist.domains[0]");
}

#[test]
fn default_action_allow_opens_what_no_rule_names_on_usual_ports() {
    let policy = policy(
        "default_action: allow\ntransforms: [{ name: allowlist, config: { rules: [{ host: bad.example, action: deny }] } }]",
    );
    assert_eq!(answer(&policy, "GET", "https://any.example/"), "ok -");
    assert_eq!(answer(&policy, "GET", "https://any.example:22/"), "port_not_allowed");
    assert_eq!(answer(&policy, "GET", "https://bad.example/"), "host_not_allowed");
    assert_eq!(tunnel(&policy, "any.example:443"), "open");
    assert_eq!(tunnel(&policy, "any.example:22"), "port_not_allowed");
}

#[test]
fn every_allowlist_must_let_a_request_pass_and_warn_only_warns() {
    let two = policy(
        "transforms: [{ name: allowlist, config: { domains: [a.example, b.example] } }, { name: allowlist, config: { domains: [b.example] } }]",
    );
    assert_eq!(answer(&two, "GET", "https://b.example/"), "ok allowlist.domains[1]");
    assert_eq!(answer(&two, "GET", "https://a.example/"), "host_not_allowed");
    assert_eq!(tunnel(&two, "a.example:443"), "host_not_allowed");
    let warn = policy("transforms: [{ name: allowlist, config: { domains: [a.example], warn: true } }]");
    assert!(plan(&warn, "GET", "https://other.example/", &[]).warned);
    assert!(!plan(&warn, "GET", "https://a.example/", &[]).warned);
    assert_eq!(tunnel(&warn, "other.example:443"), "open");
}

#[test]
fn an_address_is_exempt_from_the_dial_guard_only_where_a_rule_names_its_network() {
    let policy = allowlist("{ cidr: 10.1.0.0/16 }\n{ cidr: 0.0.0.0/0 }\n{ host: ten.example }");
    let exempt = |url| Scope::new(Arc::clone(&policy), destination(url).0).exempt_networks().to_vec();
    assert_eq!(exempt("https://10.1.2.3"), ["10.1.0.0/16".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]);
    assert_eq!(exempt("https://10.2.2.3"), ["0.0.0.0/0".parse().unwrap()]);
    assert_eq!(exempt("https://ten.example"), []);
}

const KEY: &str = r#"{ source: { type: env, var: KEY }, replace: { proxy_value: KEY }, rules: [{ host: api.example, methods: [POST], paths: ["/v1/*"] }] }"#;

#[test]
fn a_placeholder_is_swapped_where_it_was_granted() {
    let policy = secrets(KEY);
    let plan = plan(
        &policy,
        "POST",
        "https://api.example/v1/x",
        &[("authorization", "Bearer KEY"), ("x-api-key", "KEY")],
    );
    assert_eq!(uses(&policy, &plan), ["KEY@header:authorization", "KEY@header:x-api-key"]);
    assert_eq!(plan.headers[0].hits.as_slice(), [Hit { start: 7, end: 10, secret: 0 }]);
}

#[test]
fn it_is_left_alone_where_method_path_or_location_were_not() {
    let policy = secrets(KEY);
    for (method, url) in [
        ("GET", "https://api.example/v1/x"),
        ("POST", "https://api.example/v2"),
        ("POST", "https://api.example/v1/KEY?k=KEY"),
    ] {
        assert_eq!(
            uses(&policy, &plan(&policy, method, url, &[])),
            <[String; 0]>::default(),
            "{method} {url}"
        );
    }
    let get = plan(&policy, "GET", "https://api.example/v1/x", &[("authorization", "Bearer KEY")]);
    assert!(get.changes_nothing());
}

/// `pass` or `strip` with where they stand, or the code of the refusal with its rule.
fn foreign(policy: &Arc<Policy>, url: &str, fields: &[(&'static str, &str)]) -> String {
    match decide(policy, "GET", url, fields) {
        Verdict::Forward(plan) => plan.foreign.map_or("none".to_owned(), |foreign| {
            let places = foreign.locations().map(|place| place.to_string()).collect::<Vec<_>>().join(" ");
            format!("{} {places}", if foreign.stripped { "strip" } else { "pass" })
        }),
        Verdict::Refuse(refusal) => {
            format!("{} {}", refusal.reason, refusal.rule.as_ref().map_or("-", RuleName::as_str))
        }
    }
}

#[test]
fn t51_credentials_of_the_clients_own_are_those_that_no_placeholder_stands_in() {
    let policy = secrets(
        r#"
        { source: { type: env, var: ONE }, replace: { proxy_value: PLACEHOLDER, match_headers: [Authorization, X-Api-Key, "/^x-/"] }, rules: [{ host: a.example }] }
        { source: { type: env, var: TWO }, inject: { header: X-Set }, rules: [{ host: a.example, paths: ["/set"] }] }
        { source: { type: env, var: THREE }, inject: { header: X-Optional }, on_unavailable: pass, rules: [{ host: a.example }] }
    "#,
    );
    type Fields = &'static [(&'static str, &'static str)];
    let cases: &[(&str, Fields, &str)] = &[
        ("https://a.example/", &[], "none"),
        ("https://a.example/", &[("authorization", "Bearer PLACEHOLDER")], "none"),
        ("https://a.example/", &[("authorization", "Basic OlBMQUNFSE9MREVS")], "none"),
        ("https://a.example/", &[("authorization", "Bearer own")], "pass header:authorization"),
        ("https://a.example/", &[("authorization", "")], "none"),
        // One value beside ours is still the client's.
        (
            "https://a.example/",
            &[("x-api-key", "PLACEHOLDER"), ("x-api-key", "own")],
            "pass header:x-api-key",
        ),
        // Neither a session nor a header that only a pattern selects.
        ("https://a.example/", &[("cookie", "session=own"), ("x-other", "own")], "none"),
        // A value of ours takes its place, if its rules match and it cannot be left out.
        ("https://a.example/set", &[("x-set", "own")], "none"),
        ("https://a.example/", &[("x-set", "own")], "pass header:x-set"),
        ("https://a.example/", &[("x-optional", "own")], "pass header:x-optional"),
        // No secret is bound there.
        ("https://b.example/", &[("authorization", "Bearer own")], "none"),
        ("http://a.example/", &[("authorization", "Bearer own")], "none"),
    ];
    for (url, fields, expected) in cases {
        assert_eq!(foreign(&policy, url, fields), *expected, "{url} {fields:?}");
    }
}

#[test]
fn t51_of_all_rules_that_let_a_request_pass_the_strictest_decides_about_them() {
    let policy = policy(
        r#"
transforms:
  - name: allowlist
    config:
      rules:
        - { host: a.example, foreign_credentials: strip, paths: ["/strip", "/both"] }
        - { host: a.example, foreign_credentials: deny, paths: ["/deny"] }
        - { host: a.example }
        - { host: b.example, foreign_credentials: deny }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: ONE }
          replace: { proxy_value: PLACEHOLDER }
          rules: [{ host: a.example, foreign_credentials: deny, paths: ["/both"] }, { host: a.example }]
"#,
    );
    let own = [("authorization", "Bearer own")];
    let at = |path: &str, fields: &[(&'static str, &str)]| {
        foreign(&policy, &format!("https://a.example{path}"), fields)
    };
    assert_eq!(at("/", &own), "pass header:authorization");
    assert_eq!(at("/strip", &own), "strip header:authorization");
    assert_eq!(at("/deny", &own), "foreign_credential allowlist.rules[1]");
    assert_eq!(at("/both", &own), "foreign_credential secrets[0].rules[0]");
    assert_eq!(at("/deny", &[("authorization", "Bearer PLACEHOLDER")]), "none");
    // Where no secret is bound, credentials are the client's business.
    assert_eq!(foreign(&policy, "https://b.example/", &own), "none");
}

#[test]
fn t41_it_is_blocked_on_its_way_to_a_host_that_it_is_not_bound_to() {
    let policy = secrets(KEY);
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "user:KEY");
    for (url, field) in [
        ("https://evil.example/", ("authorization", "Bearer KEY".to_owned())),
        ("https://evil.example/", ("x-anything", "a,KEY;b".to_owned())),
        ("https://evil.example/", ("authorization", format!("Basic {basic}"))),
        ("https://evil.example/", ("authorization", format!("bAsIc {}", basic.trim_end_matches('=')))),
        ("https://evil.example/?k=KEY", ("x", "y".to_owned())),
        ("https://evil.example/?k=%4BEY", ("x", "y".to_owned())),
        ("https://evil.example/KEY/x", ("x", "y".to_owned())),
        ("http://api.example/v1/x", ("authorization", "Bearer KEY".to_owned())),
    ] {
        assert_eq!(
            refusal(&policy, "POST", url, &[(field.0, &field.1)]),
            Reason::PlaceholderMisdirected,
            "{url} {field:?}"
        );
    }
    // A part of a word is not a placeholder.
    assert!(plan(&policy, "POST", "https://evil.example/MONKEY", &[("x", "KEYBOARD")]).changes_nothing());
}

#[test]
fn t54_real_values_travel_in_cleartext_only_where_a_rule_says_so() {
    let policy = secrets(
        r#"
        { source: { type: env, var: A }, inject: { header: x-a }, rules: [{ host: api.example }] }
        { source: { type: env, var: B }, inject: { header: x-b }, rules: [{ host: api.example, schemes: [http] }] }
        "#,
    );
    assert_eq!(uses(&policy, &plan(&policy, "GET", "https://api.example/", &[])), ["A@header:x-a"]);
    assert_eq!(uses(&policy, &plan(&policy, "GET", "http://api.example/", &[])), ["B@header:x-b"]);
}

#[test]
fn headers_are_selected_by_name_and_by_pattern() {
    let policy = secrets(
        r#"{ source: { type: env, var: A }, replace: { proxy_value: AAAA, match_headers: [X-Api-Key, "/^x-goog-/"] }, rules: [{ host: api.example }] }"#,
    );
    let fields = [("x-api-key", "AAAA"), ("x-goog-api-key", "AAAA"), ("authorization", "AAAA")];
    let plan = plan(&policy, "GET", "https://api.example/", &fields);
    assert_eq!(uses(&policy, &plan), ["A@header:x-api-key", "A@header:x-goog-api-key"]);
}

#[test]
fn path_and_query_are_swapped_in_place() {
    let policy = secrets(
        r#"{ source: { type: env, var: A }, replace: { proxy_value: "AA:AA", match_query: true, match_path: true }, rules: [{ host: api.example }] }"#,
    );
    let plan = plan(&policy, "GET", "https://api.example/botAA:AA/x?a=%20&key=AA%3aAA&b", &[]);
    let swaps: Vec<_> = plan
        .target
        .iter()
        .map(|swap| (Location::from(&swap.place).to_string(), swap.hit.start, swap.hit.end))
        .collect();
    assert_eq!(swaps, [("path".to_owned(), 4, 9), ("query:key".to_owned(), 22, 29)]);
}

#[test]
fn the_longest_placeholder_wins_and_priority_decides_between_equals() {
    let policy = secrets(
        r#"
        { source: { type: env, var: SHORT }, replace: { proxy_value: TOKEN }, rules: [{ host: api.example }] }
        { source: { type: env, var: LONG }, replace: { proxy_value: TOKEN_2 }, rules: [{ host: api.example }] }
        { source: { type: env, var: OLD }, replace: { proxy_value: SAME }, rules: [{ host: api.example }], priority: 5 }
        { source: { type: env, var: NEW }, replace: { proxy_value: SAME }, rules: [{ host: api.example }] }
        { source: { type: env, var: FIRST }, inject: { header: x-i }, rules: [{ host: api.example }] }
        { source: { type: env, var: LATER }, inject: { header: x-i }, rules: [{ host: api.example }] }
        "#,
    );
    let plan = plan(
        &policy,
        "GET",
        "https://api.example/",
        &[("x-a", "TOKEN_2"), ("x-b", "TOKEN"), ("x-c", "SAME")],
    );
    assert_eq!(
        uses(&policy, &plan),
        ["LONG@header:x-a", "SHORT@header:x-b", "OLD@header:x-c", "LATER@header:x-i"]
    );
}

#[test]
fn a_placeholder_that_two_secrets_share_goes_by_host() {
    let policy = secrets(
        r#"
        { source: { type: env, var: ONE }, replace: { proxy_value: SAME }, rules: [{ host: one.example }], priority: 9 }
        { source: { type: env, var: TWO }, replace: { proxy_value: SAME }, rules: [{ host: two.example }] }
        "#,
    );
    let used = |url| uses(&policy, &plan(&policy, "GET", url, &[("x-a", "SAME")]));
    assert_eq!(used("https://one.example/"), ["ONE@header:x-a"]);
    assert_eq!(used("https://two.example/"), ["TWO@header:x-a"]);
    assert_eq!(
        refusal(&policy, "GET", "https://three.example/", &[("x-a", "SAME")]),
        Reason::PlaceholderMisdirected
    );
}

#[test]
fn require_is_judged_on_the_request_and_not_on_the_tunnel() {
    let policy = secrets(
        r#"
        { source: { type: env, var: A }, replace: { proxy_value: AAAA, require: true }, rules: [{ host: api.example }] }
        { source: { type: env, var: B }, replace: { proxy_value: BBBB_BBBB_BBBB_BBBB, require: true, match_body: true }, rules: [{ host: body.example }] }
        "#,
    );
    assert_eq!(tunnel(&policy, "api.example:443"), "open");
    assert_eq!(refusal(&policy, "GET", "https://api.example/", &[]), Reason::PlaceholderMissing);
    assert_eq!(
        uses(&policy, &plan(&policy, "GET", "https://api.example/", &[("x", "AAAA")])),
        ["A@header:x"]
    );
    let body = plan(&policy, "POST", "https://body.example/", &[]);
    assert_eq!(body.required_in_body.as_slice(), [1]);
    let head = plan(&policy, "POST", "https://body.example/", &[("x", "BBBB_BBBB_BBBB_BBBB")]);
    assert_eq!(head.required_in_body.as_slice(), <[u32; 0]>::default());
}

#[test]
fn only_generated_placeholders_are_misdirected_in_bodies() {
    let generated = "kf_0123456789abcdef0123456789abcdef";
    let policy = secrets(&format!(
        r#"
        {{ source: {{ type: env, var: NAMED }}, replace: {{ proxy_value: OPENAI_API_KEY, match_body: true }}, rules: [{{ host: api.example }}] }}
        {{ source: {{ type: env, var: MADE }}, replace: {{ proxy_value: {generated}, match_body: true }}, rules: [{{ host: api.example }}] }}
        "#,
    ));
    let find = |text: &str| policy.placeholders().find_in(text.as_bytes()).next().unwrap();
    let scope = |url| Scope::new(Arc::clone(&policy), destination(url).0);
    let (api, evil) = (scope("https://api.example"), scope("https://evil.example"));
    let plan = plan(&policy, "POST", "https://api.example/", &[]);
    assert_eq!(api.resolve_in_body(&find(generated), &plan), Ok(Some(Hit { start: 0, end: 35, secret: 1 })));
    assert_eq!(
        api.resolve_in_body(&find("OPENAI_API_KEY"), &plan),
        Ok(Some(Hit { start: 0, end: 14, secret: 0 }))
    );
    let nothing = Plan::default();
    assert_eq!(evil.resolve_in_body(&find("OPENAI_API_KEY"), &nothing), Ok(None));
    let refused = evil.resolve_in_body(&find(&format!("x{generated}y")), &nothing).unwrap_err();
    assert_eq!(refused.reason, Reason::PlaceholderMisdirected);
    assert_eq!((api.generated_bound(), evil.generated_bound()), (vec![true], vec![false]));
}

#[test]
fn t47_a_secret_is_injected_only_where_its_rules_match() {
    let policy = secrets(
        r#"{ source: { type: env, var: G }, inject: { header: authorization, formatter: "Bearer {{ .Value }}" }, rules: [{ host: "*.googleapis.example" }, { host: www.googleapis.example, action: deny }, { host: gmail.googleapis.example, paths: ["/send/*"], action: deny }] }"#,
    );
    let used = |url| uses(&policy, &plan(&policy, "GET", url, &[]));
    assert_eq!(used("https://drive.googleapis.example/"), ["G@header:authorization"]);
    assert_eq!(used("https://www.googleapis.example/"), <[String; 0]>::default());
    assert_eq!(used("https://gmail.googleapis.example/send/x"), <[String; 0]>::default());
    assert_eq!(used("https://gmail.googleapis.example/read"), ["G@header:authorization"]);
}

#[test]
fn t62_a_generated_placeholder_is_found_inside_longer_words_and_a_raw_one_behind_basic() {
    let generated = "kf_0123456789abcdef0123456789abcdef";
    let policy = secrets(&format!(
        r#"
        {{ source: {{ type: env, var: MADE }}, replace: {{ proxy_value: {generated} }}, rules: [{{ host: api.example }}] }}
        {{ source: {{ type: env, var: RAW }}, replace: {{ proxy_value: abcd1234abcd1234 }}, rules: [{{ host: api.example }}] }}
        "#,
    ));
    let evil = "https://evil.example/";
    for value in [format!("x{generated}y"), "Basic abcd1234abcd1234".to_owned()] {
        assert_eq!(
            refusal(&policy, "GET", evil, &[("x-a", &value)]),
            Reason::PlaceholderMisdirected,
            "{value}"
        );
    }
    let plan = plan(&policy, "GET", "https://api.example/", &[("authorization", "Basic abcd1234abcd1234")]);
    assert_eq!(
        (uses(&policy, &plan), plan.headers[0].basic),
        (vec!["RAW@header:authorization".to_owned()], false)
    );
}

#[test]
fn t89_a_placeholder_that_begins_with_a_question_mark_is_nothing_special() {
    let policy = secrets(
        r#"{ source: { type: env, var: A }, replace: { proxy_value: "?tok", match_query: true, match_path: true }, rules: [{ host: api.example }] }"#,
    );
    assert_eq!(uses(&policy, &plan(&policy, "GET", "https://api.example/x?tok=1", &[])), ["A@path"]);
}

#[test]
fn an_explanation_tells_what_each_secret_does_and_why_not() {
    let policy = secrets(
        r#"
        { source: { type: env, var: USED }, replace: { proxy_value: USED_KEY }, rules: [{ host: api.example }] }
        { source: { type: env, var: ABSENT }, replace: { proxy_value: ABSENT_KEY }, rules: [{ host: api.example }] }
        { source: { type: env, var: ELSEWHERE }, replace: { proxy_value: QUERY_KEY, match_headers: [x-q] }, rules: [{ host: api.example }] }
        { source: { type: env, var: OTHER_HOST }, inject: { header: x-a }, rules: [{ host: other.example }] }
        { source: { type: env, var: OTHER_PORT }, inject: { header: x-a }, rules: [{ host: api.example, ports: [8443] }] }
        { source: { type: env, var: OTHER_METHOD }, inject: { header: x-a }, rules: [{ host: api.example, methods: [PUT] }] }
        { source: { type: env, var: LOSER }, inject: { header: x-w }, rules: [{ host: api.example }] }
        { source: { type: env, var: WINNER }, inject: { header: x-w }, rules: [{ host: api.example }] }
        "#,
    );
    let (destination, target) = destination("https://api.example/v1?k=QUERY_KEY");
    let headers = headers(&[("authorization", "Bearer USED_KEY")]);
    let explanation =
        policy.explain(&destination, &RequestHead { method: &Method::GET, target, headers: &headers });
    let told: Vec<_> = explanation
        .secrets
        .iter()
        .map(|s| format!("{} {} {:?}: {}", s.secret, s.outcome, s.locations, s.why))
        .collect();
    assert_eq!(
        told,
        [
            "USED swapped [\"header:authorization\"]: its placeholder is in the request",
            "ABSENT unused []: the request does not hold \"ABSENT_KEY\"",
            "ELSEWHERE unused []: \"QUERY_KEY\" stands in the request target, which its entry does not search",
            "OTHER_HOST unused []: none of its rules names api.example",
            "OTHER_PORT unused []: its rules name api.example for other ports or schemes; without `schemes` a secret travels over https only",
            "OTHER_METHOD unused []: its rules do not match this method and path",
            "LOSER unused []: a secret of higher priority is set at header:x-w",
            "WINNER injected [\"header:x-w\"]: its rules match the request",
        ]
    );
    assert_eq!((explanation.verdict, explanation.rule, explanation.reason), ("forward", None, None));
}

#[test]
fn t80_patterns_take_linear_time_over_the_longest_input() {
    let rules = r#"{ host: api.example, paths: ["/*a*a*a*a*a*a*a*a*b"] }"#;
    let policy_of_paths = allowlist(rules);
    let policy_of_headers = secrets(
        r#"{ source: { type: env, var: A }, replace: { proxy_value: AAAA, match_headers: ["/^(a+)+$/", "/(a|aa)*x(a*)*$/"] }, rules: [{ host: api.example }] }"#,
    );
    let long = "a".repeat(16 * 1024);
    let name: &'static str = Box::leak(format!("{}-", "a".repeat(1000)).into_boxed_str());

    let begun = std::time::Instant::now();
    let path = decide(&policy_of_paths, "GET", &format!("https://api.example/{long}"), &[]);
    let header = decide(&policy_of_headers, "GET", "https://api.example/", &[(name, "AAAA")]);
    let took = begun.elapsed();

    assert!(matches!(path, Verdict::Refuse(refusal) if refusal.reason == Reason::PathNotAllowed));
    assert!(matches!(header, Verdict::Forward(_)), "{header:?}");
    // What tries all ways to match would need longer than the universe has been there.
    assert!(took.as_secs() < 5, "{took:?}");
}
