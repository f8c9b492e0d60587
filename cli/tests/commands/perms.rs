//! `keyferry perms` against a real control service, with tools of every kind.

use std::path::Path;

use serde_json::{Value, json};

use crate::control_service::ControlService;

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools");
const THREAD: &str = "slack:T123:C456:1780000000.0001";

fn id(text: &str, prefix: &str) -> String {
    let start = text.find(prefix).unwrap_or_else(|| panic!("no {prefix} in {text}"));
    text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn secret(control: &ControlService, name: &str) -> Value {
    let mut shown = control.json(&["perms", "secrets", "show", name]);
    for key in ["id", "created_at", "updated_at", "labels"] {
        shown.as_object_mut().unwrap().remove(key);
    }
    shown
}

#[test]
fn a_tool_of_every_kind_is_registered_granted_and_assigned_and_again_nothing_changes() {
    let control = ControlService::start();
    let grant = ["perms", "--tools-dir", TOOLS, "principals", "grant", THREAD, "--tool", "every"];

    let first = control.says(&grant);
    let (principal, role) = (id(&first, "prn_"), id(&first, "role_"));
    let line = |said: &str| {
        format!(
            "principal: slack-channel-t123-c456 ({principal})\n  tool every (from {TOOLS}/every): role tool-every ({role}) — \
             10 secret(s) registered, role {said}\n"
        )
    };
    assert_eq!(first, line("assigned"));
    let before = control.json(&["perms", "secrets", "list", "--managed"]);
    assert_eq!(control.says(&grant), line("already assigned"));
    let after = control.json(&["perms", "secrets", "list", "--managed"]);
    let names = |list: &Value| {
        let names = list.as_array().unwrap().iter();
        names
            .map(|it| format!("{} {}", it["kind"].as_str().unwrap(), it["foreign_id"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    assert_eq!(
        names(&after),
        [
            "aws_auth tool-every-aws-aws",
            "static tool-every-bare-token",
            "gcp_auth tool-every-gcp-gcp",
            "gcp_id_token tool-every-gcp-id-token-gcp-id",
            "hmac tool-every-hmac-signed",
            "static tool-every-http-token",
            "static tool-every-injected",
            "oauth_token tool-every-oauth-https-oauth-example-com-token",
            "oauth_token tool-every-oauth-https-oauth-example-com-token-2",
            "pg_dsn warehouse",
        ]
    );
    let overlay = Path::new(TOOLS).parent().unwrap().file_name().unwrap();
    assert_eq!(
        after[0]["labels"],
        json!({ "managed-by": "centaur", "tool": "every", "overlay": overlay.to_str().unwrap() })
    );

    let http = secret(&control, "tool-every-http-token");
    assert_eq!(http["replace_config"]["proxy_value"], "HTTP_PLACEHOLDER");
    assert_eq!(http["source"], json!({ "source_type": "env", "config": { "var": "OTHER_NAME" } }));
    assert_eq!(http["rules"][0]["host"], "http.example.com");
    let oauth = secret(&control, "tool-every-oauth-https-oauth-example-com-token");
    assert_eq!(oauth["credentials"]["client_id"]["config"], json!({ "var": "CLIENT", "json_key": "id" }));
    let pg = secret(&control, "warehouse");
    assert_eq!((&pg["database"], &pg["role"]), (&json!("warehouse"), &json!("reader")));
    assert_eq!(pg["settings"][1]["value_from"], json!({ "principal_label": "slack_user_id" }));

    let shown = control.says(&["perms", "principals", "show", THREAD]);
    for expected in [
        "principal: slack-channel-t123-c456 (",
        ") — Slack Channel C456 (team T123)\nroles:\n",
        &format!("  tool-every ({role})\n    grants "),
        "\ndirect grants: (none)\neffective replace-secrets:\n",
        "  BARE_TOKEN\n",
        "  HTTP_PLACEHOLDER",
    ] {
        assert!(shown.contains(expected), "{expected:?} in {shown}");
    }

    let revoke = ["perms", "principals", "revoke", THREAD, "--tool", "every"];
    let head = format!("principal: slack-channel-t123-c456 ({principal})\n");
    assert_eq!(control.says(&revoke), format!("{head}  every: role tool-every unassigned\n"));
    assert_eq!(
        control.says(&revoke),
        format!("{head}  every: role tool-every was not assigned — nothing to do\n")
    );
}

#[test]
fn where_values_are_is_a_policy_of_the_whole_registration() {
    let control = ControlService::start();
    let run = |policy: &[&str]| {
        let grant = [
            "perms",
            "--tools-dir",
            TOOLS,
            "roles",
            "grant",
            "team-a",
            "--tool",
            "every",
            "--secret-name",
            "OAUTH",
        ];
        control.place().run(&[&grant[..], policy].concat())
    };
    let missing = run(&["--source-policy", "onepassword"]);
    assert!(missing.exit_code == 2 && missing.stderr.contains("--op-vault"), "{missing:?}");
    let unknown = run(&["--secret-name", "NOTHING"]);
    assert!(
        unknown.exit_code == 2 && unknown.stderr.contains("hint: it declares BARE_TOKEN, "),
        "{unknown:?}"
    );
    let registered = run(&["--source-policy", "onepassword-connect", "--op-vault", "agents"]);
    assert_eq!(registered.exit_code, 0, "{registered:?}");
    assert!(registered.stdout.contains("1 secret(s) registered and granted to team-a\n"), "{registered:?}");
    assert!(
        registered.stderr.contains("values of every: onepassword-connect: vault agents"),
        "{registered:?}"
    );
    let oauth = secret(&control, "tool-every-oauth-https-oauth-example-com-token");
    assert_eq!(
        oauth["credentials"]["client_id"],
        json!({
            "source_type": "1password_connect",
            "config": { "secret_ref": "op://agents/CLIENT/credential", "ttl": "10m", "json_key": "id" },
        })
    );
}

#[test]
fn roles_and_secrets_are_granted_and_revoked_by_id_as_often_as_one_likes() {
    let control = ControlService::start();
    assert_eq!(
        control.says(&["perms", "principals", "list"]),
        "no principals found in namespace \"default\"\n"
    );
    let added =
        control.json(&["secret", "add", "github", "--host", "a.example", "--header", "x", "--from-env", "T"]);
    let secret = added["id"].as_str().unwrap();
    let grant = ["perms", "principals", "grant", "alice", "--role", "infra", "--secret", secret];

    let first = control.says(&grant);
    let grant_id = id(&first, "grant_");
    assert!(
        first.contains("  role infra (role_") && first.contains("): already assigned\n"),
        "the default role: {first}"
    );
    assert!(first.ends_with(&format!("  secret {secret}: granted ({grant_id})\n")), "{first}");
    assert!(control.says(&grant).ends_with(&format!("  secret {secret}: already granted ({grant_id})\n")));
    let listed = control.says(&["perms", "principals", "list", "--managed", "--filter", "ALI"]);
    assert!(listed.starts_with("alice  prn_") && listed.ends_with("  alice\n(1 principal(s))\n"), "{listed}");
    assert!(control.says(&["perms", "principals", "list", "--filter", "bob"]).starts_with("no principals"));

    let by_id = ["perms", "principals", "revoke", "alice", "--grant-id", &grant_id];
    assert!(control.says(&by_id).ends_with(&format!("  grant {grant_id}: revoked\n")));
    assert!(
        control
            .says(&by_id)
            .ends_with(&format!("  grant {grant_id}: no grant of this principal — nothing to do\n"))
    );
    let by_secret = control.says(&["perms", "principals", "revoke", "alice", "--secret", secret]);
    assert!(by_secret.ends_with(": no direct grant on this principal — nothing to do\n"), "{by_secret}");

    assert!(
        control.says(&["perms", "roles", "grant", "infra", "--secret", secret]).contains(": granted (grant_")
    );
    let shown = control.says(&["perms", "roles", "show", "infra"]);
    assert!(
        shown.contains("role: infra (role_")
            && shown.contains(&format!("  static github ({secret}) (grant grant_")),
        "{shown}"
    );
    assert!(control.says(&["perms", "roles", "revoke", "infra", "--secret", secret]).contains(" revoked\n"));
    let again = control.says(&["perms", "roles", "revoke", "infra", "--secret", secret]);
    assert!(again.ends_with(": not granted to this role — nothing to do\n"), "{again}");
    assert!(control.says(&["perms", "roles", "list"]).ends_with("(1 role(s))\n"));
    let secrets = control.says(&["perms", "secrets", "list"]);
    assert_eq!(secrets, format!("static  github  {secret}\n(1 secret(s))\n"));
    assert!(
        control
            .says(&["perms", "secrets", "show", "github"])
            .starts_with("secret: github (type static)\n{\n")
    );
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let control = ControlService::start();
    for (arguments, said) in [
        (&["principals", "grant", "alice"][..], "there is nothing to grant"),
        (
            &["principals", "grant", "alice", "--grant-id", "grant_x"],
            "--grant-id is for `principals revoke` alone",
        ),
        (&["principals", "revoke", "alice"], "there is nothing to revoke"),
        (&["principals", "grant", "alice", "--tool", "every"], "no directory of tools is named"),
        (
            &["--tools-dir", TOOLS, "principals", "grant", "alice", "--tool", "nothing"],
            "there is no tool \"nothing\"",
        ),
        (&["roles", "grant", "infra"], "there is nothing to grant"),
        (
            &["broker", "create", "--foreign-id", "models", "--client-secret", "x"],
            "this version has no token broker",
        ),
        (&["broker", "list"], "this version has no token broker"),
    ] {
        let (code, stderr) = control.fails(&[&["perms"], arguments].concat());
        assert!(code == 2 && stderr.contains(said), "{arguments:?}: {stderr}");
    }
    let (code, stderr) = control.fails(&["perms", "principals", "show", "alice"]);
    assert!(code == 1 && stderr.contains("there is no principal \"alice\""), "{stderr}");
    assert_eq!(control.json(&["principal", "list"]), json!([]));

    let brokered = ["perms", "--tools-dir", TOOLS, "roles", "grant", "models", "--tool", "brokered"];
    let run = control.place().run(&brokered);
    assert_eq!(run.exit_code, 1);
    assert!(run.stderr.contains("secret \"MODELS_TOKEN\" of tool brokered: control says 422"), "{run:?}");
    assert!(run.stderr.contains("credential_id names no broker credential"), "{run:?}");
}

#[test]
fn tools_are_found_through_the_environment_too() {
    let control = ControlService::start();
    let mut command = control.place().command(&["perms", "principals", "grant", "alice", "--tool", "github"]);
    let output = command.env("TOOL_DIRS", format!(" :{TOOLS}")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let effective = control.json(&["perms", "principals", "show", "alice"]);
    assert_eq!(effective["placeholders"], json!(["GITHUB_TOKEN"]));
}
