//! The table of clients, line by line: each does its job in a sandbox in which nothing is set but what its line says, and
//! tells its user why a host is refused.

use std::process::Command;

use keyferry_tests::clients::{Client, Credentials, Package, Run, Service, Setting};
use keyferry_tests::git_server::GitServer;
use keyferry_tests::npm_registry;
use keyferry_tests::origin::{Origin, SAID, SERVICES};
use keyferry_tests::package_index::PackageIndex;
use keyferry_tests::parts;
use keyferry_tests::proxy::Proxy;
use keyferry_tests::sandbox::{Ran, Sandbox};
use serde_json::Value;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const HOST: &str = "api.example";
const PLACEHOLDER: &str = "SERVICE_TOKEN";
const REAL: &str = "real-0123456789";

const POLICY: &str = r#"
transforms:
  - { name: allowlist, config: { domains: [api.example] } }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: SERVICE_TOKEN }
          replace: { proxy_value: SERVICE_TOKEN, match_headers: [Authorization, X-Api-Key] }
          rules: [{ host: api.example }]
"#;

macro_rules! clients {
    ($($test:ident: $client:ident,)*) => {
        const TESTED: &[Client] = &[$(keyferry_tests::clients::$client),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                hold(&keyferry_tests::clients::$client).await;
            }
        )*
    };
}

clients! {
    curl: CURL,
    wget: WGET,
    git: GIT,
    gh: GH,
    pip: PIP,
    uv: UV,
    npm: NPM,
    python_requests: REQUESTS,
    python_httpx: HTTPX,
    python_httpx_over_http2: HTTPX_H2,
    python_urllib: URLLIB,
    python_aiohttp: AIOHTTP,
    python_openai: OPENAI,
    python_anthropic: ANTHROPIC,
    python_slack_sdk: SLACK,
    python_google_auth: GOOGLE_AUTH,
    python_boto3: BOTO3,
    node_fetch: NODE_FETCH,
    node_undici: UNDICI,
    node_axios: AXIOS,
    node_openai: OPENAI_NODE,
    node_anthropic: ANTHROPIC_NODE,
    java_http_client: JAVA,
    ruby_net_http: RUBY,
    php_curl: PHP,
}

async fn hold(client: &Client) {
    let server = Server::start(&client.service).await;
    let proxy = Proxy::builder(KEYFERRY)
        .policy(POLICY)
        .env("SERVICE_TOKEN", REAL)
        .auth("sandbox", "let-me-out")
        .route(server.origin())
        .start()
        .await;

    let output = run(client, &sandbox(client, &proxy, true), &server.url()).await.success();
    server.assert_served(client, &output);
    let served = server.origin().connections();

    if client.needs.iter().any(|setting| matches!(setting, Setting::Trust(_))) {
        let without = run(client, &sandbox(client, &proxy, false), &server.url()).await;
        assert!(!without.status.success(), "it trusts whoever comes: {without:?}");
    }

    let elsewhere = server.url().replace(HOST, "other.example");
    let said = run(client, &sandbox(client, &proxy, true), &elsewhere).await.failure();
    assert!(said.contains(client.refused), "its user does not read {:?}:\n{said}", client.refused);

    assert_eq!(server.origin().connections(), served);
    let ended = proxy.stop().await;
    ended.assert_never_wrote(REAL);
    assert_records(client, &ended.records());
}

fn assert_records(client: &Client, records: &[Value]) {
    let of = |key: &str, value: &str| -> Vec<&Value> {
        records.iter().map(|record| &record["audit"]).filter(|audit| audit[key] == value).collect()
    };
    let allowed = of("action", "allow");
    assert!(allowed.iter().all(|audit| audit["client_protocol"] == client.speaks), "{allowed:#?}");
    let mut connections: Vec<_> =
        allowed.iter().map(|audit| audit["remote_addr"].as_str().expect("an address")).collect();
    connections.sort_unstable();
    connections.dedup();
    assert!(!client.keeps || connections.len() < allowed.len(), "a connection for each: {allowed:#?}");
    let asked = if of("reason", "proxy_auth_required").is_empty() {
        Credentials::AtOnce
    } else {
        Credentials::WhenAsked
    };
    assert_eq!(asked, client.credentials);
    assert!(!of("reason", "host_not_allowed").is_empty(), "{records:#?}");
}

