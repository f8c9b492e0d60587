use super::*;

fn placeholder(name: Option<&str>, foreign_id: &str, value: &str) -> Granted {
    Granted {
        name: name.map(str::to_owned),
        foreign_id: foreign_id.to_owned(),
        shown: Shown::Placeholder(value.to_owned()),
    }
}

fn made(request: &Request) -> BTreeMap<String, String> {
    let environment = Environment::new(request).unwrap();
    environment.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn text(text: &OsStr) -> String {
    text.to_str().unwrap().to_owned()
}

#[test]
fn a_sandbox_that_asks_for_nothing_has_exactly_this() {
    let ca = "/etc/ssl/certs/ca-certificates.crt";
    let proxy = "http://127.0.0.1:3128";
    let direct = "localhost,127.0.0.1,::1";
    let java = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128 -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 \
                -Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1] -Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts \
                -Djavax.net.ssl.trustStorePassword=changeit";
    let expected = [
        ("AWS_CA_BUNDLE", ca),
        ("BUNDLE_SSL_CA_CERT", ca),
        ("CARGO_HTTP_CAINFO", ca),
        ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", ca),
        ("CODEX_CA_CERTIFICATE", ca),
        ("CURL_CA_BUNDLE", ca),
        ("DENO_CERT", ca),
        ("GIT_SSL_CAINFO", ca),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", ca),
        ("HOME", "/home/agent"),
        ("HTTPS_PROXY", proxy),
        ("HTTP_PROXY", proxy),
        ("JAVA_TOOL_OPTIONS", java),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "agent"),
        ("NODE_EXTRA_CA_CERTS", ca),
        ("NODE_USE_ENV_PROXY", "1"),
        ("NO_PROXY", direct),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("PIP_CERT", ca),
        ("REQUESTS_CA_BUNDLE", ca),
        ("SHELL", "/bin/sh"),
        ("SSL_CERT_FILE", ca),
        ("TERM", "dumb"),
        ("TMPDIR", "/tmp"),
        ("USER", "agent"),
        ("http_proxy", proxy),
        ("https_proxy", proxy),
        ("no_proxy", direct),
        ("npm_config_cafile", ca),
    ];
    let expected: BTreeMap<String, String> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(made(&Request::default()), expected);
}

#[test]
fn a_secret_is_called_by_its_name_or_its_placeholder_or_its_foreign_id() {
    for (secret, variable) in [
        (placeholder(Some("OPENAI_API_KEY"), "openai", "kf_1"), "OPENAI_API_KEY"),
        (placeholder(Some("OpenAI key"), "openai", "OPENAI_KEY"), "OPENAI_KEY"),
        (placeholder(None, "openai", "OPENAI_KEY"), "OPENAI_KEY"),
        (placeholder(Some("9lives"), "open-ai.key", "sk-1"), "OPEN_AI_KEY"),
        (placeholder(None, "9lives", "sk-1"), "_9LIVES"),
        (placeholder(None, "openai", "kf_0123456789abcdef0123456789abcdef"), "OPENAI"),
        (placeholder(Some(""), "", ""), "_"),
        (Granted { name: None, foreign_id: "gh token".to_owned(), shown: Shown::Dummy }, "GH_TOKEN"),
    ] {
        assert_eq!(secret.variable(), variable, "{secret:?}");
    }
}

#[test]
fn ours_comes_before_secrets_the_first_of_two_counts_and_what_was_asked_for_wins() {
    let request = Request {
        terminal: Some("xterm".into()),
        language: Some("de_CH.UTF-8".into()),
        secrets: vec![
            placeholder(Some("KEY"), "a", "first"),
            placeholder(Some("KEY"), "b", "second"),
            placeholder(Some("HTTPS_PROXY"), "c", "http://elsewhere"),
            placeholder(Some("ASKED"), "d", "placeholder"),
        ],
        asked: vec![("ASKED".into(), "own=value".into())],
    };
    let seen = made(&request);
    let shown = ["KEY", "HTTPS_PROXY", "ASKED", "TERM", "LANG"].map(|name| seen[name].as_str());
    assert_eq!(shown, ["first", "http://127.0.0.1:3128", "own=value", "xterm", "de_CH.UTF-8"]);
}

#[test]
fn what_cannot_be_a_variable_is_refused() {
    let asked = |name: &str, value: &str| {
        Environment::new(&Request { asked: vec![(name.into(), value.into())], ..Request::default() })
    };
    for (name, value) in [("", "x"), ("A=B", "x"), ("A B", "x"), ("1A", "x"), ("A\0", "x"), ("A", "x\0y")] {
        assert!(matches!(asked(name, value), Err(Error::Variable { .. })), "{name:?}={value:?}");
    }
    assert!(asked("A", "x\ny").is_ok());
}

#[test]
fn a_key_that_is_injected_has_the_shape_of_its_service() {
    for (variable, prefix, length) in [
        ("OPENAI_API_KEY", "sk-proj-", 56),
        ("ANTHROPIC_API_KEY", "sk-ant-api03-", 108),
        ("ANTHROPIC_AUTH_TOKEN", "sk-ant-oat01-", 108),
        ("GEMINI_API_KEY", "AIzaSy", 39),
        ("GITHUB_TOKEN", "ghp_", 40),
        ("SLACK_BOT_TOKEN", "xoxb-", 55),
        ("AWS_ACCESS_KEY_ID", "AKIA", 20),
        ("AWS_SECRET_ACCESS_KEY", "", 40),
        ("SOMETHING_ELSE", "", 40),
    ] {
        let value = dummy::shaped_like(variable);
        assert!(value.starts_with(prefix), "{variable}: {value}");
        assert_eq!(value.len(), length, "{variable}: {value}");
    }
    let id = dummy::shaped_like("AWS_ACCESS_KEY_ID");
    assert!(id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{id}");
}

#[test]
fn directories_are_found_first_unless_a_path_was_asked_for() {
    let mut ours = Environment::new(&Request::default()).unwrap();
    ours.find_programs_in(&["/opt/tool/bin".to_owned()]);
    assert_eq!(ours.get("PATH").unwrap(), "/opt/tool/bin:/usr/local/bin:/usr/bin:/bin");
    let asked = Request { asked: vec![("PATH".into(), "/usr/bin".into())], ..Request::default() };
    let mut theirs = Environment::new(&asked).unwrap();
    theirs.find_programs_in(&["/opt/tool/bin".to_owned()]);
    assert_eq!(theirs.get("PATH").unwrap(), "/usr/bin");
}
