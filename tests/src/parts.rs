//! The programs from outside that the tests drive. What is missing fails the test that needs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The Python of the test environment, with the packages of `requirements.txt`.
///
/// # Panics
/// When `./scripts/test` has not made it yet.
pub fn python() -> PathBuf {
    let python = workspace().join("target/test-parts/venv/bin/python");
    assert!(
        python.exists(),
        "the Python clients are not installed: {} is missing\nhint: run ./scripts/test, which installs them",
        python.display(),
    );
    python
}

/// Schemathesis, in an environment of its own.
///
/// # Panics
/// When `./scripts/test` has not made it yet.
pub fn schemathesis() -> PathBuf {
    let program = workspace().join("target/test-parts/schemathesis/bin/schemathesis");
    assert!(
        program.exists(),
        "Schemathesis is not installed: {} is missing\nhint: run ./scripts/test, which installs it",
        program.display(),
    );
    program
}

/// One of our own Python programs beside the tests.
pub fn script(name: &str) -> PathBuf {
    program(&format!("python/{name}"))
}

/// One of our own programs beside the tests, named with its folder.
///
/// # Panics
/// When there is none.
pub fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    assert!(path.exists(), "no such program: {}", path.display());
    path
}

/// The Node of the test environment.
///
/// # Panics
/// When `./scripts/test` has not installed it yet.
pub fn node() -> PathBuf {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    node_module(&format!("node-linux-{architecture}/bin/node"))
}

/// A file of a package in the same environment.
///
/// # Panics
/// When `./scripts/test` has not installed it yet.
pub fn node_module(name: &str) -> PathBuf {
    let path = workspace().join("target/test-parts/node/node_modules").join(name);
    assert!(
        path.exists(),
        "the Node clients are not installed: {} is missing\nhint: run ./scripts/test, which installs them",
        path.display(),
    );
    path
}

/// Where the coding agents are, and the Node that runs them: to be searched before everything else.
///
/// # Panics
/// When `./scripts/test` has not installed them yet.
pub fn agents_path() -> OsString {
    let agents = workspace().join("target/test-parts/agents/node_modules/.bin");
    assert!(
        agents.exists(),
        "the coding agents are not installed: {} is missing\nhint: run ./scripts/test, which installs them",
        agents.display(),
    );
    let node = node();
    let own = [agents.as_path(), node.parent().expect("a program lies in a folder")].map(Path::to_owned);
    let usual = search_path();
    std::env::join_paths(own.into_iter().chain(std::env::split_paths(&usual))).expect("no colon in a path")
}

/// An executable on the search path.
///
/// # Panics
/// When it is not installed.
pub fn command(name: &str) -> PathBuf {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed\nhint: run ./scripts/test, which installs it"))
}

/// Where programs are looked for; the only variable that a test's child inherits.
///
/// # Panics
/// When the test process itself has none.
pub fn search_path() -> OsString {
    std::env::var_os("PATH").expect("a PATH to find programs on")
}

/// The folder of the whole project.
///
/// # Panics
/// Never: this crate lies in it.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}
