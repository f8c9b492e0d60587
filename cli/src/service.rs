//! The keyferry that a command needs: the one that runs on the data directory, or one that is started for as long as somebody needs it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyferry_dial::ServiceUrl;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::control_client::ControlClient;
use crate::environment;
use crate::failure::Failure;
use crate::up::{IN_USE, Lease, Leases, READY};

/// Stays until this is dropped, at least.
pub(crate) struct Service {
    data_dir: PathBuf,
    client: ControlClient,
    lease: Lease,
    /// Variables that what is started does not see.
    unset: Vec<OsString>,
    /// What was started here last, to be taken note of when it has ended.
    started: Mutex<Option<Started>>,
}

struct Started {
    child: Child,
    /// Where in the log its lines begin.
    from: u64,
}

/// How long a start, or the end of the one before, may take.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// How soon a keyferry that was killed is replaced.
const WATCH: Duration = Duration::from_millis(500);
/// The log begins anew beyond this.
const LONGEST_LOG: u64 = 8 << 20;

impl Service {
    /// Of this data directory, which is made where it is not there. `purpose` begins the lease's name.
    pub(crate) async fn of(data_dir: &Path, namespace: &str, purpose: &str) -> Result<Self, Failure> {
        Self::open(data_dir, namespace, purpose, Vec::new()).await
    }

    /// The same of a data directory that nobody else knows: what is set for other keyferrys is not set for this one.
    pub(crate) async fn alone(data_dir: &Path, purpose: &str) -> Result<Self, Failure> {
        Self::open(data_dir, "default", purpose, environment::settings().collect()).await
    }

    async fn open(
        data_dir: &Path,
        namespace: &str,
        purpose: &str,
        unset: Vec<OsString>,
    ) -> Result<Self, Failure> {
        // First: from here on nobody ends what is there.
        let lease = Leases::of(data_dir)?.take(purpose)?;
        let failed = |error| Failure::fatal(format!("{}: {error}", data_dir.display()));
        let data_dir = data_dir.canonicalize().map_err(failed)?;
        let endpoint = ServiceUrl::socket(data_dir.join("control.sock"));
        let client = ControlClient::new(endpoint, None, namespace.to_owned()).map_err(Failure::config)?;
        let service = Self { data_dir, client, lease, unset, started: Mutex::default() };
        service.ensure().await?;
        Ok(service)
    }

    pub(crate) fn client(&self) -> &ControlClient {
        &self.client
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The certificates that programs in a sandbox trust.
    pub(crate) fn ca_bundle(&self) -> Result<String, Failure> {
        let path = self.data_dir.join("ca-bundle.pem");
        fs::read_to_string(&path).map_err(|error| Failure::fatal(format!("{}: {error}", path.display())))
    }

    /// What this use of it is called. Sandboxes of that name end with it, also if this process is killed.
    pub(crate) fn lease(&self) -> &str {
        self.lease.name()
    }

    /// Lets it take back what could not be given back.
    pub(crate) fn abandon(self) {
        self.lease.abandon();
    }

    /// Ends the one that was started here, which nobody else uses. Where something is `left`, it takes that back first.
    pub(crate) async fn end(self, left: bool) {
        let started = self.started.into_inner().unwrap_or_else(PoisonError::into_inner);
        if left {
            self.lease.abandon();
        } else {
            drop(self.lease);
        }
        let Some(Started { mut child, .. }) = started else { return };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let tell = |signal| pid.map(|pid| kill_process(pid, signal));
        if !left {
            tell(Signal::TERM);
        }
        let patience = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= patience {
                tell(Signal::KILL);
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Replaces it where it was killed, for ever.
    pub(crate) async fn keep_up(&self) -> Infallible {
        loop {
            sleep(WATCH).await;
            if !self.answers().await {
                // The terminal is the command's. Where there is none again, what the command asks of the proxy fails, and shows it.
                let _ = self.ensure().await;
            }
        }
    }

    /// Waits until it is there, starting it where there is none.
    pub(crate) async fn ensure(&self) -> Result<(), Failure> {
        let patience = Instant::now() + PATIENCE;
        loop {
            match self.answers().await {
                // It serves the owner before it is complete: a proxy that is not there yet makes no sandboxes.
                true if self.data_dir.join(READY).exists() => return Ok(self.client.ready().await?),
                true => {}
                false => self.start_unless_starting()?,
            }
            if Instant::now() >= patience {
                let (data_dir, log) = (self.data_dir.display(), self.log());
                return Err(Failure::fatal(format!(
                    "the keyferry on {data_dir} is not ready\nhint: its log may tell why: {}",
                    log.display()
                )));
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }

    async fn answers(&self) -> bool {
        UnixStream::connect(self.data_dir.join("control.sock")).await.is_ok()
    }

    /// One is enough; of several that start at once, all but one end.
    fn start_unless_starting(&self) -> Result<(), Failure> {
        if !self.is_starting()? {
            *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.start()?);
        }
        Ok(())
    }

    /// Whether one that was started here lives. That it could not start is a failure.
    fn is_starting(&self) -> Result<bool, Failure> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Started { child, from }) = &mut *started else { return Ok(false) };
        let cannot = |error| Failure::fatal(format!("keyferry up: {error}"));
        let Some(status) = child.try_wait().map_err(cannot)? else { return Ok(true) };
        let said = self.complaints(*from);
        if !status.success() && !said.contains(IN_USE) {
            return Err(Failure::fatal(format!("keyferry cannot be started: {}", said.trim_end())));
        }
        Ok(false)
    }

    fn start(&self) -> Result<Started, Failure> {
        let path = self.log();
        let start = || {
            if fs::metadata(&path).is_ok_and(|log| log.len() > LONGEST_LOG) {
                fs::rename(&path, path.with_extension("old"))?;
            }
            let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            let from = log.metadata()?.len();
            let mut command = Command::new(std::env::current_exe()?);
            for name in &self.unset {
                command.env_remove(name);
            }
            let child = command
                .args(["up", "--while-used", "--namespace", self.client.namespace(), "--data-dir"])
                .arg(&self.data_dir)
                .current_dir(&self.data_dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            Ok(Started { child, from })
        };
        start().map_err(|error: io::Error| Failure::fatal(format!("keyferry cannot be started: {error}")))
    }

    /// Where what is started writes.
    fn log(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    /// What one that did not start said to people; its own log is JSON.
    fn complaints(&self, from: u64) -> String {
        let mut text = String::new();
        let read = File::open(self.log()).and_then(|mut log| {
            log.seek(SeekFrom::Start(from))?;
            log.read_to_string(&mut text)
        });
        if let Err(error) = read {
            return format!("{}: {error}", self.log().display());
        }
        let lines = text.lines().filter(|line| !line.starts_with('{'));
        lines.map(|line| line.strip_prefix("error: ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }
}
