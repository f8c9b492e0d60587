//! One sandbox, from its start to its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::mounts::{Arguments, Mount};
use super::record::{self, Owned};
use super::{Shared, blocking, refusal, write_new};
use crate::driver::{Attach, Attached, Exit, Pipes, Sandbox, Signal, Warning};
use crate::error::Error;
use crate::inside::{Instruction, Order, Report, line};
use crate::layout;
use crate::terminal::Terminal;

/// A sandbox of the [`LocalDriver`](super::LocalDriver).
#[derive(Debug)]
pub struct LocalSandbox {
    shared: Arc<Shared>,
    owned: Arc<Owned>,
    warnings: Vec<Warning>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Prepared(Box<Prepared>),
    Running(Box<Running>),
    Ended(Exit),
    /// The start failed.
    Broken,
}

#[derive(Debug)]
struct Prepared {
    order: Order,
    arguments: Arguments,
    cgroups: Vec<PathBuf>,
}

#[derive(Debug)]
struct Running {
    /// bubblewrap outside, which ends when everything inside has.
    outside: Child,
    reports: Lines<BufReader<OwnedReadHalf>>,
    instructions: OwnedWriteHalf,
    end: Option<Exit>,
    complaints: JoinHandle<String>,
}

/// For what a process that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(5);

const NOT_STARTED: Error = Error::State { problem: "was not started" };

impl LocalSandbox {
    pub(super) fn new(
        shared: Arc<Shared>,
        owned: Owned,
        order: Order,
        arguments: Arguments,
        cgroups: Vec<PathBuf>,
        warnings: Vec<Warning>,
    ) -> Self {
        let prepared = Prepared { order, arguments, cgroups };
        Self { shared, owned: Arc::new(owned), warnings, stage: Stage::Prepared(Box::new(prepared)) }
    }

    async fn launch(&self, prepared: Prepared, attach: Attach) -> Result<(Running, Attached), Error> {
        let failed = |doing| Error::io(doing, &self.owned.directory);
        let Prepared { mut order, mut arguments, cgroups } = prepared;
        order.terminal = matches!(attach, Attach::Terminal(_));
        let (attached, theirs) = connect(attach).map_err(failed("connect the command of"))?;

        let path = self.owned.directory.join("sandbox.json");
        let text = serde_json::to_vec(&order).map_err(|error| failed("describe")(error.into()))?;
        write_new(&path, &text)?;
        arguments.mount(Mount::shown(path, layout::ORDER));
        if order.terminal {
            // Programs that ask for their terminal's name find it here; its own is of another /dev/pts.
            let [stdin, ..] = &theirs;
            let name = rustix::termios::ttyname(stdin, Vec::new())
                .map_err(|error| failed("name the terminal of")(error.into()))?;
            arguments.push([b"--dev-bind".as_slice(), name.to_bytes(), b"/dev/console"].map(os));
        }
        arguments.closed();
        let (words, mounted) = arguments.into_parts();

        let (control, inits) = Pair::pair().map_err(failed("talk to"))?;
        control.set_nonblocking(true).map_err(failed("talk to"))?;
        let (reports, instructions) = UnixStream::from_std(control).map_err(failed("talk to"))?.into_split();
        let mut command = Command::new(&self.shared.host.keyferry);
        command.args(["sandbox-init", "enter"]);
        for group in cgroups {
            command.arg("--cgroup").arg(group.join("cgroup.procs"));
        }
        command.args(["--mounted", &mounted.len().to_string()]);
        command.arg("--").arg(&self.shared.bubblewrap).args(words);
        command.args(["--", layout::INIT, "sandbox-init", "init"]);
        command.env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::from(OwnedFd::from(inits))).stdout(Stdio::null()).stderr(Stdio::piped());
        let given = theirs.into_iter().chain(mounted);
        let mappings = (layout::COMMAND_STDIN..)
            .zip(given)
            .map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        command
            .fd_mappings(mappings.collect())
            .map_err(|error| failed("connect the command of")(io::Error::other(error)))?;
        let mut outside = self.shared.spawner.spawn(command).await.map_err(failed("start"))?;
        self.note(&outside).await?;

