//! What a driver is, and what it gives.

use std::fmt::{self, Display};

use tokio::net::unix::pipe;

use crate::error::Error;
use crate::spec::{SandboxId, Spec};
use crate::terminal::Terminal;

/// Makes sandboxes. Whatever a driver cannot isolate, it refuses.
pub trait Driver: Send + Sync {
    /// What it makes.
    type Sandbox: Sandbox;

    /// Judges `spec` and prepares a sandbox that has not started.
    ///
    /// # Errors
    /// When the host lacks what isolation needs, or `spec` asks for what must not be.
    fn create(&self, id: SandboxId, spec: Spec) -> impl Future<Output = Result<Self::Sandbox, Error>> + Send;

    /// The sandboxes whose owner ended without deleting them.
    ///
    /// # Errors
    /// When the driver's records cannot be read.
    fn leftovers(&self) -> impl Future<Output = Result<Vec<SandboxId>, Error>> + Send;

    /// Ends a leftover and removes all that it left. One that has a living owner is left alone, and one that is gone is no error.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    fn reap(&self, id: &SandboxId) -> impl Future<Output = Result<(), Error>> + Send;
}

/// One sandbox. Dropping it kills it, and leaves its remains to [`Driver::reap`].
pub trait Sandbox: Send {
    /// What was asked for and cannot be had in full.
    fn warnings(&self) -> &[Warning];

    /// Starts the command. A sandbox starts once.
    ///
    /// # Errors
    /// When it cannot be isolated as promised, or has started before.
    fn start(&mut self, attach: Attach) -> impl Future<Output = Result<Attached, Error>> + Send;

    /// Sends a signal to the command and its process group; nothing where it has ended.
    ///
    /// # Errors
    /// When the sandbox was never started.
    fn signal(&mut self, signal: Signal) -> impl Future<Output = Result<(), Error>> + Send;

    /// Waits for the end. Every process of the sandbox is gone by then.
    ///
    /// # Errors
    /// When the sandbox was never started.
    fn wait(&mut self) -> impl Future<Output = Result<Exit, Error>> + Send;

    /// Kills what runs and removes everything that the sandbox left on the host, but for the workspace.
    ///
    /// # Errors
    /// When something cannot be removed; it is then a leftover.
    fn delete(self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// How the command's input and output are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Three pipes.
    Pipes,
    /// A terminal of its own.
    Terminal(Size),
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The caller's ends of what [`Attach`] asked for.
#[derive(Debug)]
pub enum Attached {
    /// Of [`Attach::Pipes`].
    Pipes(Pipes),
    /// Of [`Attach::Terminal`].
    Terminal(Terminal),
}

/// The caller's ends of the command's pipes.
#[derive(Debug)]
pub struct Pipes {
    /// What the command reads; dropping it is the end of its input.
    pub stdin: pipe::Sender,
    /// What the command writes.
    pub stdout: pipe::Receiver,
    /// What it complains of.
    pub stderr: pipe::Receiver,
}

/// The signals that make sense across the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// SIGHUP
    HangUp,
    /// SIGINT
    Interrupt,
    /// SIGQUIT
    Quit,
    /// SIGTERM
    Terminate,
    /// SIGKILL
    Kill,
    /// SIGUSR1
    User1,
    /// SIGUSR2
    User2,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Continue,
}

/// How a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command ended by itself.
    Code(u8),
    /// A signal ended the command.
    Signal(i32),
    /// Its time was over.
    TimeLimit,
    /// The sandbox was killed as a whole: by its owner, or by the kernel for want of memory.
    Killed,
}

impl Exit {
    /// What a shell would say: 128 and the signal's number, 124 as `timeout` has it.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
            Self::TimeLimit => 124,
            Self::Killed => 137,
        }
    }
}

/// What was asked for and cannot be had in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// No cgroup can be made: the limit on memory is one on each process, not on all together.
    MemoryPerProcess,
    /// No cgroup can be made, and the kernel does not count root's processes: they are not limited.
    ProcessesUnlimited,
    /// No cgroup can be made: the processor is not limited.
    CpuUnlimited,
}

impl Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MemoryPerProcess => {
                "no memory cgroup can be made: the memory limit holds for each process, not for all together"
            }
            Self::ProcessesUnlimited => {
                "no pids cgroup can be made, and the kernel limits no processes of root: their number is not limited"
            }
            Self::CpuUnlimited => "no cpu cgroup can be made: processor time is not limited",
        })
    }
}
