//! `keyferry sandbox-init`: not for people, a driver starts it.

use std::ffi::OsString;
use std::path::PathBuf;

use keyferry_sandbox::inside;

use crate::failure::Failure;

/// The first word of a command line that is read here and not with the commands of people: describing all of those takes longer than
/// a stage does, and each sandbox has three.
pub(crate) const NAME: &str = "sandbox-init";

/// The stages of a sandbox's start; a driver calls them
#[derive(clap::Parser)]
#[command(bin_name = "keyferry sandbox-init")]
pub(crate) enum SandboxInit {
    /// Outside: join cgroups, close what was inherited, become bubblewrap
    Enter {
        /// The `cgroup.procs` to join
        #[arg(long)]
        cgroup: Vec<PathBuf>,
        /// How many descriptors it is to mount
        #[arg(long, default_value_t = 0)]
        mounted: u16,
        /// bubblewrap
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Inside: the first process
    Init,
    /// Inside: become the command
    Launch,
}

impl SandboxInit {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Enter { cgroup, mounted, program, arguments } => {
                Err(Failure::fatal(inside::enter(&cgroup, mounted, &program, &arguments)))
            }
            Self::Init => inside::init().map_err(Failure::fatal),
            Self::Launch => {
                let unlaunched = inside::launch();
                Err(Failure::with_code(unlaunched.exit_code(), unlaunched))
            }
        }
    }
}
