//! `keyferry check`.

mod deep;

use std::path::PathBuf;

use crate::configuration::{self, Leniency};
use crate::failure::Failure;
use crate::terminal;

/// Say what is wrong with a configuration
///
/// Judges the file alone, so it may run where the certificates and the secrets are not. With --deep it also opens what the
/// file names. What this version does not run is an error, as a proxy would not start with it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry check keyferry.yaml
  keyferry check --deep keyferry.yaml

Exit codes: 0 it can be used, 2 it cannot.")]
pub(crate) struct Check {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Open what the file names too: certificates, secrets, the audit file, the listeners' ports
    #[arg(long)]
    deep: bool,
    /// Take what this version does not run for warnings: the file is meant for another version
    #[arg(long, conflicts_with = "deep")]
    allow_unsupported: bool,
    #[command(flatten)]
    leniency: Leniency,
}

impl Check {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let document = match self.allow_unsupported {
            true => configuration::load_for_any_version(&self.file, &self.leniency)?,
            false => configuration::load(&self.file, &self.leniency)?,
        };
        configuration::compile(&self.file, &document)?;
        let name = self.file.display();
        if self.deep {
            let (findings, warnings) = deep::findings(&document)?;
            configuration::warn_at(&self.file, &warnings)?;
            for finding in &findings {
                terminal::error(finding);
            }
            if !findings.is_empty() {
                let noun = if findings.len() == 1 { "problem" } else { "problems" };
                return Err(Failure::config(format!("{name}: {} {noun} with what it names", findings.len())));
            }
        }
        terminal::data(format!("{name}: ok"))
    }
}
