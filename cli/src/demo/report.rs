//! The steps, as they happen, and what they come to.

use owo_colors::Stream;

use crate::failure::Failure;
use crate::terminal;

/// Tells each step on stderr and counts.
pub(super) struct Report {
    steps: usize,
    failures: usize,
}

impl Report {
    pub(super) fn begin(title: &str) -> Self {
        terminal::talk(terminal::strong(Stream::Stderr, title));
        Self { steps: 0, failures: 0 }
    }

    pub(super) fn section(&self, title: &str) {
        terminal::talk(format!("\n{}", terminal::strong(Stream::Stderr, title)));
    }

    pub(super) fn command(&self, line: &str) {
        terminal::talk(format!("  {}", terminal::faint(Stream::Stderr, &format!("$ {line}"))));
    }

    pub(super) fn step(&mut self, good: bool, text: &str) {
        self.steps += 1;
        let mark = if good {
            terminal::good(Stream::Stderr, "✓")
        } else {
            self.failures += 1;
            terminal::bad(Stream::Stderr, "✗")
        };
        terminal::talk(format!("  {mark} {text}"));
    }

    pub(super) fn has_failures(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn verdict(self) -> Result<(), Failure> {
        let Self { steps, failures } = self;
        if failures > 0 {
            return Err(Failure::fatal(format!("{failures} of {steps} steps did not go as they should")));
        }
        let mark = terminal::good(Stream::Stdout, "✓");
        terminal::data(format!(
            "\n{mark} All {steps} steps went as they should: the service saw the real values, the sandbox never did, and \
             nothing else got out."
        ))
    }
}
