//! The proxy of the demonstration: this very binary, as an operator would start it.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::world::World;
use crate::failure::Failure;

/// `keyferry proxy` in a process of its own, which ends with this one.
pub(super) struct RunningProxy {
    child: Child,
    address: SocketAddr,
}

impl RunningProxy {
    pub(super) async fn start(world: &World, service_port: u16) -> Result<Self, Failure> {
        let address = free_address().await?;
        world.write_configuration(address.port(), service_port)?;
        let failure = |what: &str, error: std::io::Error| {
            Failure::fatal(format!("the proxy cannot be started: {what}: {error}"))
        };
        let binary = std::env::current_exe().map_err(|error| failure("this binary", error))?;
        let log = File::create(world.log()).map_err(|error| failure("its log", error))?;
        let child = Command::new(&binary)
            .args(["proxy", "--config", "keyferry.yaml"])
            .current_dir(world.folder())
            // The proxy alone knows the real values.
            .env_clear()
            .env("DEMO_API_KEY", &world.api_key.real)
            .env("DEMO_GIT_PASSWORD", &world.git_password.real)
            .env("DEMO_LISTENER_PASSWORD", &world.listener_password)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failure(&binary.display().to_string(), error))?;
        let mut proxy = Self { child, address };
        proxy.wait_until_listening(world).await?;
        Ok(proxy)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it to end, and says what is wrong with how it did.
    pub(super) async fn stop(self) -> Result<(), String> {
        stop(self.child, "the proxy").await
    }

    async fn wait_until_listening(&mut self, world: &World) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(15);
        while TcpStream::connect(self.address).await.is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::fatal(format!(
                    "the proxy ended at once ({status})\n{}",
                    world.log_tail()
                )));
            }
            if Instant::now() > deadline {
                return Err(Failure::fatal(format!(
                    "the proxy does not listen on {}\n{}",
                    self.address,
                    world.log_tail()
                )));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Asks a process to end, and says what is wrong with how it did.
pub(super) async fn stop(mut child: Child, what: &str) -> Result<(), String> {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let Some(pid) = pid else { return Err(format!("{what} had ended before it was asked to")) };
    kill_process(pid, Signal::TERM).map_err(|error| format!("{what} cannot be stopped: {error}"))?;
    match timeout(Duration::from_secs(15), child.wait()).await {
        Err(_) => Err(format!("{what} was still running 15 s after SIGTERM")),
        Ok(Err(error)) => Err(format!("{what} was lost: {error}")),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(match (status.code(), status.signal()) {
            (Some(code), _) => format!("on SIGTERM {what} ended with exit code {code}"),
            (None, signal) => format!("{what} was ended by signal {}", signal.unwrap_or_default()),
        }),
    }
}

/// A port that was free a moment ago.
async fn free_address() -> Result<SocketAddr, Failure> {
    let failure = |error: std::io::Error| Failure::fatal(format!("no free port on loopback: {error}"));
    TcpListener::bind("127.0.0.1:0").await.map_err(failure)?.local_addr().map_err(failure)
}
