//! `keyferry check`.

use std::net::TcpListener;

use crate::keyferry::{Place, Run};

const GOOD: &str = r#"
proxy: { tunnel_listen: "127.0.0.1:0" }
tls: { ca_cert: ca.crt, ca_key: ca.key }
transforms:
  - name: allowlist
    config: { domains: [api.example] }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: EXAMPLE_API_KEY }
          replace: { proxy_value: kf_0123456789abcdef0123456789abcdef, match_headers: [Authorization] }
          rules: [{ host: api.example }]
"#;

#[test]
fn a_good_file_is_ok_without_what_it_names() {
    let place = Place::new().file("keyferry.yaml", GOOD);

    assert_eq!(place.run(&["check", "keyferry.yaml"]), Run::of(0, "keyferry.yaml: ok\n", ""));
}

#[test]
fn a_bad_file_is_refused_with_all_its_errors() {
    let place = Place::new()
        .file("keyferry.yaml", &GOOD.replace("domains", "domians").replace("type: env", "type: evn"));

    let run = place.run(&["check", "keyferry.yaml"]);

    assert_eq!((run.exit_code, run.stdout.as_str()), (2, ""));
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines[0], "keyferry.yaml:6:15: transforms[0].config.domians: unknown key");
    assert_eq!(lines[1], "  hint: did you mean \"domains\"?");
    assert!(lines[2].starts_with("keyferry.yaml:10:"), "{}", run.stderr);
    assert_eq!(*lines.last().unwrap(), "error: keyferry.yaml: 2 errors");
}

#[test]
fn lenient_takes_an_unknown_key_of_a_transform_for_a_warning() {
    let place = Place::new()
        .file("keyferry.yaml", &GOOD.replace("domains: [api.example]", "domains: [api.example], x: 1"));

    let strict = place.run(&["check", "keyferry.yaml"]);
    let lenient = place.run(&["check", "--lenient", "keyferry.yaml"]);

    assert_eq!((strict.exit_code, lenient.exit_code), (2, 0));
    assert_eq!(lenient.stdout, "keyferry.yaml: ok\n");
    assert!(
        lenient.stderr.starts_with("keyferry.yaml:6:39: warning: transforms[0].config.x: "),
        "{}",
        lenient.stderr
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_bad_file() {
    let place = Place::new();
    std::fs::write(place.path("binary"), [0xff, 0xfe]).unwrap();

    assert_eq!(
        [place.run(&["check", "nowhere.yaml"]), place.run(&["check", "binary"])],
        [
            Run::of(2, "", "error: nowhere.yaml: cannot be read: No such file or directory (os error 2)\n"),
            Run::of(2, "", "error: binary: is not UTF-8 text\n"),
        ]
    );
}

#[test]
fn deep_opens_what_the_file_names() {
    let place = Place::new()
        .file("keyferry.yaml", GOOD)
        .variable("EXAMPLE_API_KEY", "a-real-value")
        .variable("SSL_CERT_FILE", "root.crt");
    place.run(&["ca", "init"]);
    place.run(&["ca", "init", "--cert", "root.crt", "--key", "root.key"]);

    assert_eq!(place.run(&["check", "--deep", "keyferry.yaml"]), Run::of(0, "keyferry.yaml: ok\n", ""));
}

#[test]
fn deep_tells_everything_that_is_not_as_the_file_says() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = GOOD.replace("127.0.0.1:0", &address.to_string())
        + "audit: { sink: file, path: nowhere/audit.jsonl }\n";
    let place = Place::new().file("keyferry.yaml", &config);

    let run = place.run(&["check", "--deep", "keyferry.yaml"]);

    let expected = format!(
        "error: ca.crt: the authority's certificate cannot be read: No such file or directory (os error 2)\n\
         hint: make a pair with `keyferry ca init`\n\
         error: proxy.tunnel_listen: {address} cannot be opened: Address already in use (os error 98)\n\
         hint: something listens there already, perhaps this proxy itself\n\
         error: audit.path: nowhere/audit.jsonl cannot be written: No such file or directory (os error 2)\n\
         error: transforms[1].config.secrets[0].source: the environment variable EXAMPLE_API_KEY is not set or is empty\n\
         hint: set EXAMPLE_API_KEY where keyferry is started, then restart it\n\
         error: keyferry.yaml: 4 problems with what it names\n"
    );
    assert_eq!(run, Run::of(2, "", &expected));
    assert_eq!(place.names(), ["keyferry.yaml"]);
}

#[test]
fn deep_refuses_an_upstream_ca_that_is_our_own() {
    let config = GOOD.replace("ca_key: ca.key", "ca_key: ca.key, upstream_ca: ca.crt");
    let place = Place::new().file("keyferry.yaml", &config).variable("EXAMPLE_API_KEY", "a-real-value");
    place.run(&["ca", "init"]);

    let run = place.run(&["check", "--deep", "keyferry.yaml"]);

    assert_eq!(
        run,
        Run::of(
            2,
            "",
            "error: tls.upstream_ca: ca.crt contains keyferry's own certificate authority\n\
             hint: name the file with the upstreams' authorities; the bundle of `keyferry ca bundle` is for sandboxes\n\
             error: keyferry.yaml: 1 problem with what it names\n"
        )
    );
}

#[test]
fn deep_warns_where_a_value_is_too_short_to_be_taken_out_of_responses() {
    let place = Place::new().file("keyferry.yaml", GOOD).variable("EXAMPLE_API_KEY", "1234567");
    place.run(&["ca", "init"]);

    let run = place.run(&["check", "--deep", "keyferry.yaml"]);

    let line = GOOD.lines().position(|line| line.contains("source:")).unwrap() + 1;
    let column = GOOD.lines().nth(line - 1).unwrap().find("source:").unwrap() + 1;
    let expected = format!(
        "keyferry.yaml:{line}:{column}: warning: transforms[1].config.secrets[0].source: a value of less than 8 bytes is not taken out of responses, as it occurs by chance\n  \
         hint: use a longer credential; or say redact_responses: false, if that is meant\n"
    );
    assert_eq!(run, Run::of(0, "keyferry.yaml: ok\n", &expected));
}

#[test]
fn t52_deep_refuses_a_value_that_no_header_may_hold() {
    const CONFIG: &str = "transforms: [{ name: secrets, config: { secrets: [
  { source: { type: file, path: plain }, inject: { header: X-Key }, rules: [{ host: a.example }] },
  { source: { type: file, path: plain }, inject: { header: X-Basic, formatter: '{{ base64 .Value }}' }, rules: [{ host: a.example }] },
  { source: { type: file, path: plain }, replace: { proxy_value: placeholder-of-an-example-1 }, rules: [{ host: a.example }] },
] } }]
";
    let place = Place::new().file("keyferry.yaml", CONFIG).file("plain", "a-real-value\n");

    let run = place.run(&["check", "--deep", "keyferry.yaml"]);

    let expected = "\
keyferry.yaml:4:5: warning: transforms[0].config.secrets[2].source: the value holds a byte that no header may hold, but as a password of Basic; such requests are refused
  hint: if it ends in a line break, write the file without one: printf %s VALUE > FILE
error: transforms[0].config.secrets[0].source: the value holds a byte that no header may hold
hint: if it ends in a line break, write the file without one: printf %s VALUE > FILE
error: keyferry.yaml: 1 problem with what it names
";
    assert_eq!(run, Run::of(2, "", expected));
}
