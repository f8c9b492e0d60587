//! The terminal of whoever runs a command, while its keys are the command's.

use std::io;

use keyferry_sandbox::Size;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Hands every key on as it is, until it is dropped: also where that is by a panic.
#[derive(Debug)]
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Whether there is a terminal to read from and to write to.
    pub(super) fn is_here() -> bool {
        isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout())
    }

    pub(super) fn enter() -> io::Result<Self> {
        let terminal = Self { before: tcgetattr(rustix::stdio::stdin())? };
        terminal.resume()?;
        Ok(terminal)
    }

    /// As it was before.
    pub(super) fn suspend(&self) {
        // It fails where the terminal is gone, and then nobody minds.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }

    pub(super) fn resume(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        Ok(tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.suspend();
    }
}

/// A terminal that does not say is one of 1975.
pub(super) fn size() -> Size {
    match tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Size { rows: size.ws_row, columns: size.ws_col },
        Ok(_) | Err(_) => Size { rows: 24, columns: 80 },
    }
}
