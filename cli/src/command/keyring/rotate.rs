//! `keyferry keyring rotate`.

use std::ops::ControlFlow;

use keyferry_seal::promote_new_key;
use keyferry_store::Rewrapped;
use owo_colors::Stream;

use super::{Where, block_on};
use crate::failure::Failure;
use crate::terminal;

/// Put a new key in front of the keyring, and wrap every value with it
///
/// Services go on meanwhile: they read the keyring file again when it changes. Ended in the middle, it goes on where it was when it
/// is run again, with the same key. The older keys stay in the file: backups need them.
///
/// Keys from KEYFERRY_KEYRING cannot be added to: every value is wrapped with the first of them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry keyring rotate --keyring keyring --database sqlite:keyferry.db")]
pub(crate) struct Rotate {
    #[command(flatten)]
    at: Where,
}

/// After so many values, about a second, somebody may wonder.
const WORTH_TELLING: u64 = 5_000;

impl Rotate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        block_on(async {
            let keys = self.at.keys()?;
            let store = self.at.attach(keys.clone()).await?;
            store.check_keys().await.map_err(Failure::fatal)?;
            let before = keys.current();
            let census = store.census().await.map_err(Failure::fatal)?;
            let unfinished = census.iter().any(|count| count.key != before.current());
            match &self.at.keyring {
                Some(_) if unfinished => terminal::talk("Going on with a rotation that was not finished"),
                Some(file) => drop(promote_new_key(file).map_err(Failure::fatal)?),
                None => {}
            }
            let current = keys.current().current();
            terminal::talk(format!(
                "The current key is {}",
                terminal::strong(Stream::Stderr, &current.to_string())
            ));
            let mut told = 0;
            let progress = |done: Rewrapped| {
                if done.values >= told + WORTH_TELLING {
                    told = done.values;
                    terminal::talk(format!("  {told} values so far"));
                }
                ControlFlow::Continue(())
            };
            let done = store.rewrap(progress).await.map_err(Failure::fatal)?;
            terminal::talk(format!("Done: {} values were wrapped with it", done.values));
            Ok(())
        })
    }
}
