//! `keyferry explain`.

use crate::keyferry::{Place, Run};

const CONFIG: &str = r#"
transforms:
  - name: allowlist
    config:
      domains: [packages.example]
      rules:
        - { host: api.example, methods: [POST], paths: ["/v1/*"] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: EXAMPLE_API_KEY }
          replace: { proxy_value: kf_0123456789abcdef0123456789abcdef, match_headers: [Authorization] }
          rules: [{ host: api.example }]
        - source: { type: file, path: /run/secrets/other }
          inject: { header: X-Other }
          rules: [{ host: packages.example }]
"#;

const PLACEHOLDER: &str = "Authorization: Bearer kf_0123456789abcdef0123456789abcdef";

fn explain(arguments: &[&str]) -> Run {
    let place = Place::new().file("keyferry.yaml", CONFIG);
    place.run(&[&["explain", "--config", "keyferry.yaml"], arguments].concat())
}

#[test]
fn a_request_with_a_placeholder_tells_rule_secret_and_location() {
    let run = explain(&["POST", "https://api.example/v1/messages?beta=true", "-H", PLACEHOLDER]);

    let expected = "\
POST https://api.example:443/v1/messages?beta=true

forward  by allowlist.rules[0]

secrets
  EXAMPLE_API_KEY     swapped at header:authorization: its placeholder is in the request
  /run/secrets/other  unused: none of its rules names api.example
";
    assert_eq!(run, Run::of(0, expected, ""));
}

#[test]
fn a_misdirected_placeholder_tells_why_it_is_stopped() {
    let run = explain(&["GET", "https://packages.example/", "-H", PLACEHOLDER]);

    let expected = "\
GET https://packages.example:443/

refuse  placeholder_misdirected
  header authorization holds the placeholder kf_0123456789abcdef0123456789abcdef, which is not bound to https://packages.example:443
  hint: send this credential only to the hosts, ports and schemes that its rules name
";
    assert_eq!(run, Run::of(0, expected, ""));
}

#[test]
fn credentials_of_the_clients_own_are_told_where_they_pass() {
    let run = explain(&["POST", "https://api.example/v1/messages", "-H", "Authorization: Bearer own"]);

    let expected = "\
POST https://api.example:443/v1/messages

forward  by allowlist.rules[0]

credentials of the client's own
  passed at header:authorization

secrets
  EXAMPLE_API_KEY     unused: the request does not hold \"kf_0123456789abcdef0123456789abcdef\"
  /run/secrets/other  unused: none of its rules names api.example
";
    assert_eq!(run, Run::of(0, expected, ""));
}

#[test]
fn an_unlisted_host_tells_what_to_do() {
    let run = explain(&["GET", "https://evil.example"]);

    let expected = "\
GET https://evil.example:443/

refuse  host_not_allowed
  evil.example is not allowed by any rule
  hint: ask the operator to allow the host, or use one that is allowed
";
    assert_eq!(run, Run::of(0, expected, ""));
}

#[test]
fn json_says_the_same_to_a_program() {
    let run = explain(&["GET", "https://packages.example/a", "--json"]);

    let expected = r#"{
  "method": "GET",
  "url": "https://packages.example:443/a",
  "verdict": "forward",
  "rule": "allowlist.domains[0]",
  "warned": false,
  "reason": null,
  "message": null,
  "hint": null,
  "foreign_credentials": null,
  "secrets": [
    {
      "secret": "EXAMPLE_API_KEY",
      "outcome": "unused",
      "locations": [],
      "why": "none of its rules names packages.example"
    },
    {
      "secret": "/run/secrets/other",
      "outcome": "injected",
      "locations": [
        "header:x-other"
      ],
      "why": "its rules match the request"
    }
  ]
}
"#;
    assert_eq!(run, Run::of(0, expected, ""));
}

#[test]
fn what_is_not_a_request_is_refused() {
    let first_line = |arguments: &[&str]| {
        let run = explain(arguments);
        (run.exit_code, run.stderr.lines().next().unwrap_or_default().to_owned())
    };

    assert_eq!(
        [
            first_line(&["GET", "api.example"]),
            first_line(&["GET", "https://user@api.example/"]),
            first_line(&["GET", "https://api.example:0/"]),
            first_line(&["GET", "https://api.example/", "-H", "no colon"]),
            first_line(&["G T", "https://api.example/"]),
        ],
        [
            "error: invalid value 'api.example' for '<URL>': a URL begins with https:// or http://",
            "error: invalid value 'https://user@api.example/' for '<URL>': a user in a URL is for the client to send; give it as a header, Authorization: Basic …",
            "error: invalid value 'https://api.example:0/' for '<URL>': the port is not a number from 1 to 65535",
            "error: invalid value 'no colon' for '--header <NAME: VALUE>': a header is written as 'Name: value'",
            "error: invalid value 'G T' for '<METHOD>': invalid HTTP method",
        ]
        .map(|line| (2, line.to_owned()))
    );
}
