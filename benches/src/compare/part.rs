//! A process of the bench, from its start to its end.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// How long a process may take until its port is open; a policy of 10,000 rules takes a while to read.
const START: Duration = Duration::from_secs(30);

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Part {
    child: Child,
    /// From its start until its port was open.
    pub(super) started_in: Duration,
}

/// Why a process does not run.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It could not be started at all.
    #[error("{} cannot be started: {source}", program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of it.
    #[error("{} cannot be written: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended.
    #[error("{name} ended before it was ready\n  hint: read {}", log.display())]
    Ended {
        /// Which.
        name: String,
        /// What it said.
        log: PathBuf,
    },
    /// It did not open its port.
    #[error("{name} did not open its port\n  hint: read {}", log.display())]
    NotReady {
        /// Which.
        name: String,
        /// What it said.
        log: PathBuf,
    },
    /// A command that prepares something.
    #[error("{} failed: {said}", program.display())]
    Preparation {
        /// Which.
        program: PathBuf,
        /// What it said.
        said: String,
    },
    /// No port is free.
    #[error("no port is free: {0}")]
    NoPort(io::Error),
}

impl Part {
    /// Starts `command` and waits until `port` is open. What it says goes to `NAME.log`.
    pub(super) async fn start(
        name: &str,
        mut command: Command,
        port: u16,
        folder: &Path,
    ) -> Result<Self, PartError> {
        let path = folder.join(format!("{name}.log"));
        let file = |source| PartError::File { path: path.clone(), source };
        let log = File::create(&path).map_err(file)?;
        command.stdout(log.try_clone().map_err(file)?).stderr(log).stdin(Stdio::null()).kill_on_drop(true);
        let program = PathBuf::from(command.as_std().get_program());
        let began = Instant::now();
        let mut child = command.spawn().map_err(|source| PartError::Spawn { program, source })?;
        while began.elapsed() < START {
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(PartError::Ended { name: name.to_owned(), log: path });
            }
            if TcpStream::connect(loopback(port)).await.is_ok() {
                return Ok(Self { child, started_in: began.elapsed() });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(PartError::NotReady { name: name.to_owned(), log: path })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

/// A command with nothing in its environment but a search path, so that no proxy variable or certificate file of the caller decides.
pub(super) fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(folder);
    command
}

/// Runs a command to its end; what it prints, in one text.
pub(super) async fn prepare(mut command: Command) -> Result<String, PartError> {
    let program = PathBuf::from(command.as_std().get_program());
    match command.stdin(Stdio::null()).output().await {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            if output.status.success() { Ok(said) } else { Err(PartError::Preparation { program, said }) }
        }
        Err(source) => Err(PartError::Spawn { program, source }),
    }
}

/// A port on loopback that nobody listens on.
pub(super) async fn free_port() -> Result<u16, PartError> {
    let listener = TcpListener::bind(loopback(0)).await.map_err(PartError::NoPort)?;
    Ok(listener.local_addr().map_err(PartError::NoPort)?.port())
}

/// That port on this machine.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
