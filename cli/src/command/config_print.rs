//! `keyferry config print`.

use std::path::PathBuf;

use crate::configuration::{self, Leniency};
use crate::failure::Failure;
use crate::terminal;

/// Look into a configuration
#[derive(clap::Subcommand)]
pub(crate) enum Config {
    Print(Print),
}

impl Config {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Print(print) => print.run(),
        }
    }
}

/// Print a configuration as it counts
///
/// As YAML, with every default, with ${NAME} filled in and after KEYFERRY_* and IRON_*. What came from the environment into
/// a place where credentials are written, inline values and the passwords of URLs are redacted.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry config print --effective --config keyferry.yaml

Exit codes: 0 it was printed, 2 the configuration is wrong.")]
pub(crate) struct Print {
    /// After defaults, variables and overrides; the one form there is
    #[arg(long, required = true)]
    effective: bool,
    /// The configuration
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    leniency: Leniency,
}

impl Print {
    fn run(self) -> Result<(), Failure> {
        terminal::data(configuration::effective(&self.config, &self.leniency)?.trim_end())
    }
}
