//! `keyferry policy test`.

use crate::keyferry::{Place, Run};

const CONFIG: &str = r#"
transforms:
  - name: allowlist
    config:
      domains: [packages.example]
      rules:
        - { host: api.example, methods: [POST], paths: ["/v1/*"], foreign_credentials: strip }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: EXAMPLE_API_KEY }
          replace: { proxy_value: placeholder-of-an-example-1, match_headers: [Authorization], match_body: true }
          rules: [{ host: api.example }]
"#;

const GOOD: &str = r#"
config: keyferry.yaml
cases:
  - name: the model is asked
    request: { method: POST, url: https://api.example/v1/messages, headers: { Authorization: Bearer placeholder-of-an-example-1 } }
    expect:
      verdict: forward
      rule: allowlist.rules[0]
      secrets: { EXAMPLE_API_KEY: ["header:authorization"] }
      foreign_credentials: none
  - name: a key of the sandbox's own does not get there
    request: { method: POST, url: https://api.example/v1/messages, headers: { Authorization: Bearer own } }
    expect: { verdict: forward, secrets: { EXAMPLE_API_KEY: [body] }, foreign_credentials: stripped }
  - name: nothing else
    request: { url: http://other.example/ }
    expect: { verdict: refuse, reason: host_not_allowed }
"#;

const WRONG: &str = r#"
config: keyferry.yaml
cases:
  - name: the model is asked
    request: { method: GET, url: https://api.example/v1/messages }
    expect: { verdict: forward, rule: "allowlist.rules[0]" }
  - name: packages carry a key
    request: { url: https://packages.example/ }
    expect: { verdict: forward, secrets: { EXAMPLE_API_KEY: [path] } }
  - name: nothing else
    request: { url: http://other.example/ }
    expect: { verdict: refuse }
"#;

fn place() -> Place {
    Place::new().file("keyferry.yaml", CONFIG).file("good.yaml", GOOD).file("wrong.yaml", WRONG)
}

#[test]
fn what_is_as_expected_is_said_in_a_line_each() {
    let run = place().run(&["policy", "test", "good.yaml"]);

    let expected = "\
ok    the model is asked
ok    a key of the sandbox's own does not get there
ok    nothing else
";
    assert_eq!(run, Run::of(0, expected, ""));
}

#[test]
fn what_is_not_is_shown_beside_what_is() {
    let run = place().run(&["policy", "test", "wrong.yaml"]);

    let expected = "\
FAIL  the model is asked (wrong.yaml:4)
  GET https://api.example:443/v1/messages
  verdict
    - forward
    + refuse method_not_allowed
  rule
    - allowlist.rules[0]
    + none
  because no rule allows GET to api.example
FAIL  packages carry a key (wrong.yaml:7)
  GET https://packages.example:443/
  secret EXAMPLE_API_KEY
    - path
    + nowhere
ok    nothing else
";
    assert_eq!(run, Run::of(1, expected, "error: 2 of 3 cases are not as expected\n"));
}

#[test]
fn json_says_the_same_to_a_program() {
    let run = place().run(&["policy", "test", "good.yaml", "wrong.yaml", "--json"]);

    let cases: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let passed: Vec<_> =
        cases.as_array().unwrap().iter().map(|case| case["passed"].as_bool().unwrap()).collect();
    assert_eq!((run.exit_code, passed), (1, vec![true, true, true, false, false, true]));
    assert_eq!(
        cases[4],
        serde_json::json!({
            "file": "wrong.yaml",
            "line": 7,
            "name": "packages carry a key",
            "passed": false,
            "differences": [{ "what": "secret EXAMPLE_API_KEY", "expected": "path", "actual": "nowhere" }],
            "decision": {
                "method": "GET",
                "url": "https://packages.example:443/",
                "verdict": "forward",
                "rule": "allowlist.domains[0]",
                "warned": false,
                "reason": null,
                "message": null,
                "hint": null,
                "foreign_credentials": null,
                "secrets": [{
                    "secret": "EXAMPLE_API_KEY",
                    "outcome": "unused",
                    "locations": [],
                    "why": "none of its rules names packages.example",
                }],
            },
        })
    );
}

#[test]
fn a_configuration_is_named_by_the_file_beside_it_or_by_a_flag() {
    let place = place()
        .file(
            "bare.yaml",
            "cases: [{ name: a, request: { url: https://a.example }, expect: { verdict: forward } }]",
        )
        .file("open.yaml", "default_action: allow\n");
    let exit_codes = [
        place.run(&["policy", "test", "bare.yaml"]),
        place.run(&["policy", "test", "bare.yaml", "--config", "keyferry.yaml"]),
        place.run(&["policy", "test", "bare.yaml", "--config", "open.yaml"]),
        place.run(&["policy", "test", "good.yaml", "--config", "open.yaml"]),
    ]
    .map(|run| run.exit_code);
    assert_eq!(exit_codes, [2, 1, 0, 1]);

    let elsewhere = tempfile::tempdir().unwrap();
    let mut run = place.command(&["policy", "test", place.path("good.yaml").to_str().unwrap()]);
    assert!(run.current_dir(elsewhere.path()).output().unwrap().status.success());
}

#[test]
fn a_file_that_is_wrong_is_told_with_places() {
    let place = Place::new()
        .file("keyferry.yaml", CONFIG)
        .file("bad.yaml", "config: keyferry.yaml\ncases:\n- name: a\n  request: { ulr: https://a.example }\n  expect: { verdict: forward }\n");

    let run = place.run(&["policy", "test", "bad.yaml"]);

    let expected = "\
bad.yaml:4:3: cases[0].request.url: required
  hint: say where the request goes: https://api.example/v1/models
bad.yaml:4:14: cases[0].request.ulr: unknown key
  hint: did you mean \"url\"?
error: bad.yaml: 2 errors
";
    assert_eq!(run, Run::of(2, "", expected));
}