        let complaints =
            outside.stderr.take().ok_or_else(|| failed("hear")(io::ErrorKind::BrokenPipe.into()))?;
        let complaints = tokio::spawn(hear(complaints));
        let reports = BufReader::new(reports).lines();
        let mut running = Running { outside, reports, instructions, end: None, complaints };
        let first = tokio::select! {
            biased;
            report = next(&mut running.reports) => report,
            // Without a word, or killed: then a child of it may wait for it, holding what we would listen to.
            _ = running.outside.wait() => {
                let owned = Arc::clone(&self.owned);
                blocking(move || owned.end_processes()).await?;
                timeout(PATIENCE, next(&mut running.reports)).await.unwrap_or_default()
            }
        };
        match first {
            Some(Report::Started) => Ok((running, attached)),
            Some(Report::Code(_) | Report::Signal(_) | Report::TimeLimit) | None => {
                running.kill().await;
                Err(refusal::understand(&running.complaints.await.unwrap_or_default()))
            }
        }
    }

    /// Who is to be killed if nobody is left to do it.
    async fn note(&self, outside: &Child) -> Result<(), Error> {
        let pid = outside.id().and_then(|pid| i32::try_from(pid).ok());
        let process = pid.and_then(|pid| Some((pid, record::started(pid)?)));
        let all = self.shared.records.lock()?;
        self.owned.change(&all, |record| record.process = process)
    }

    /// What runs is killed, and the end is known.
    async fn end(&mut self) {
        if let Stage::Running(running) = &mut self.stage {
            running.kill().await;
            self.stage = Stage::Ended(running.end.unwrap_or(Exit::Killed));
        }
    }
}

impl Sandbox for LocalSandbox {
    fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    async fn start(&mut self, attach: Attach) -> Result<Attached, Error> {
        match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Prepared(prepared) => {
                let (running, attached) = self.launch(*prepared, attach).await?;
                self.stage = Stage::Running(Box::new(running));
                Ok(attached)
            }
            stage @ (Stage::Running(_) | Stage::Ended(_) | Stage::Broken) => {
                self.stage = stage;
                Err(Error::State { problem: "has started before" })
            }
        }
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Running(running) => {
                // It may have ended; then there is nobody to signal.
                let _ = running.instructions.write_all(&line(&Instruction::Signal(signal))).await;
                Ok(())
            }
            Stage::Ended(_) => Ok(()),
            Stage::Prepared(_) | Stage::Broken => Err(NOT_STARTED),
        }
    }

    async fn wait(&mut self) -> Result<Exit, Error> {
        match &mut self.stage {
            Stage::Running(running) => {
                let exit = running.wait().await;
                self.stage = Stage::Ended(exit);
                Ok(exit)
            }
            Stage::Ended(exit) => Ok(*exit),
            Stage::Prepared(_) | Stage::Broken => Err(NOT_STARTED),
        }
    }

    async fn delete(mut self) -> Result<(), Error> {
        self.end().await;
        blocking(move || self.shared.records.clean(&self.owned)).await
    }
}

impl Running {
    async fn wait(&mut self) -> Exit {
        while self.end.is_none() {
            match next(&mut self.reports).await {
                Some(Report::Started) => {}
                Some(Report::Code(code)) => self.end = Some(Exit::Code(code)),
                Some(Report::Signal(signal)) => self.end = Some(Exit::Signal(signal)),
                Some(Report::TimeLimit) => self.end = Some(Exit::TimeLimit),
                None => self.end = Some(Exit::Killed),
            }
        }
        // It waits for the init, and the init's end is everyone's.
        let _ = self.outside.wait().await;
        self.end.unwrap_or(Exit::Killed)
    }

    async fn kill(&mut self) {
        let _ = self.instructions.write_all(&line(&Instruction::End)).await;
        if timeout(PATIENCE, self.outside.wait()).await.is_err() {
            let _ = self.outside.kill().await;
        }
        // Whoever killed bubblewrap did not wait for the init.
        let _ = timeout(PATIENCE, async { while next(&mut self.reports).await.is_some() {} }).await;
    }
}

async fn next(reports: &mut Lines<BufReader<OwnedReadHalf>>) -> Option<Report> {
    let line = reports.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// Both ends of what the command reads and writes: ours, and the command's three.
fn connect(attach: Attach) -> io::Result<(Attached, [OwnedFd; 3])> {
    match attach {
        Attach::Pipes => {
            let (command_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
            let (stdout, command_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
            let (stderr, command_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
            let pipes = Pipes {
                stdin: pipe::Sender::from_owned_fd(stdin)?,
                stdout: pipe::Receiver::from_owned_fd(stdout)?,
                stderr: pipe::Receiver::from_owned_fd(stderr)?,
            };
            Ok((Attached::Pipes(pipes), [command_stdin, command_stdout, command_stderr]))
        }
        Attach::Terminal(size) => {
            let (terminal, theirs) = Terminal::open(size)?;
            let ends = [theirs.try_clone()?, theirs.try_clone()?, theirs];
            Ok((Attached::Terminal(terminal), ends))
        }
    }
}

/// What bubblewrap and the init say, the beginning of it.
async fn hear(complaints: ChildStderr) -> String {
    const ENOUGH: u64 = 16 * 1024;
    let mut said = Vec::new();
    let mut complaints = complaints.take(ENOUGH);
    let _ = complaints.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

fn os(bytes: &[u8]) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}