/// What a client talks to.
enum Server {
    Api(Origin),
    Registry(Origin),
    Git(GitServer),
    PackageIndex(PackageIndex),
}

impl Server {
    async fn start(service: &Service) -> Self {
        match service {
            Service::Api(_) => Self::Api(Origin::start(HOST).await),
            Service::Registry => Self::Registry(npm_registry::start(HOST, REAL).await),
            Service::Git => Self::Git(GitServer::start(HOST, "git", REAL).await),
            Service::PackageIndex => Self::PackageIndex(PackageIndex::start(HOST, "reader", REAL).await),
        }
    }

    fn origin(&self) -> &Origin {
        match self {
            Self::Api(origin) | Self::Registry(origin) => origin,
            Self::Git(server) => &server.origin,
            Self::PackageIndex(index) => &index.origin,
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Api(origin) => origin.url(SERVICES),
            Self::Registry(origin) => origin.url(""),
            Self::Git(server) => server.url("git", PLACEHOLDER),
            Self::PackageIndex(index) => index.url("reader", PLACEHOLDER),
        }
    }

    /// The key arrived as it is, and did not come back. The other services answer nobody else.
    fn assert_served(&self, client: &Client, output: &str) {
        let Service::Api(header) = client.service else { return };
        let received = self.origin().received();
        assert!(!received.is_empty(), "nothing arrived");
        for request in &received {
            assert!(request.header(header).is_some_and(|value| value.contains(REAL)), "{request:#?}");
            assert_eq!(request.header("proxy-authorization"), None);
        }
        assert!(!output.contains(REAL), "{output}");
        assert!(output.contains(SAID) || output.contains(PLACEHOLDER), "it did not get its answer: {output}");
    }
}

async fn run(client: &Client, sandbox: &Sandbox, url: &str) -> Ran {
    let words = (client.command)(&Run { sandbox, url, key: PLACEHOLDER });
    let (program, arguments) = words.split_first().expect("a program");
    sandbox.run(program, arguments).await
}

/// A sandbox with what the client's line says and nothing else; the authority is left out unless it is to be trusted.
fn sandbox(client: &Client, proxy: &Proxy, trusting: bool) -> Sandbox {
    let ca = proxy.ca_certificate();
    let sandbox = Sandbox::without_proxy().with_ca(&ca);
    client.needs.iter().fold(sandbox, |sandbox, setting| match setting {
        Setting::Proxy(name) => sandbox.env(name, proxy.url()),
        Setting::Trust(name) if trusting => sandbox.env(name, &ca),
        Setting::Trust(_) | Setting::TrustSwitch(_) => sandbox,
        Setting::Fixed(name, value) => sandbox.env(name, value),
        Setting::JavaToolOptions => java(sandbox, proxy),
    })
}

