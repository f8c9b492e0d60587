//! The last stage: from our process to the command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, ioctl_tiocsctty, setrlimit, setsid};

use super::{Broken, Order};

/// Becomes the command. Returns only where it cannot.
pub fn launch() -> Unlaunched {
    let order = match Order::read() {
        Ok(order) => order,
        Err(error) => return Unlaunched::Broken(error),
    };
    if let Err(error) = become_a_session(&order).and_then(|()| limit(&order)) {
        return Unlaunched::Broken(error);
    }
    let mut command = Command::new(&order.program);
    if let Some((name, arguments)) = order.command.split_first() {
        command.arg0(name).args(arguments);
    }
    let error = command.env_clear().envs(order.environment.iter()).current_dir(&order.directory).exec();
    Unlaunched::Command { program: order.program, error }
}

/// Why the command does not run.
#[derive(Debug, thiserror::Error)]
pub enum Unlaunched {
    /// Something of ours failed.
    #[error(transparent)]
    Broken(Broken),
    /// The system does not run the command.
    #[error("cannot run {}: {error}", program.display())]
    Command {
        /// Which program.
        program: OsString,
        /// What the system said.
        error: io::Error,
    },
}

impl Unlaunched {
    /// The code that a shell would give.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Command { error, .. } if error.kind() == io::ErrorKind::NotFound => 127,
            Self::Command { .. } | Self::Broken(_) => 126,
        }
    }
}

fn become_a_session(order: &Order) -> Result<(), Broken> {
    setsid().map_err(|error| Broken::at("start a session")(error.into()))?;
    if order.terminal {
        ioctl_tiocsctty(rustix::stdio::stdin())
            .map_err(|error| Broken::at("take the terminal")(error.into()))?;
    }
    Ok(())
}

fn limit(order: &Order) -> Result<(), Broken> {
    // Not 0: the kernel then still gives a dump to a handler of the host's, at 1 it does not.
    lower(Resource::Core, 1, 1)?;
    // The init raised its own for its connections; this is what programs expect.
    lower(Resource::Nofile, 1024, u64::MAX)?;
    if let Some(bytes) = order.memory_per_process {
        lower(Resource::Data, bytes, bytes)?;
    }
    if let Some(processes) = order.processes {
        lower(Resource::Nproc, processes.into(), processes.into())?;
    }
    // When memory runs out, the command goes before the init that reports it. Not every system lets it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    Ok(())
}

/// Sets a limit to what was asked for, or to what is already lower.
fn lower(resource: Resource, soft: u64, hard: u64) -> Result<(), Broken> {
    let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let bounded = |value: u64| Some(value.min(ceiling)).filter(|value| *value != u64::MAX);
    setrlimit(resource, Rlimit { current: bounded(soft), maximum: bounded(hard) })
        .map_err(|error| Broken::at("set a limit")(error.into()))
}
