//! `keyferry policy replay`.

use serde_json::{Value, json};

use crate::keyferry::{Place, Run};

const OLD: &str = r#"
transforms:
  - name: allowlist
    config: { domains: [api.example, packages.example] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: API_KEY }
          replace: { proxy_value: kf_0123456789abcdef0123456789abcdef, match_headers: [Authorization], match_body: true, match_query: true }
          rules: [{ host: api.example }]
"#;

/// One path less, one host more, a header more, a secret in another place.
const NEW: &str = r#"
transforms:
  - name: allowlist
    config:
      domains: [new.example]
      rules:
        - { host: api.example, foreign_credentials: strip }
        - { host: api.example, paths: ["/admin/*"], action: deny }
        - { host: packages.example, methods: [GET] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: API_KEY }
          replace: { proxy_value: kf_0123456789abcdef0123456789abcdef, match_headers: [Authorization], match_body: true }
          rules: [{ host: api.example }]
        - source: { type: env, var: SET }
          inject: { header: X-Set }
          rules: [{ host: packages.example }]
"#;

/// A record of a request through a tunnel; `changes` are set in it, by pointer.
fn record(id: u32, method: &str, host: &str, path: &str, changes: &[(&str, Value)]) -> String {
    let mut record = json!({
        "time": "2026-11-22T12:30:00.125Z", "level": "INFO", "msg": "request",
        "audit": {
            "request_id": format!("{id:032x}"), "principal": "local", "generation": 1, "host": host, "port": 443,
            "scheme": "https", "method": method, "path": path, "sni": host, "mode": "mitm", "action": "allow",
            "reason": null, "rule": "allowlist.domains[0]", "status_code": 200, "duration_ms": 1.5, "bytes_in": 0,
            "bytes_out": 0, "upstream_addr": null, "remote_addr": "127.0.0.1:50000", "client_protocol": "h2",
            "upstream_protocol": "h1",
        },
        "tunnel": { "target": format!("{host}:443") },
        "request_transforms": [],
    });
    for (pointer, value) in changes {
        *record.pointer_mut(pointer).unwrap() = value.clone();
    }
    record.to_string()
}

fn swapped(places: &[&str]) -> (&'static str, Value) {
    let annotations = json!({ "swapped": [{ "secret": "API_KEY", "locations": places }] });
    ("/request_transforms", json!([{ "name": "secrets", "action": "allow", "annotations": annotations }]))
}

fn refused(reason: &str) -> [(&'static str, Value); 3] {
    [("/audit/action", json!("reject")), ("/audit/reason", json!(reason)), ("/audit/rule", Value::Null)]
}

fn log() -> String {
    let own = json!([{ "name": "secrets", "action": "allow", "annotations": { "foreign_passed": ["header:authorization"] } }]);
    let connect = [
        ("/audit/mode", json!("tunnel")),
        ("/audit/scheme", Value::Null),
        ("/audit/reason", json!("host_not_allowed")),
        ("/audit/action", json!("reject")),
    ];
    let lines = [
        record(1, "POST", "api.example", "/v1/messages", &[swapped(&["header:authorization", "body"])]),
        record(2, "POST", "api.example", "/admin/417/keys", &[swapped(&["header:authorization"])]),
        record(3, "POST", "api.example", "/admin/418/keys", &[swapped(&["header:authorization"])]),
        record(4, "GET", "api.example", "/search", &[swapped(&["query:key"])]),
        record(5, "GET", "api.example", "/own", &[("/request_transforms", own)]),
        record(6, "GET", "packages.example", "/simple", &[]),
        record(7, "PUT", "packages.example", "/simple", &[("/audit/reason", json!("upstream_reset"))]),
        record(8, "CONNECT", "new.example", "", &connect),
        record(9, "CONNECT", "other.example", "", &connect),
        record(10, "GET", "api.example", "/", &refused("placeholder_misdirected")),
        record(11, "GET", "api.example", "/", &refused("ambiguous_request")),
        record(12, "GET", "", "/", &refused("malformed_request")),
        record(13, "GET", "packages.example", "/", &refused("of_a_later_version")),
    ];
    lines.join("\n") + "\n{\"level\":\"INFO\",\"msg\":\"ready\"}\n" + &lines[0][..70]
}

fn place() -> Place {
    Place::new().file("old.yaml", OLD).file("new.yaml", NEW).file("audit.jsonl", &log())
}

#[test]
fn what_would_change_is_grouped_counted_and_sorted_by_gravity() {
    let run = place().run(&["policy", "replay", "--audit", "audit.jsonl", "--policy", "new.yaml"]);

    let expected = "\
13 requests judged again, 7 would change

refused then, forwarded now
       1  CONNECT new.example:443  (local)
          refuse host_not_allowed -> forward
          such as 00000000000000000000000000000008

forwarded then, refused now
       2  POST api.example:443/admin/{}/keys  (local)
          forward -> refuse path_not_allowed
          such as 00000000000000000000000000000002
       1  PUT packages.example:443/simple  (local)
          forward -> refuse method_not_allowed
          such as 00000000000000000000000000000007

forwarded with other credentials
       1  GET api.example:443/own  (local)
          - the client's own credentials passed at header:authorization
          + the client's own credentials stripped at header:authorization
          such as 00000000000000000000000000000005
       1  GET api.example:443/search  (local)
          - API_KEY at query:key
          such as 00000000000000000000000000000004
       1  GET packages.example:443/simple  (local)
          + SET at header:x-set
          such as 00000000000000000000000000000006
";
    assert_eq!(run.stdout.split("\nnot known\n").next(), Some(expected), "{}", run.stdout);
}

#[test]
fn what_cannot_be_known_is_counted_apart() {
    let run = place().run(&["policy", "replay", "--audit", "audit.jsonl", "--policy", "new.yaml"]);

    let expected = "
       1  no request could be read
       1  refused before a policy was asked
       1  refused for a header or a body that no record holds
       1  refused for a reason that this version does not know
";
    assert_eq!(run.stdout.split("\nnot known").nth(1), Some(expected));
    assert_eq!(run.stderr, "warning: audit.jsonl: the last line is not complete, and was left out\n");
    assert_eq!(run.exit_code, 0);
}

#[test]
fn a_program_learns_the_same_in_json() {
    let run = place().run(&["policy", "replay", "--audit", "audit.jsonl", "--policy", "new.yaml", "--json"]);

    let answer: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (&answer["requests"], &answer["changed"], &answer["not_grouped"]),
        (&json!(13), &json!(7), &json!(0))
    );
    assert_eq!(answer["undecided"]["refused before a policy was asked"], 1);
    assert_eq!(
        answer["changes"][1],
        json!({
            "kind": "newly_refused", "principal": "local", "method": "POST", "host": "api.example:443",
            "path": "/admin/{}/keys", "before": "forward", "after": "refuse path_not_allowed", "lost": [],
            "gained": [], "count": 2, "example": "00000000000000000000000000000002",
        })
    );
}

