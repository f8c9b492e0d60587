//! Who may know whom: the arrows of ARCHITECTURE.md, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Crate → the crates of ours that it may depend on. `cli`, `benches`, `fuzz` and `tests` may know all.
const ARROWS: &[(&str, &[&str])] = &[
    ("keyferry-proxy", &["config", "contract", "dial", "seal", "source"]),
    ("keyferry-source", &["config", "dial"]),
    ("keyferry-control", &["config", "contract", "dial", "seal", "store"]),
    ("keyferry-store", &["seal"]),
    ("keyferry-contract", &["config"]),
    ("keyferry-dial", &["config"]),
    ("keyferry-config", &[]),
    ("keyferry-seal", &[]),
];
const KNOW_ALL: &[&str] = &["keyferry", "keyferry-benches", "keyferry-fuzz", "keyferry-tests"];

#[test]
fn crates_depend_on_each_other_only_as_the_architecture_says() {
    let dependencies = workspace_dependencies();
    let allowed: BTreeMap<&str, BTreeSet<String>> = ARROWS
        .iter()
        .map(|(from, to)| (*from, to.iter().map(|name| format!("keyferry-{name}")).collect()))
        .collect();
    for (name, used) in &dependencies {
        if KNOW_ALL.contains(&name.as_str()) {
            continue;
        }
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no row in ARROWS"));
        let forbidden: Vec<_> = used.difference(allowed).collect();
        assert!(forbidden.is_empty(), "{name} must not depend on {forbidden:?}");
    }
    let known: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let named: BTreeSet<&str> =
        ARROWS.iter().map(|(name, _)| *name).chain(KNOW_ALL.iter().copied()).collect();
    assert_eq!(known, named, "the table and the workspace name the same crates");
}

#[test]
fn the_policy_is_pure() {
    let metadata = metadata();
    let config = package(&metadata, "keyferry-config");
    let names = dependency_names(config);
    for runtime in ["tokio", "hyper", "reqwest", "async-std", "futures", "socket2", "mio"] {
        assert!(!names.contains(runtime), "keyferry-config must not depend on {runtime}");
    }
}

/// Package → the packages of ours that it depends on, in its build or its tests.
fn workspace_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    // A crate that turns its own features on for its tests depends on itself.
    let of_ours = |package: &Value| {
        let others = |name: &String| ours.contains(name.as_str()) && package["name"] != name.as_str();
        dependency_names(package).into_iter().filter(others).collect()
    };
    packages
        .iter()
        .map(|package| (package["name"].as_str().expect("a name").to_owned(), of_ours(package)))
        .collect()
}

fn package<'a>(metadata: &'a Value, name: &str) -> &'a Value {
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().find(|package| package["name"] == name).expect("the package")
}

fn dependency_names(package: &Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().expect("dependencies");
    dependencies.iter().filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned).collect()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo's metadata is JSON")
}
