//! The second act: control and a proxy for many, told by the verbs of the command line what each may use.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::report::Report;
use super::sandbox::Sandbox;
use super::service::Service;
use super::world::{self, World};
use crate::failure::Failure;

/// Plays it; what was said in the sandboxes.
pub(super) async fn play(
    report: &mut Report,
    world: &World,
    service: &Service,
    first: &Sandbox,
) -> Result<String, Failure> {
    report.section("Many sandboxes: what each may use, and the end of it");
    let up = Up::start(report, world).await?;
    let host = format!("api.localhost:{}", service.port());
    let added =
        up.verb(report, &["secret", "add", "api", "--host", &host], Some(&world.api_key.real)).await?;
    let placeholder = added.lines().find_map(|line| line.strip_prefix("placeholder: ")).unwrap_or_default();
    for name in ["alice", "bob"] {
        up.verb(report, &["principal", "add", name], None).await?;
    }
    // Before the sandboxes: whoever has the URL of one finds that the proxy knows of it, and of what came before.
    let granted = up.verb(report, &["grant", "alice", "api"], None).await?;
    let mut sandboxes = Vec::new();
    for name in ["alice", "bob"] {
        let url = up.verb(report, &["sandbox", "create", name, "--principal", name], None).await?;
        sandboxes.push(first.behind(url.trim(), &up.certificates, placeholder));
    }
    let [alice, bob] = sandboxes.as_slice() else { return Err(Failure::fatal("there are two")) };
    report.step(
        granted.contains("alice"),
        "control and a proxy run in one process; alice has a secret, bob has none",
    );

    let call = r#"curl -sS -w '%{http_connect}' -H "Authorization: Bearer $API_KEY" "$API_URL/v1/models""#;
    let real = format!("Bearer {}", world.api_key.real);
    let of_alice = alice.run(report, call).await?;
    let seen = service.seen();
    let good = of_alice.succeeded && seen.last().and_then(|seen| seen.authorization.as_ref()) == Some(&real);
    report.step(good, &format!("alice: the service saw the real value {}", world.api_key.shown_real()));
    let of_bob = bob.run(report, call).await?;
    let refused = of_bob.stdout == "403" && service.seen().len() == seen.len();
    report.step(refused, "bob, with the same placeholder: 403, and nothing was sent");

    // Without an end of its own
    let open = r#"curl -sSN -H "Authorization: Bearer $API_KEY" "$API_URL/v1/stream""#;
    let revoke = async {
        while !service.seen().iter().any(|seen| seen.path == "/v1/stream") {
            sleep(Duration::from_millis(10)).await;
        }
        // For its first line to arrive
        sleep(Duration::from_millis(300)).await;
        let said = up.verb(report, &["revoke", "alice", "api"], None).await;
        said.map(|_| Instant::now())
    };
    let ended = async { (alice.run(report, open).await, Instant::now()) };
    let (revoked, (said, ended)) = tokio::join!(timeout(Duration::from_secs(30), revoke), ended);
    let revoked = revoked.map_err(|_| Failure::fatal("the download did not begin"))??;
    let said = said?;
    let took = ended.saturating_duration_since(revoked);
    let closed = said.stdout.contains("hello") && took < Duration::from_secs(5);
    report.step(closed, &format!("her open download ended {} ms after the revocation", took.as_millis()));
    let again = alice.run(report, call).await?;
    report.step(again.stdout == "403", "and her next request is refused: 403");
    up.stop().await?;
    Ok([of_alice, of_bob, said, again].iter().map(super::sandbox::Said::everything).collect())
}

/// `keyferry up` in a process of its own, which ends with this one.
struct Up {
    child: Child,
    binary: PathBuf,
    folder: PathBuf,
    certificates: PathBuf,
}

impl Up {
    async fn start(report: &Report, world: &World) -> Result<Self, Failure> {
        let failure =
            |error: std::io::Error| Failure::fatal(format!("`keyferry up` cannot be started: {error}"));
        let binary = std::env::current_exe().map_err(failure)?;
        let folder = world.folder().to_owned();
        // The service of this demonstration is on loopback, and nobody else vouches for it.
        let settings = "proxy: { upstream_allow_cidrs: [\"127.0.0.0/8\", \"::1/128\"] }\ntls: { upstream_ca: service-ca.crt }\n";
        world::write(&folder.join("up.yaml"), settings.as_bytes())?;
        let log = std::fs::File::create(folder.join("up.log")).map_err(failure)?;
        report.command("keyferry up --data-dir data --config up.yaml");
        let mut child = Command::new(&binary)
            .args(["up", "--data-dir", "data", "--config", "up.yaml", "--json"])
            .args(["--control", "127.0.0.1:0", "--proxy", "127.0.0.1:0"])
            .current_dir(&folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failure)?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::fatal("`keyferry up` has no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let line =
            timeout(Duration::from_secs(30), lines.next_line()).await.ok().and_then(Result::ok).flatten();
        let said: Value = line.and_then(|line| serde_json::from_str(&line).ok()).unwrap_or_default();
        let Some(certificates) = said["ca_bundle"].as_str().map(PathBuf::from) else {
            let log = std::fs::read_to_string(folder.join("up.log")).unwrap_or_default();
            return Err(Failure::fatal(format!("`keyferry up` did not become ready\n{log}")));
        };
        Ok(Self { child, binary, folder, certificates })
    }

    /// What a verb says that goes well; `value` goes to its standard input.
    async fn verb(&self, report: &Report, words: &[&str], value: Option<&str>) -> Result<String, Failure> {
        let line = words.join(" ");
        report.command(&match value {
            Some(_) => format!("keyferry {line} < the-real-key"),
            None => format!("keyferry {line}"),
        });
        let failure = |what: &dyn std::fmt::Display| Failure::fatal(format!("keyferry {line}: {what}"));
        let mut child = Command::new(&self.binary)
            .args(words)
            .current_dir(&self.folder)
            .env_clear()
            .env("KEYFERRY_DATA_DIR", "data")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failure(&error))?;
        if let (Some(mut stdin), Some(value)) = (child.stdin.take(), value) {
            stdin.write_all(value.as_bytes()).await.map_err(|error| failure(&error))?;
        }
        let output = timeout(Duration::from_secs(30), child.wait_with_output()).await;
        let output = output.map_err(|_| failure(&"no end after 30 s"))?.map_err(|error| failure(&error))?;
        if !output.status.success() {
            return Err(failure(&String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn stop(self) -> Result<(), Failure> {
        super::proxy::stop(self.child, "`keyferry up`").await.map_err(Failure::fatal)
    }
}
