//! A configuration that this version cannot do.

use crate::keyferry::{Place, Run};

const CONFIG: &str = "\
proxy: { tunnel_listen: \"127.0.0.1:0\" }
tls: { ca_cert: ca.crt, ca_key: ca.key }
transforms:
  - name: header_allowlist
    config: { headers: [Accept] }
postgres:
  listen: 127.0.0.1:5432
  client: { user: app, password_env: PASSWORD }
  upstreams: [{ database: orders, dsn: { type: env, var: DSN } }]
";

const REFUSAL: &str = "\
keyferry.yaml:4:11: transforms[0].name: this version does not run the transform `header_allowlist`
  hint: leave the transform out
keyferry.yaml:6:1: postgres: this version does not run iron-proxy's Postgres proxy
  hint: leave the block out
error: keyferry.yaml: 2 errors
";

#[test]
fn a_proxy_does_not_start_and_check_says_so() {
    let place = Place::new().file("keyferry.yaml", CONFIG);
    place.run(&["ca", "init"]);

    assert_eq!(
        [
            place.run(&["proxy", "--config", "keyferry.yaml"]),
            place.run(&["check", "keyferry.yaml"]),
            place.run(&["explain", "--config", "keyferry.yaml", "GET", "https://api.example/"]),
        ],
        [Run::of(2, "", REFUSAL), Run::of(2, "", REFUSAL), Run::of(2, "", REFUSAL)]
    );
}

#[test]
fn check_takes_a_file_for_another_version() {
    let place = Place::new().file("keyferry.yaml", CONFIG);

    let run = place.run(&["check", "--allow-unsupported", "keyferry.yaml"]);

    let warnings = "\
keyferry.yaml:4:11: warning: transforms[0].name: this version does not run the transform `header_allowlist`
  hint: leave the transform out
keyferry.yaml:6:1: warning: postgres: this version does not run iron-proxy's Postgres proxy
  hint: leave the block out
";
    assert_eq!(run, Run::of(0, "keyferry.yaml: ok\n", warnings));
    assert_eq!(place.run(&["check", "--deep", "--allow-unsupported", "keyferry.yaml"]).exit_code, 2);
}

#[test]
fn a_variable_that_asks_for_managed_mode_is_refused() {
    let place = Place::new().file("keyferry.yaml", "log: {}\n").variable("KEYFERRY_PROXY_TOKEN", "s3cret");

    assert_eq!(
        place.run(&["check", "keyferry.yaml"]),
        Run::of(
            2,
            "",
            "environment: KEYFERRY_PROXY_TOKEN: asks for iron-proxy's managed mode, which this version does not run\n  hint: unset the variable\nerror: keyferry.yaml: 1 error\n"
        )
    );
}
