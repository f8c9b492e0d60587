//! `keyferry keyring init`.

use std::path::PathBuf;

use keyferry_seal::{Keyring, SealError, create_file};
use owo_colors::Stream;

use crate::failure::Failure;
use crate::terminal;

/// Make a keyring of one new key
///
/// The file has mode 0600. A file that exists is never overwritten. Keep a copy of it apart from the backups of the database: without
/// it nothing that is sealed can be read again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry keyring init
  keyferry keyring init --keyring /etc/keyferry/keyring")]
pub(crate) struct Init {
    /// Where it goes
    #[arg(long, value_name = "FILE", default_value = "keyring", env = "KEYFERRY_KEYRING_FILE")]
    keyring: PathBuf,
}

impl Init {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let keyring = Keyring::generate().map_err(Failure::fatal)?;
        create_file(&self.keyring, &keyring).map_err(|error| match error {
            SealError::Exists { .. } => Failure::config(error),
            error => Failure::fatal(error),
        })?;
        let file = self.keyring.display();
        let key = terminal::strong(Stream::Stderr, &keyring.current().to_string());
        terminal::talk(format!("Made the keyring {file} (mode 0600) with the key {key}"));
        terminal::talk(terminal::with_hints(
            "hint: keep a copy of it apart from the backups of the database",
        ));
        Ok(())
    }
}
