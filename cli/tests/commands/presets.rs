//! Presets, on paper and at a real control service.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::control_service::ControlService;
use crate::keyferry::{Place, Run};

fn control() -> ControlService {
    let control = ControlService::start();
    control.says(&["principal", "add", "default"]);
    std::fs::write(control.place().path("key.txt"), "s3cret-of-the-owner\n").unwrap();
    control
}

fn lines(run: &Run) -> Vec<&str> {
    assert_eq!(run.exit_code, 0, "{run:?}");
    run.stdout.lines().collect()
}

#[test]
fn presets_are_listed_with_the_keys_that_they_know() {
    let place = Place::new();

    let table = place.run(&["preset", "list"]);
    let list: serde_json::Value =
        serde_json::from_str(&place.run(&["preset", "list", "--json"]).stdout).unwrap();

    let names: Vec<_> =
        list.as_array().unwrap().iter().map(|preset| preset["name"].as_str().unwrap()).collect();
    let expected = [
        "anthropic",
        "openai",
        "google-gemini",
        "npm",
        "pypi",
        "crates.io",
        "golang",
        "debian",
        "github-read",
        "github",
        "coding-agent",
    ];
    assert_eq!(names, expected);
    let first = list[0].as_object().unwrap();
    assert_eq!(
        (&first["keys"], &first["hosts"], &first["includes"]),
        (&json!(["ANTHROPIC_API_KEY"]), &json!(["api.anthropic.com"]), &json!([]))
    );
    let listed: Vec<_> =
        lines(&table)[1..].iter().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>()).collect();
    assert_eq!(listed[0], ["anthropic", "ANTHROPIC_API_KEY"]);
    assert_eq!(listed[3], ["npm", "-"]);
}

#[test]
fn what_is_shown_is_a_configuration_however_many_presets_it_is() {
    let place = Place::new();
    let shown = place.run(&["preset", "show", "anthropic", "github-read", "github", "npm"]);
    let place = place.file("policy.yaml", &shown.stdout);

    assert_eq!(place.run(&["check", "policy.yaml"]), Run::of(0, "policy.yaml: ok\n", ""));
    let explain =
        |method: &str, url: &str| place.run(&["explain", "--config", "policy.yaml", method, url]).stdout;
    assert!(explain("GET", "https://registry.npmjs.org/left-pad").contains("forward"));
    assert!(explain("POST", "https://github.com/a/b/git-receive-pack").contains("forward"));
    assert!(explain("POST", "https://api.openai.com/v1/responses").contains("refuse  host_not_allowed"));
}

#[test]
fn a_slip_in_a_name_is_told() {
    let place = Place::new();
    let slip = "error: there is no preset \"antropic\"\nhint: did you mean \"anthropic\"?\n";

    assert_eq!(place.run(&["preset", "show", "npm", "antropic"]), Run::of(2, "", slip));
    assert_eq!(place.run(&["preset", "add", "antropic"]), Run::of(2, "", slip));
}

#[test]
fn one_command_makes_rules_secret_and_grant_and_again_changes_nothing() {
    let control = control();
    let add = ["preset", "add", "anthropic", "--value-file", "key.txt"];

    let first = control.says(&add);
    let again = control.says(&add);

    let placeholder = first.lines().last().unwrap().strip_prefix("placeholder: ").unwrap().to_owned();
    assert!(placeholder.starts_with("kf_") && placeholder.len() == 35, "{first}");
    assert!(first.starts_with(
        "default: allow POST api.anthropic.com /v1/messages /v1/messages/count_tokens (https) (foreign credentials: deny): added\n"
    ), "{first}");
    assert_eq!(
        first.lines().filter(|line| line.ends_with(": added")).count(),
        5,
        "four rules, a secret: {first}"
    );
    assert_eq!(again.lines().filter(|line| line.ends_with(": is there already")).count(), 4, "{again}");
    assert!(again.contains("secret ANTHROPIC_API_KEY (ssr_") && again.contains("): replaced\n"), "{again}");
    assert!(again.ends_with(&format!("placeholder: {placeholder}\n")), "{again}");

    let secrets = control.json(&["secret", "list"]);
    assert_eq!(secrets.as_array().unwrap().len(), 1);
    assert_eq!(secrets[0]["name"], "ANTHROPIC_API_KEY");
    assert_eq!(
        secrets[0]["replace_config"],
        json!({
            "proxy_value": placeholder, "match_headers": ["x-api-key"], "match_body": false, "match_path": false,
            "match_query": false, "require": false,
        })
    );
    let bound: Vec<_> = secrets[0]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| (rule["host"].clone(), rule["http_methods"].clone(), rule["paths"].clone()))
        .collect();
    assert_eq!(
        bound,
        [
            (
                json!("api.anthropic.com"),
                json!(["POST"]),
                json!(["/v1/messages", "/v1/messages/count_tokens"])
            ),
            (json!("api.anthropic.com"), json!(["GET"]), json!(["/v1/models/*"])),
        ]
    );

    let explain = |method: &str, path: &str| {
        let url = format!("https://api.anthropic.com{path}");
        control.says(&["explain", "--principal", "default", method, &url])
    };
    let asked = explain("POST", "/v1/messages?beta=true");
    assert!(asked.contains("forward") && asked.contains("ANTHROPIC_API_KEY"), "{asked}");
    assert!(explain("POST", "/v1/files").contains("refuse  path_not_allowed"));
    assert!(explain("GET", "/v1/organizations/api_keys").contains("refuse  path_not_allowed  by rule rqr_"));
    for shown in [first, again, secrets.to_string()] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn without_a_value_rules_are_added_and_the_next_step_is_told() {
    let control = control();

    let run = control.place().run(&["preset", "add", "openai", "npm"]);

    assert_eq!(lines(&run).len(), 4, "{run:?}");
    assert_eq!(
        run.stderr,
        "hint: `keyferry preset add openai --principal default --value-file FILE` adds its key, OPENAI_API_KEY\n"
    );
    assert_eq!(control.json(&["secret", "list"]), json!([]));

    control.says(&["preset", "add", "openai", "--value-file", "key.txt"]);
    control.says(&["principal", "add", "alice"]);
    let other = control.place().run(&["preset", "add", "openai", "--principal", "alice"]);
    assert!(other.stderr.starts_with("hint: `keyferry grant alice OPENAI_API_KEY` grants"), "{other:?}");
    assert!(control.place().run(&["preset", "add", "pypi"]).stderr.is_empty());
}

