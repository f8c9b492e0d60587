//! The variables of a sandbox: nothing is inherited, and no value of a secret is among them.

mod dummy;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::layout;

/// All variables that a command sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(OsString, OsString)>", into = "Vec<(OsString, OsString)>")]
pub struct Environment(BTreeMap<OsString, OsString>);

/// What goes into an [`Environment`].
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `TERM` of the caller.
    pub terminal: Option<OsString>,
    /// `LANG` of the caller.
    pub language: Option<OsString>,
    /// What the principal was granted, the more important first.
    pub secrets: Vec<Granted>,
    /// What was asked for by name and value. It wins over everything else.
    pub asked: Vec<(OsString, OsString)>,
}

/// A granted secret, as a sandbox may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What it is called by whoever made it.
    pub foreign_id: String,
    /// What stands in its place.
    pub shown: Shown,
}

/// What a sandbox holds instead of a secret's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The placeholder (`proxy_value`) that the proxy swaps.
    Placeholder(String),
    /// The proxy injects the value whatever the client sends. Some clients do not start without a key, so they get one that looks
    /// like theirs and opens nothing.
    Dummy,
}

impl Environment {
    /// Makes the environment of a sandbox.
    ///
    /// # Errors
    /// When a variable that was asked for cannot be one.
    pub fn new(request: &Request) -> Result<Self, Error> {
        let mut variables = Self(fixed());
        variables.0.insert("TERM".into(), request.terminal.clone().unwrap_or_else(|| "dumb".into()));
        variables.0.insert("LANG".into(), request.language.clone().unwrap_or_else(|| "C.UTF-8".into()));
        for secret in &request.secrets {
            let name = secret.variable();
            let value = match &secret.shown {
                Shown::Placeholder(placeholder) => placeholder.clone(),
                Shown::Dummy => dummy::shaped_like(&name),
            };
            check(name.as_ref(), value.as_ref())?;
            // Of two secrets with one name the first is the more important, and none may be called like what leads to the proxy.
            variables.0.entry(name.into()).or_insert_with(|| value.into());
        }
        for (name, value) in &request.asked {
            check(name, value)?;
            variables.0.insert(name.clone(), value.clone());
        }
        Ok(variables)
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Puts directories in front of `PATH`, unless somebody asked for a `PATH` of their own.
    pub(crate) fn find_programs_in(&mut self, directories: &[String]) {
        if self.get("PATH") == Some(OsStr::new(layout::PATH)) && !directories.is_empty() {
            let path = format!("{}:{}", directories.join(":"), layout::PATH);
            self.0.insert("PATH".into(), path.into());
        }
    }
}

impl From<Vec<(OsString, OsString)>> for Environment {
    fn from(pairs: Vec<(OsString, OsString)>) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl From<Environment> for Vec<(OsString, OsString)> {
    fn from(environment: Environment) -> Self {
        environment.0.into_iter().collect()
    }
}

impl Granted {
    /// The variable that holds it: its name if that can be a variable's, else its placeholder, else the foreign id in capitals. A
    /// placeholder that was generated is nobody's name.
    #[must_use]
    pub fn variable(&self) -> String {
        let placeholder = match &self.shown {
            Shown::Placeholder(placeholder) => Some(placeholder.as_str()).filter(|it| !is_generated(it)),
            Shown::Dummy => None,
        };
        let candidates = [self.name.as_deref(), placeholder];
        if let Some(name) = candidates.into_iter().flatten().find(|text| is_identifier(text)) {
            return name.to_owned();
        }
        let mut name: String = self
            .foreign_id
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' })
            .collect();
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            name.insert(0, '_');
        }
        name
    }
}

/// `kf_` and 32 hexadecimal digits.
fn is_generated(placeholder: &str) -> bool {
    let digits = placeholder.strip_prefix("kf_");
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check(name: &OsStr, value: &OsStr) -> Result<(), Error> {
    let named = name.to_str().is_some_and(is_identifier);
    if named && !value.as_bytes().contains(&0) {
        return Ok(());
    }
    Err(Error::Variable { name: name.to_owned() })
}

/// What is the same in every sandbox: who it is, the way to the proxy, and whom to trust.
fn fixed() -> BTreeMap<OsString, OsString> {
    let port = layout::PROXY_PORT;
    let proxy = format!("http://127.0.0.1:{port}");
    let direct = "localhost,127.0.0.1,::1";
    let mut variables: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: &str| variables.insert(name.into(), value.into());
    set("HOME", layout::HOME);
    set("USER", layout::USER);
    set("LOGNAME", layout::USER);
    set("SHELL", "/bin/sh");
    set("TMPDIR", "/tmp");
    set("PATH", layout::PATH);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        set(name, &proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        set(name, direct);
    }
    set("NODE_USE_ENV_PROXY", "1");
    for name in CA_VARIABLES {
        set(name, layout::CA_BUNDLE);
    }
    set(
        "JAVA_TOOL_OPTIONS",
        &format!(
            "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={port} -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort={port} \
             -Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1] -Djavax.net.ssl.trustStore={} \
             -Djavax.net.ssl.trustStorePassword={}",
            layout::TRUST_STORE,
            crate::trust_store::PASSWORD,
        ),
    );
    variables
}

/// Every client has its own. Most of them replace the client's roots, so all name the bundle of system roots and ours.
const CA_VARIABLES: [&str; 14] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "npm_config_cafile",
    "AWS_CA_BUNDLE",
    "CODEX_CA_CERTIFICATE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "BUNDLE_SSL_CA_CERT",
];

#[cfg(test)]
mod tests;
