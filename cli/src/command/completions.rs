//! `keyferry completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::failure::Failure;
use crate::terminal;

/// Print what lets a shell complete commands and flags
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry completions bash > /etc/bash_completion.d/keyferry
  keyferry completions zsh > ~/.zfunc/_keyferry
  keyferry completions fish > ~/.config/fish/completions/keyferry.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "keyferry", &mut script);
        terminal::data(String::from_utf8_lossy(&script).trim_end())
    }
}
