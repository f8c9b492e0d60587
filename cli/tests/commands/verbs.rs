//! The everyday verbs against a real control service.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::control_service::{ControlService, KEY};
use crate::keyferry::Place;

#[test]
fn a_secret_is_added_listed_replaced_and_removed_and_its_value_is_never_shown() {
    let control = ControlService::start();
    std::fs::write(control.place().path("token.txt"), "s3cret-of-github\n").unwrap();
    let add = ["secret", "add", "github", "--host", "api.github.com", "--value-file", "token.txt"];

    let added = control.says(&add);
    let placeholder = added.lines().find_map(|line| line.strip_prefix("placeholder: kf_")).unwrap();
    assert!(placeholder.len() == 32 && placeholder.bytes().all(|byte| byte.is_ascii_hexdigit()), "{added}");
    assert!(added.starts_with("secret github (ssr_"), "{added}");

    let (code, again) = control.fails(&add);
    assert!(code == 1 && again.contains("foreign_id: has already been taken"), "{again}");
    let replaced = control.says(&[&add[..], &["--update", "--method", "GET"]].concat());
    assert!(replaced.contains(": replaced") && replaced.contains(placeholder), "{replaced}");

    let listed = control.json(&["secret", "list"]);
    assert_eq!(listed[0]["rules"][0]["http_methods"], json!(["GET"]));
    assert_eq!(listed[0]["kind"], "static");
    let table = control.says(&["secret", "list"]);
    assert!(table.contains("github  static  ssr_") && table.contains("api.github.com  enabled"), "{table}");
    for shown in [added, replaced, listed.to_string(), table] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    assert!(control.says(&["secret", "rm", "github"]).contains(": removed"));
    let (code, gone) = control.fails(&["secret", "rm", "github"]);
    assert!(code == 1 && gone.contains("there is no secret \"github\"") && gone.contains("hint:"), "{gone}");
    let none = control.place().run(&["secret", "list"]);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "no secrets in namespace \"default\"\n"));
}