#[test]
fn with_the_old_policy_only_what_the_policies_say_is_compared() {
    // The log was written under a policy that was neither.
    let run = place().run(&[
        "policy",
        "replay",
        "--audit",
        "audit.jsonl",
        "--old",
        "old.yaml",
        "--policy",
        "old.yaml",
    ]);
    assert!(run.stdout.starts_with("13 requests judged again, nothing would change\n"), "{}", run.stdout);

    let run = place().run(&[
        "policy",
        "replay",
        "--audit",
        "audit.jsonl",
        "--policy",
        "old.yaml",
        "--old",
        "new.yaml",
    ]);
    assert!(run.stdout.starts_with("13 requests judged again, 7 would change\n"), "{}", run.stdout);
}

#[test]
fn the_exit_code_tells_a_change_from_a_file_that_is_wrong() {
    let place = place().file("text.txt", "not a log\n{}\n").file("empty.jsonl", "");
    let exit_code = |arguments: &[&str]| place.run(&[&["policy", "replay"], arguments].concat()).exit_code;

    assert_eq!(
        [
            exit_code(&["--audit", "audit.jsonl", "--policy", "new.yaml"]),
            exit_code(&["--audit", "audit.jsonl", "--policy", "new.yaml", "--fail-on-change"]),
            exit_code(&["--audit", "empty.jsonl", "--policy", "new.yaml", "--fail-on-change"]),
            exit_code(&["--audit", "empty.jsonl", "audit.jsonl", "--policy", "new.yaml", "--fail-on-change"]),
            exit_code(&["--audit", "nowhere", "--policy", "new.yaml"]),
            exit_code(&["--audit", "text.txt", "--policy", "new.yaml"]),
            exit_code(&["--audit", "audit.jsonl", "--policy", "text.txt"]),
        ],
        [0, 1, 0, 1, 2, 2, 2]
    );
    let run = place.run(&["policy", "replay", "--audit", "text.txt", "--policy", "new.yaml"]);
    assert_eq!(run, Run::of(2, "", "error: text.txt:1: this is no audit log\n"));
}

#[test]
fn what_a_sandbox_chose_writes_no_escape_sequence() {
    let line = record(1, "GET", "gone.example", "/\u{1b}[2J", &[]);
    let place = place().file("audit.jsonl", &format!("{line}\n"));

    let run = place.run(&["policy", "replay", "--audit", "audit.jsonl", "--policy", "new.yaml"]);

    assert!(run.stdout.contains(r"GET gone.example:443/\u{1b}[2J"), "{}", run.stdout);
}
