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
fn a_token_and_an_address_of_a_control_service_go_together() {
    let place = Place::new().file("keyferry.yaml", "log: {}\n");
    let proxy = ["proxy", "--config", "keyferry.yaml"];

    let token = place.variable("KEYFERRY_PROXY_TOKEN", "iprx_s3cret");
    let half = "error: the proxy has a token and no address of a control service\nhint: give --control, or set KEYFERRY_CONTROL_PLANE_URL\n";
    assert_eq!(token.run(&proxy), Run::of(2, "", half));

    let clear = token.variable("IRON_CONTROL_PLANE_URL", "http://control.example");
    let said = "error: \"http://control.example\" would carry keys and live values in the clear to another machine\nhint: write https://HOST, or reach it through a tunnel at http://127.0.0.1:PORT\n";
    assert_eq!(clear.run(&proxy), Run::of(2, "", said));
}