#[test]
fn a_value_comes_from_stdin_a_file_or_a_source_and_never_as_an_argument() {
    let control = ControlService::start();
    let piped = |arguments: &[&str], value: &str| {
        let mut child = control
            .place()
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let add = ["secret", "add", "models", "--host", "api.example:8443", "--header", "x-api-key"];
    let output = piped(&add, "s3cret\n");
    assert!(output.status.success(), "{output:?}");
    let output = piped(&["secret", "add", "dash", "--host", "a.example", "--value-file", "-"], "s3cret");
    assert!(output.status.success(), "{output:?}");
    let (code, empty) = control.fails(&["secret", "add", "empty", "--host", "a.example"]);
    assert!(code == 2 && empty.contains("the value of empty is empty"), "{empty}");
    let (code, said) = control.fails(&["secret", "add", "x", "--host", "a.example", "--value", "s3cret"]);
    assert!(code == 2 && said.contains("--value"), "there is no flag for a value: {said}");

    let shape = control.json(&[
        "secret",
        "add",
        "env",
        "--host",
        "a.example",
        "--query",
        "key",
        "--from-env",
        "TOKEN",
    ]);
    assert_eq!(shape["source"], json!({ "source_type": "env", "config": { "var": "TOKEN" } }));
    assert_eq!(shape["inject_config"], json!({ "query_param": "key" }));
    let body = control.json(&[
        "secret",
        "add",
        "body",
        "--host",
        "10.0.0.0/8",
        "--path",
        "/v1/*",
        "--in",
        "body",
        "--in",
        "query",
        "--placeholder",
        "kf_00000000000000000000000000000000",
        "--from-file",
        "/run/token",
    ]);
    assert_eq!(
        body["replace_config"],
        json!({ "proxy_value": "kf_00000000000000000000000000000000", "match_body": true, "match_query": true })
    );
    assert_eq!(body["rules"][0]["cidr"], "10.0.0.0/8");
}

#[test]
fn grants_rules_and_their_end() {
    let control = ControlService::start();
    let (code, unknown) = control.fails(&["grant", "alice", "github"]);
    assert!(code == 1 && unknown.contains("there is no principal \"alice\""), "{unknown}");
    assert!(control.says(&["principal", "add", "alice", "--kind", "user"]).ends_with(": added\n"));
    assert!(control.says(&["principal", "add", "alice"]).ends_with(": is there\n"));
    for name in ["github", "models"] {
        let host = format!("{name}.example");
        control.says(&[
            "secret",
            "add",
            name,
            "--host",
            &host,
            "--header",
            "authorization",
            "--from-env",
            "T",
        ]);
    }

    let granted = control.says(&["grant", "alice", "github", "models", "--for", "8h"]);
    assert!(
        granted.starts_with("alice: github granted until 20") && granted.contains("alice: models"),
        "{granted}"
    );
    let (code, wrong) = control.fails(&["grant", "alice", "github", "nothing"]);
    assert!(code == 1 && wrong.contains("\"nothing\""), "{wrong}");

    let allowed = control.says(&["allow", "alice", "pypi.example", "10.1.0.0/16", "--method", "GET"]);
    assert_eq!(allowed, "alice: allow GET pypi.example: added\nalice: allow GET 10.1.0.0/16: added\n");
    assert!(
        control.says(&["allow", "alice", "pypi.example", "--method", "GET"]).contains("is there already")
    );
    control.says(&["deny", "alice", "github.example", "--path", "/admin/*"]);

    let explain =
        |arguments: &[&str]| control.says(&[&["explain", "--principal", "alice"], arguments].concat());
    let forwarded = explain(&["GET", "https://github.example/user"]);
    assert!(forwarded.contains("forward  by secret github"), "{forwarded}");
    assert!(forwarded.contains("github: injected at"), "{forwarded}");
    let denied = explain(&["GET", "https://github.example/admin/users"]);
    assert!(denied.contains("refuse  path_not_allowed  by rule rqr_"), "{denied}");
    assert!(explain(&["POST", "https://pypi.example/"]).contains("refuse  method_not_allowed"));
    let json = control.json(&["explain", "--principal", "alice", "GET", "https://nowhere.example/"]);
    assert_eq!(json["request"]["reason"], "host_not_allowed");

    let shown = control.says(&["principal", "show", "alice"]);
    assert!(shown.contains("rules of its own:\n  allow GET pypi.example"), "{shown}");
    assert!(shown.contains("\nsecrets:\n"), "{shown}");

    assert_eq!(control.says(&["revoke", "alice", "github"]), "alice: github revoked\n");
    assert!(control.says(&["revoke", "alice", "github"]).contains("nothing to do"));
    assert!(explain(&["GET", "https://github.example/user"]).contains("refuse  host_not_allowed"));
    assert!(
        control
            .says(&["deny", "alice", "github.example", "--path", "/admin/*", "--remove"])
            .contains("removed")
    );
    assert!(control.says(&["principal", "rm", "alice"]).contains("removed"));
    assert_eq!(control.json(&["principal", "list"]), json!([]));
}

#[test]
fn proxies_and_sandboxes_show_their_tokens_once() {
    let control = ControlService::start();
    control.says(&["principal", "add", "alice"]);
    let token = control.says(&["proxies", "add", "edge", "--shared", "--address", "127.0.0.1:3128"]);
    assert!(token.starts_with("iprx_") && token.trim().len() == 69, "{token}");
    control.says(&["proxies", "add", "ci"]);
    assert!(control.says(&["proxies", "assign", "ci", "alice"]).ends_with("assigned to alice\n"));
    assert!(control.says(&["proxies", "assign", "ci", "--nobody"]).ends_with("assigned to nobody\n"));
    let listed = control.says(&["proxies", "list"]);
    assert!(
        listed.contains("edge") && listed.contains("unassigned") && !listed.contains("iprx_"),
        "{listed}"
    );

    let created = control.place().run(&["sandbox", "create", "job", "--principal", "alice", "--for", "1h"]);
    assert!(
        created.stdout.starts_with("http://sbx_") && created.stdout.ends_with("@127.0.0.1:3128\n"),
        "{created:?}"
    );
    assert!(created.stderr.contains("no connected proxy has applied it yet"), "{created:?}");
    let rotated = control.says(&["sandbox", "rotate", "job"]);
    assert!(rotated.starts_with("http://sbx_") && rotated != created.stdout, "{rotated}");
    let listed = control.says(&["sandbox", "list", "--principal", "alice"]);
    assert!(listed.contains("job") && listed.contains("live") && !listed.contains("sbxt_"), "{listed}");
    assert!(control.says(&["sandbox", "rm", "job"]).contains("removed"));

    let status = control.json(&["status"]);
    assert_eq!(status["control"]["ready"], true);
    assert_eq!(status["proxies"].as_array().map(Vec::len), Some(2));
    assert!(control.says(&["status"]).contains(&control.address));
    assert!(control.says(&["proxies", "rm", "ci"]).contains("removed"));
}

#[test]
fn which_service_is_asked_is_said_by_flag_variable_or_data_directory() {
    let control = ControlService::start();
    let url = format!("http://{}", control.address);
    let asks = |place: &Place, arguments: &[&str]| {
        place.run(&[&["principal", "list", "--json"], arguments].concat())
    };

    let by_flag = asks(&Place::new(), &["--control-url", &url, "--control-api-key", KEY]);
    assert_eq!(by_flag.stdout, "[]\n", "{by_flag:?}");
    let twins = Place::new()
        .variable("IRON_CONTROL_URL", &format!("{url}/api/v1/"))
        .variable("IRON_CONTROL_API_KEY", KEY)
        .variable("IRON_CONTROL_NAMESPACE", "tenant-a");
    assert_eq!(twins.run(&["principal", "add", "x"]).exit_code, 0);
    assert_eq!(asks(control.place(), &["--namespace", "tenant-a"]).stdout.matches("\"id\"").count(), 1);
    assert_eq!(asks(control.place(), &[]).stdout, "[]\n");

    let home = Place::new().variable("HOME", "/nowhere");
    let nobody = home.run(&["status"]);
    assert_eq!(nobody.exit_code, 3);
    assert!(nobody.stderr.contains("nothing runs at /nowhere/.local/share/keyferry"), "{nobody:?}");
    let wrong = asks(&home, &["--control-url", &url, "--control-api-key", "iak_wrong"]);
    assert!(wrong.exit_code == 2 && wrong.stderr.contains("invalid or missing API key"), "{wrong:?}");
    assert!(!wrong.stderr.contains("iak_wrong"), "{wrong:?}");
    let away = asks(&home, &["--control-url", "http://127.0.0.1:1"]);
    assert!(away.exit_code == 1 && away.stderr.contains("http://127.0.0.1:1 cannot be reached"), "{away:?}");
    let clear = asks(&home, &["--control-url", "http://control.example"]);
    assert!(clear.exit_code == 2 && clear.stderr.contains("in the clear"), "{clear:?}");
}
