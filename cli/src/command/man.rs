//! `keyferry man`.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::Man as Page;

use crate::Cli;
use crate::failure::Failure;
use crate::terminal;

/// Print the manual page, or write one for every command
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry man | man -l -
  keyferry man --out /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Write a page for every command into this folder, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Some(folder) = self.out else {
            let mut page = Vec::new();
            Page::new(Cli::command()).render(&mut page).map_err(Failure::fatal)?;
            return terminal::data(String::from_utf8_lossy(&page).trim_end());
        };
        let failure = |error| Failure::fatal(format!("{} cannot be written: {error}", folder.display()));
        fs::create_dir_all(&folder).map_err(failure)?;
        clap_mangen::generate_to(Cli::command(), &folder).map_err(failure)
    }
}
