//! The one place that reads the process's environment.

use std::ffi::{OsStr, OsString};

use keyferry_source::Environment;

/// A variable; one that is not Unicode counts as not set.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable, whatever it holds.
pub(crate) fn raw(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

/// The names of all variables that are settings of keyferry or of its telemetry.
pub(crate) fn settings() -> impl Iterator<Item = OsString> {
    let is_ours = |name: &OsString| {
        let name = name.to_string_lossy();
        ["KEYFERRY_", "IRON_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix))
    };
    std::env::vars_os().map(|(name, _)| name).filter(is_ours)
}

/// Variables with what only this process may know: no source of a policy reads them.
const OWN: [&str; 3] = ["KEYFERRY_PROXY_TOKEN", "IRON_PROXY_TOKEN", "KEYFERRY_KEYRING"];

/// The environment as secret sources see it.
pub(crate) fn secrets() -> Environment {
    Environment::new(|name| variable(name).filter(|_| !OWN.contains(&name)).map(Into::into))
}

/// Where to look for programs: the usual places first, so that a shim in somebody's home does not decide.
pub(crate) fn search_path() -> String {
    const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    match variable("PATH") {
        Some(path) => format!("{USUAL}:{path}"),
        None => USUAL.to_owned(),
    }
}
