//! What runs on the way into a sandbox and inside of it: `keyferry sandbox-init`, in three stages that each become or start the next.
//!
//! - [`enter`], still outside: joins the cgroups, closes what was inherited, and becomes bubblewrap.
//! - [`init`], the first process inside: refuses what is not isolated, filters system calls, forwards to the proxy, starts the
//!   command, passes signals on, reaps, keeps time.
//! - [`launch`]: becomes a session of its own with its terminal and limits, and then the command.

mod descriptors;
mod enter;
mod forward;
mod init;
mod launch;
mod message;
mod seccomp;

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use enter::enter;
pub use init::init;
pub use launch::{Unlaunched, launch};

pub(crate) use message::{Instruction, Report, line};

use crate::environment::Environment;

/// Whether this process runs in a sandbox.
#[must_use]
pub fn is_inside() -> bool {
    std::path::Path::new(crate::layout::ORDER).exists()
}

/// What the init is to do. The driver mounts it read-only: the command may read it, and holds all of it anyway.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: OsString,
    pub(crate) command: Vec<OsString>,
    pub(crate) environment: Environment,
    pub(crate) directory: OsString,
    pub(crate) terminal: bool,
    pub(crate) wall_clock: Option<Duration>,
    /// Where no cgroup limits memory.
    pub(crate) memory_per_process: Option<u64>,
    /// Where no cgroup limits processes.
    pub(crate) processes: Option<u32>,
}

impl Order {
    fn read() -> Result<Self, Broken> {
        let text = std::fs::read(crate::layout::ORDER).map_err(Broken::at("read the order"))?;
        serde_json::from_slice(&text).map_err(|error| Broken::at("read the order")(error.into()))
    }
}

/// Why a stage could not do its part. The sandbox ends.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The system refused.
    #[error("cannot {doing}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The sandbox is not what it should be.
    #[error("the sandbox is not isolated: {found}")]
    NotIsolated {
        /// What was found.
        found: String,
    },
    /// The kernel takes no filter.
    #[error("cannot filter system calls: {error}")]
    Seccomp {
        /// What the kernel said.
        #[source]
        error: seccompiler::Error,
    },
}

impl Broken {
    fn at(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }
}
