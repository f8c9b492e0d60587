//! What a sandbox has: a home, the way out, our certificate, placeholders; and real clients to use them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::report::Report;
use super::world::{self, World};
use crate::environment;
use crate::failure::Failure;

/// A folder and an environment; no isolation, which is not what is shown here.
pub(super) struct Sandbox {
    home: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// What a command said, and whether it was content.
pub(super) struct Said {
    pub(super) succeeded: bool,
    pub(super) stdout: String,
    stderr: String,
}

/// What the Python client posts.
pub(super) const PYTHON_BODY: &str = r#"{"hello": "ferry"}"#;

impl Sandbox {
    pub(super) fn create(world: &World, proxy: SocketAddr, service_port: u16) -> Result<Self, Failure> {
        let home = world.folder().join("sandbox");
        std::fs::create_dir(&home).map_err(|error| Failure::fatal(format!("{}: {error}", home.display())))?;
        let script = format!(
            "import os, urllib.request\n\
             request = urllib.request.Request(\n    \
                 os.environ[\"API_URL\"] + \"/v1/messages\",\n    \
                 data=b'{PYTHON_BODY}',\n    \
                 headers={{\"X-Api-Key\": os.environ[\"API_KEY\"], \"Content-Type\": \"application/json\"}},\n\
             )\n\
             with urllib.request.urlopen(request, timeout=20) as answer:\n    \
                 print(answer.read().decode(), end=\"\")\n"
        );
        world::write(&home.join("call.py"), script.as_bytes())?;

        let proxy = format!("http://sandbox:{}@{proxy}", world.listener_password);
        let certificate = world.proxy_certificate().display().to_string();
        let url = |host: &str| format!("https://{host}.localhost:{service_port}");
        let environment = vec![
            ("PATH", environment::search_path()),
            ("HOME", home.display().to_string()),
            ("HTTPS_PROXY", proxy.clone()),
            ("https_proxy", proxy),
            // No client reads them all: curl and Python the first two, git the third.
            ("CURL_CA_BUNDLE", certificate.clone()),
            ("SSL_CERT_FILE", certificate.clone()),
            ("GIT_SSL_CAINFO", certificate),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            ("GIT_TERMINAL_PROMPT", "0".to_owned()),
            ("API_KEY", world.api_key.placeholder.clone()),
            ("GIT_TOKEN", world.git_password.placeholder.clone()),
            ("API_URL", url("api")),
            ("OTHER_URL", url("other")),
            ("BLOCKED_URL", url("blocked")),
            ("GIT_HOST", format!("git.localhost:{service_port}")),
        ];
        Ok(Self { home, environment })
    }

    /// Another one, with the same home, behind this proxy.
    pub(super) fn behind(&self, proxy: &str, certificates: &Path, placeholder: &str) -> Self {
        let mut environment = self.environment.clone();
        for (name, value) in &mut environment {
            match *name {
                "HTTPS_PROXY" | "https_proxy" => proxy.clone_into(value),
                "CURL_CA_BUNDLE" | "SSL_CERT_FILE" | "GIT_SSL_CAINFO" => {
                    *value = certificates.display().to_string();
                }
                "API_KEY" => placeholder.clone_into(value),
                _ => {}
            }
        }
        Self { home: self.home.clone(), environment }
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// Runs a line of shell, and nothing of our own environment with it.
    pub(super) async fn run(&self, report: &Report, line: &str) -> Result<Said, Failure> {
        report.command(line);
        let command = Command::new("/bin/sh")
            .args(["-c", line])
            .current_dir(&self.home)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match timeout(Duration::from_secs(60), command).await {
            Ok(Ok(output)) => Ok(Said {
                succeeded: output.status.success(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            Ok(Err(error)) => Err(Failure::fatal(format!("/bin/sh cannot be run: {error}"))),
            Err(_) => {
                Ok(Said { succeeded: false, stdout: String::new(), stderr: "no end after 60 s".to_owned() })
            }
        }
    }
}

impl Said {
    pub(super) fn everything(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// What it complained about, if it failed.
    pub(super) fn failure(&self) -> Option<String> {
        let last = self.stderr.trim().lines().last().unwrap_or("it said nothing").to_owned();
        (!self.succeeded).then_some(last)
    }

    /// The code of the refusal that came back as the body.
    pub(super) fn reason(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_str(&self.stdout).ok()?;
        Some(body.get("reason")?.as_str()?.to_owned())
    }
}