fn java(sandbox: Sandbox, proxy: &Proxy) -> Sandbox {
    let store = sandbox.home().join("trust.p12");
    let made = Command::new(parts::command("keytool"))
        .args(["-importcert", "-noprompt", "-alias", "keyferry", "-storepass", "changeit", "-file"])
        .arg(proxy.ca_certificate())
        .arg("-keystore")
        .arg(&store)
        .output()
        .expect("run keytool");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    let options = format!(
        "-Dhttps.proxyHost={} -Dhttps.proxyPort={} -Dhttps.proxyUser=sandbox -Dhttps.proxyPassword=let-me-out \
         -Djdk.http.auth.tunneling.disabledSchemes= -Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStorePassword=changeit",
        proxy.address().ip(),
        proxy.address().port(),
        store.display(),
    );
    sandbox.env("JAVA_TOOL_OPTIONS", options)
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/clients.md");

const BEFORE: &str = "\
# Clients

Each of these is run against every change of keyferry, from an empty environment in which nothing is set but what its line names. It does
its job with a placeholder as its key, and the service sees the real one. Without the file with the authority it trusts nobody. Where
a host is not allowed, its user reads what the line says; where that is no more than 403, the reason is in the
[audit record](audit.md).

How to set up a sandbox for all of them at once is in [sandboxes.md](sandboxes.md#the-environment).

`407` means that the client shows its password for the proxy only after it was asked: keyferry asks with an empty body and keeps the
connection, so both kinds work. `kept` means that its requests shared a connection to the proxy.

| client | version | needs | password | HTTP | where a host is refused | remarks |
|---|---|---|---|---|---|---|
";

const AFTER: &str = "
In `JAVA_TOOL_OPTIONS` stand `-Dhttps.proxyHost`, `-Dhttps.proxyPort`, `-Djavax.net.ssl.trustStore` with a store that `keytool -importcert` made, and
`-Djdk.http.auth.tunneling.disabledSchemes=`, without which Java shows no password to a proxy.

Beside the table, tests drive a clone and a push of git, gRPC by Python's grpcio (lower-case `https_proxy`, `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`), a
WebSocket by Python's websockets, and `openssl s_client`. Coding agents do whole turns:

| agent | version | needs | its key | remarks |
|---|---|---|---|---|
| Claude Code | 2.1.197 | `HTTPS_PROXY`, `NODE_EXTRA_CA_CERTS` or `SSL_CERT_FILE` | `ANTHROPIC_API_KEY` | [recipe](recipes/claude-code.md); without the CA it retries in silence |
| Codex | 0.169.0 | `HTTPS_PROXY`, `SSL_CERT_FILE` or `CODEX_CA_CERTIFICATE` | `CODEX_API_KEY` | [recipe](recipes/codex.md); asks over WebSocket first; shows its key to chatgpt.com, too |
| Gemini CLI | 0.61.0 | `HTTPS_PROXY`, `NODE_EXTRA_CA_CERTS` | `GEMINI_API_KEY` | [recipe](recipes/gemini-cli.md) |
| pi | 0.73.1 | `HTTPS_PROXY`, `NODE_EXTRA_CA_CERTS` | `ANTHROPIC_API_KEY` and others | [recipe](recipes/pi.md) |

## Others

What these do with any proxy that ends TLS, in their versions of 2026. They are not in the tests.

| client | password | trusts by | remarks |
|---|---|---|---|
| Go programs | at once | `SSL_CERT_FILE` | as gh, above |
| kubectl | at once | `certificate-authority` in its kubeconfig | |
| gcloud | at once | `CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE` | `CLOUDSDK_AUTH_ACCESS_TOKEN` takes a placeholder |
| aws CLI | at once | `AWS_CA_BUNDLE` | as boto3, above |
| Node fetch before 24 | – | – | ignores the proxy |
";

#[test]
fn the_page_tells_every_client() {
    let page = [BEFORE, TESTED.iter().map(line).collect::<String>().as_str(), AFTER].concat();
    if std::env::var_os("KEYFERRY_REGENERATE").is_some() {
        std::fs::write(PAGE, &page).expect("write the page");
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/clients.md is stale: run this test with KEYFERRY_REGENERATE=1 and commit the page"
    );
}

fn line(client: &Client) -> String {
    let needs: Vec<_> = client
        .needs
        .iter()
        .map(|setting| match setting {
            Setting::Proxy(name) | Setting::Trust(name) | Setting::TrustSwitch(name) => format!("`{name}`"),
            Setting::Fixed(name, value) => format!("`{name}={value}`"),
            Setting::JavaToolOptions => "`JAVA_TOOL_OPTIONS`".to_owned(),
        })
        .collect();
    let password = match client.credentials {
        Credentials::AtOnce => "at once",
        Credentials::WhenAsked => "407",
    };
    let protocol = if client.speaks == "h2" { "2" } else { "1.1" };
    format!(
        "| {} | {} | {} | {password} | {protocol}{} | `{}` | {} |\n",
        client.name,
        version(&client.from),
        needs.join(", "),
        if client.keeps { ", kept" } else { "" },
        client.refused,
        client.remarks,
    )
}

/// As it is pinned; of the system's clients, those of whichever system runs the tests.
fn version(package: &Package) -> String {
    match package {
        Package::Debian => "Debian 12".to_owned(),
        Package::PyPi(name) => {
            let pins = include_str!("../requirements.txt");
            let pin = pins.lines().find_map(|line| line.strip_prefix(&format!("{name}==")));
            pin.unwrap_or_else(|| panic!("{name} is not pinned")).to_owned()
        }
        Package::Npm(name) => {
            let manifest: Value = serde_json::from_str(include_str!("../node/package.json")).expect("JSON");
            let pin =
                ["dependencies", "optionalDependencies"].iter().find_map(|key| manifest[key][name].as_str());
            pin.unwrap_or_else(|| panic!("{name} is not pinned")).to_owned()
        }
    }
}
