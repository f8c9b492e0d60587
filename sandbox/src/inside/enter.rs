//! The first stage, outside: what bubblewrap cannot do for itself.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

use super::{Broken, descriptors};
use crate::layout;

/// Joins the cgroups (by their `cgroup.procs`), closes inherited descriptors but the `mounted` that were meant, and becomes
/// `program`. Returns only where it cannot.
pub fn enter(cgroups: &[PathBuf], mounted: u16, program: &OsString, arguments: &[OsString]) -> Broken {
    if let Err(error) = prepare(cgroups, mounted) {
        return error;
    }
    let error = Command::new(program).args(arguments).env_clear().exec();
    Broken::at("start bubblewrap")(error)
}

fn prepare(cgroups: &[PathBuf], mounted: u16) -> Result<(), Broken> {
    // bubblewrap asks for the same, but only once it runs.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Broken::at("tie this process to its parent")(error.into()))?;
    for file in cgroups {
        fs::write(file, "0").map_err(Broken::at("join a cgroup"))?;
    }
    let last = layout::FIRST_MOUNTED + i32::from(mounted) - 1;
    descriptors::close_above(last).map_err(Broken::at("close inherited descriptors"))
}
