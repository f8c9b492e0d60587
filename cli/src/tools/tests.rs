use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Field, Kind, find};

struct Roots(TempDir);

impl Roots {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn root(&self, name: &str) -> PathBuf {
        let root = self.0.path().join(name);
        fs::create_dir_all(&root).expect("a folder");
        root
    }

    fn tool(&self, path: &str, manifest: &str) {
        let folder = self.0.path().join(path);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("pyproject.toml"), manifest).expect("a manifest");
    }

    /// What is wrong with a tool whose only secret is this.
    fn fault(&self, secret: &str) -> String {
        self.tool("one/tools/x", &format!("[tool.centaur]\nsecrets = [\n  {secret},\n]\n"));
        let error = find(&[self.root("one/tools")], "x").expect_err(secret).to_string();
        error.rsplit_once("pyproject.toml").map_or(error.clone(), |(_, rest)| rest.to_owned())
    }
}

#[test]
fn a_tool_is_a_directory_with_a_manifest_at_most_one_category_deep_and_later_roots_win() {
    let roots = Roots::new();
    for (path, hosts) in [
        ("base/tools/github", "a"),
        ("base/tools/chat/slack", "b"),
        ("overlay/tools/github", "c"),
        ("base/tools/_hidden", "d"),
        ("base/tools/too/deep/down", "e"),
    ] {
        roots.tool(path, &format!("[tool.centaur]\nhosts = [\"{hosts}.example\"]\nsecrets = [\"TOKEN\"]\n"));
    }
    let both = [roots.root("base/tools"), roots.root("overlay/tools")];
    let github = find(&both, "github").expect("a tool");
    assert_eq!((github.overlay.as_str(), github.name.as_str()), ("overlay", "github"));
    assert_eq!(find(&both[..1], "github").expect("a tool").overlay, "base");
    assert_eq!(find(&both, "slack").expect("a tool").secrets[0].name, "TOKEN");
    for missing in ["_hidden", "down", "too", "nothing"] {
        let error = find(&both, missing).expect_err(missing).to_string();
        assert!(error.starts_with(&format!("there is no tool {missing:?} in ")), "{error}");
    }
    assert!(find(&[], "github").expect_err("no roots").to_string().contains("TOOL_DIRS"));
    roots.tool("base/tools/other/github", "");
    assert!(find(&both, "github").expect_err("two").to_string().contains("are both a tool \"github\""));
    roots.tool("base/tools/persona", "[tool.centaur]\ntype = \"persona\"\n");
    assert!(find(&both, "persona").expect_err("a persona").to_string().ends_with("is a persona, not a tool"));
    roots.tool("base/tools/plain", "[project]\nname = \"plain\"\n");
    assert!(find(&both, "plain").expect("a tool").secrets.is_empty());
}

