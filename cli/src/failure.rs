//! How a command ends when it does not end well.

use std::fmt::Display;
use std::process::ExitCode;

use crate::terminal;

/// What a command could not do, and the exit code that says so to a script.
#[derive(Debug)]
pub(crate) struct Failure {
    exit_code: u8,
    message: String,
}

impl Failure {
    /// The configuration is wrong: nothing will get better by trying again.
    pub(crate) fn config(message: impl Display) -> Self {
        Self { exit_code: 2, message: message.to_string() }
    }

    /// Anything else: a port in use, a file that cannot be written, a demo that did not go as it should.
    pub(crate) fn fatal(message: impl Display) -> Self {
        Self { exit_code: 1, message: message.to_string() }
    }

    /// A command in a sandbox that does not run: what a shell would exit with.
    pub(crate) fn with_code(exit_code: u8, message: impl Display) -> Self {
        Self { exit_code, message: message.to_string() }
    }

    /// The same, with this code where it has none of its own.
    pub(crate) fn or_code(self, code: u8) -> Self {
        match self.exit_code {
            1 | 2 => Self { exit_code: code, ..self },
            _ => self,
        }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The same, with what it is about before it.
    pub(crate) fn about(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    pub(crate) fn report(&self) -> ExitCode {
        terminal::error(&self.message);
        ExitCode::from(self.exit_code)
    }
}
