//! A small git repository to clone: a bare one, as plain files over HTTP want it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::world;
use crate::environment;
use crate::failure::Failure;

/// A bare repository with one commit.
pub(super) struct Repository {
    bare: PathBuf,
}

const README: &str = "# demo\n\nThis came through the ferry.\n";

impl Repository {
    pub(super) async fn create(folder: &Path) -> Result<Self, Failure> {
        let (work, bare) = (folder.join("work"), folder.join("demo.git"));
        std::fs::create_dir(&work).map_err(|error| Failure::fatal(format!("{}: {error}", work.display())))?;
        world::write(&work.join("README.md"), README.as_bytes())?;
        git(&work, &["init", "-q", "-b", "main"]).await?;
        git(&work, &["add", "README.md"]).await?;
        git(&work, &["commit", "-q", "-m", "A file to fetch"]).await?;
        git(folder, &["clone", "-q", "--bare", "work", "demo.git"]).await?;
        // What lets a server without git in it be cloned from: the lists that a client cannot make itself.
        git(&bare, &["update-server-info"]).await?;
        Ok(Self { bare })
    }

    pub(super) fn bare(&self) -> &Path {
        &self.bare
    }

    pub(super) fn readme(&self) -> &'static str {
        README
    }
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", environment::search_path())
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "demo")
        .env("GIT_AUTHOR_EMAIL", "demo@keyferry.example")
        .env("GIT_COMMITTER_NAME", "demo")
        .env("GIT_COMMITTER_EMAIL", "demo@keyferry.example")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| {
            Failure::fatal(format!(
                "git cannot be run: {error}\nhint: ./scripts/demo installs what is missing"
            ))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::fatal(format!("git {} failed: {}", arguments.join(" "), said.trim())))
}