#[test]
fn a_complaint_names_file_line_and_key() {
    let roots = Roots::new();
    for (secret, expected) in [
        ("\"TOKEN\"", ":3: secret \"TOKEN\": [tool.centaur] names no hosts that it may go to"),
        ("7", ":3: a secret must be a table, not a integer"),
        ("{ type = \"http\" }", ":3: a secret: name is missing"),
        (
            "{ name = \"X\", type = \"ftp\" }",
            ":3: secret \"X\": type must be one of http, header, oauth_token, gcp_auth, gcp_id_token, pg_dsn, hmac_sign, brokered_token, aws_auth, not \"ftp\"",
        ),
        ("{ name = \"X\", match_headers = [\"A\"] }", ":3: secret \"X\": hosts is missing: where may it go?"),
        (
            "{ name = \"X\", match_headers = [\"A\"], hosts = [] }",
            ":3: secret \"X\": hosts must name at least one host",
        ),
        (
            "{ name = \"X\", hosts = [\"a\"] }",
            ":3: secret \"X\": say where it is looked for: match_headers, match_path or match_query",
        ),
        (
            "{ name = \"X\", hosts = [\"a\"], inject_header = \"A\" }",
            ":3: secret \"X\": inject_header is not for mode \"replace\"",
        ),
        (
            "{ name = \"X\", hosts = [\"a\"], mode = \"inject\", replacer = \"A\" }",
            ":3: secret \"X\": replacer is not for mode \"inject\"",
        ),
        (
            "{ name = \"X\", hosts = [\"a\"], mode = \"inject\" }",
            ":3: secret \"X\": give one of inject_header and inject_query_param",
        ),
        (
            "{ name = \"X\", hosts = [\"a\"], match_path = \"yes\" }",
            ":3: secret \"X\": match_path must be true or false",
        ),
        (
            "{ name = \"X\", hosts = [\"a\", 1], match_path = true }",
            ":3: secret \"X\": hosts must be a list of texts that are not empty",
        ),
        (
            "{ name = \"X\", type = \"oauth_token\", grant = \"magic\" }",
            ":3: secret \"X\": grant must be one of refresh_token, client_credentials, password, jwt_bearer, not \"magic\"",
        ),
        (
            "{ name = \"X\", type = \"oauth_token\", grant = \"client_credentials\", hosts = [\"a\"], token_endpoint = \"https://a\", fields = { client_id = \"A\" } }",
            ":3: secret \"X\": fields lacks \"client_secret\", which grant \"client_credentials\" needs",
        ),
        (
            "{ name = \"X\", type = \"oauth_token\", grant = \"client_credentials\", hosts = [\"a\"], token_endpoint = \"https://a\", fields = { client_id = \"A\", client_secret = \"B\", username = \"C\" } }",
            ":3: secret \"X\": fields has \"username\", which grant \"client_credentials\" does not take",
        ),
        (
            "{ name = \"X\", type = \"gcp_id_token\", hosts = [\"a\"], audience = \"b\", header = \"X-Other\" }",
            ":3: secret \"X\": header must be authorization or x-serverless-authorization",
        ),
        ("{ name = \"X\", type = \"pg_dsn\" }", ":3: secret \"X\": database is missing"),
        (
            "{ name = \"X\", type = \"pg_dsn\", database = \"d\", settings = [{ name = \"a.b\" }] }",
            ":3: setting \"a.b\": give one of value and value_from",
        ),
        (
            "{ name = \"X\", type = \"hmac_sign\", hosts = [\"a\"], credentials = { key = \"A\" } }",
            ":3: secret \"X\": credentials lacks \"secret\", the key that signs",
        ),
        (
            "{ name = \"X\", type = \"aws_auth\", hosts = [\"a\"], access_key_id = \"A\" }",
            ":3: secret \"X\": secret_access_key is missing",
        ),
        (
            "{ name = \"X\", match_path = true, hosts = [\"a\"] }, { name = \"X\", match_path = true, hosts = [\"a\"] }",
            ":3: secret \"X\" is declared twice",
        ),
        ("{ name = }", ":3: invalid literal string, expected `'`"),
    ] {
        assert_eq!(roots.fault(secret), expected, "{secret}");
    }
}

#[test]
fn what_is_not_known_is_said_and_what_a_broker_once_needed_is_not() {
    let roots = Roots::new();
    roots.tool(
        "tools/x",
        "[tool.centaur]\nhosts = [\"a.example\"]\nsecrets = [\n  { name = \"A\", match_headers = [\"X\"], match_header = [\"Y\"] },\n  \
         { name = \"B\", type = \"brokered_token\", token_endpoint = \"https://a.example\" },\n]\n",
    );
    let tool = find(&[roots.root("tools")], "x").expect("a tool");
    let warnings: Vec<_> = tool
        .warnings
        .iter()
        .filter_map(|it| it.rsplit_once("pyproject.toml"))
        .map(|(_, rest)| rest)
        .collect();
    assert_eq!(warnings, [":4: secret \"A\": match_header is not known and is ignored"]);
}

#[test]
fn a_field_is_a_name_or_a_key_of_what_the_name_holds() {
    let roots = Roots::new();
    roots.tool(
        "tools/x",
        "[[tool.centaur.secrets]]\nname = \"A\"\ntype = \"aws_auth\"\nhosts = [\"*.amazonaws.com\"]\naccess_key_id = \"ID\"\n\
         secret_access_key = { secret_ref = \"KEY\", json_key = \"key\" }\n",
    );
    let tool = find(&[roots.root("tools")], "x").expect("a tool");
    let Kind::AwsAuth { access_key_id, secret_access_key, .. } = &tool.secrets[0].kind else {
        panic!("{tool:?}")
    };
    assert_eq!(access_key_id, &Field { value: "ID".into(), json_key: None });
    assert_eq!(secret_access_key, &Field { value: "KEY".into(), json_key: Some("key".into()) });
}