#[test]
fn what_a_preset_added_can_be_taken_back() {
    let control = control();
    control.says(&["preset", "add", "anthropic", "--value-file", "key.txt"]);
    let host = "https://api.anthropic.com";
    let paths = ["--path", "/v1/messages", "--path", "/v1/messages/count_tokens"];

    let one =
        control.says(&[&["allow", "default", host, "--method", "POST", "--remove"][..], &paths].concat());
    let run = control.place().run(&["preset", "add", "anthropic", "--remove"]);

    assert!(one.ends_with(": removed\n"), "{one}");
    let said: Vec<_> = lines(&run).iter().map(|line| line.rsplit(": ").next().unwrap().to_owned()).collect();
    assert_eq!(said, ["there is no such rule; nothing to do", "removed", "removed", "removed"]);
    assert_eq!(
        run.stderr,
        "hint: `keyferry revoke default ANTHROPIC_API_KEY` takes the key back, and with it what it may reach\n"
    );
    assert!(!control.says(&["principal", "show", "default"]).contains("allow POST"));
}

#[test]
fn a_wider_preset_binds_the_same_secret_to_more_under_the_same_placeholder() {
    let control = control();
    let placeholder = |text: &str| text.lines().last().unwrap().to_owned();
    let rules = || control.json(&["secret", "list"])[0]["rules"].as_array().unwrap().len();

    let read = control.says(&["preset", "add", "github-read", "--value-file", "key.txt"]);
    let narrow = rules();
    let hint = control.place().run(&["preset", "add", "github"]).stderr;
    let write = control.says(&["preset", "add", "github", "--value-file", "key.txt"]);

    assert_eq!(placeholder(&read), placeholder(&write));
    assert!(hint.contains("`keyferry preset add github --principal default --value-file FILE`"), "{hint}");
    assert!(rules() > narrow, "{narrow}");
}

#[test]
fn a_bundle_adds_all_rules_and_names_the_presets_that_want_keys() {
    let control = control();

    let run = control.place().run(&["preset", "add", "coding-agent"]);
    let refused = control.fails(&["preset", "add", "coding-agent", "--value-file", "key.txt"]);
    let keyless = control.fails(&["preset", "add", "npm", "--value-file", "key.txt"]);

    assert!(lines(&run).iter().all(|line| line.ends_with(": added")), "{run:?}");
    let wanted: Vec<_> = run.stderr.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
    assert_eq!(wanted, ["anthropic", "openai", "google-gemini", "github"]);
    let several = "error: coding-agent: 4 keys are needed, and one value is given\n\
        hint: give each with its own preset: anthropic, openai, google-gemini, github\n";
    assert_eq!(refused, (2, several.to_owned()));
    let none = "error: npm: no key is needed\nhint: leave out where its value is\n";
    assert_eq!(keyless, (2, none.to_owned()));
}

#[test]
fn a_role_gets_it_and_a_value_can_be_piped_or_left_to_the_proxy() {
    let control = control();
    let (code, unknown) = control.fails(&["preset", "add", "npm", "--role", "team-a"]);
    assert!(code == 1 && unknown.contains("there is no role \"team-a\""), "{unknown}");
    let to_role = control.says(&["preset", "add", "npm", "--role", "infra"]);
    assert!(
        to_role.starts_with("infra: allow GET,HEAD registry.npmjs.org ") && to_role.ends_with(": added\n"),
        "{to_role}"
    );

    let mut child = control
        .place()
        .command(&["preset", "add", "anthropic", "--ask", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"s3cret-of-the-owner").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["rules"].as_array().unwrap().len(), 4);
    assert_eq!(done["secret"]["source"]["source_type"], "control_plane");
    assert_eq!(done["grant"]["static_secret_id"], done["secret"]["id"]);

    let left = control.json(&["preset", "add", "openai", "--from-env", "OPENAI_API_KEY"]);
    assert_eq!(
        left["secret"]["source"],
        json!({ "source_type": "env", "config": { "var": "OPENAI_API_KEY" } })
    );
}

#[test]
fn a_secret_that_no_preset_made_is_left_alone_and_nothing_is_half_done() {
    let control = control();
    control.says(&["secret", "add", "OPENAI_API_KEY", "--host", "own.example", "--value-file", "key.txt"]);

    let (code, said) = control.fails(&["preset", "add", "openai", "--value-file", "key.txt"]);
    let (unread, missing) = control.fails(&["preset", "add", "anthropic", "--value-file", "nowhere.txt"]);

    assert!(code == 1 && said.contains("which no preset made") && said.contains("hint: "), "{said}");
    assert!(unread == 2 && missing.contains("nowhere.txt: cannot be read"), "{missing}");
    assert_eq!(control.json(&["secret", "list"])[0]["rules"][0]["host"], "own.example");
    assert!(!control.says(&["principal", "show", "default"]).contains("anthropic.com"));
    assert!(!control.says(&["principal", "show", "default"]).contains("openai.com"));
}
