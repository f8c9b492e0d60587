//! `keyferry keyring status`.

use std::collections::BTreeMap;

use keyferry_seal::KeyId;

use super::{Where, block_on};
use crate::failure::Failure;
use crate::terminal;

/// Count the values in the database by the key that they are sealed with
///
/// A key under which nothing is left may be removed from the keyring, once no backup needs it any more.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry keyring status --keyring keyring --database sqlite:keyferry.db

Exit codes: 0 the keyring opens everything, 1 it lacks a key or something failed, 2 the keyring or the command line is wrong.")]
pub(crate) struct Status {
    #[command(flatten)]
    at: Where,
}

impl Status {
    pub(crate) fn run(self) -> Result<(), Failure> {
        block_on(async {
            let keys = self.at.keys()?;
            let store = self.at.attach(keys.clone()).await?;
            let keyring = keys.current();
            let mut values: BTreeMap<KeyId, u64> = BTreeMap::new();
            for count in store.census().await.map_err(Failure::fatal)? {
                *values.entry(count.key).or_default() += count.values;
            }
            let unknown: Vec<KeyId> = values.keys().copied().filter(|key| !keyring.contains(*key)).collect();
            let mut table = vec![format!("{:<16}  {:<7}  {:>8}", "KEY", "STATE", "VALUES")];
            for key in keyring.ids().chain(unknown) {
                let state = match () {
                    () if key == keyring.current() => "current",
                    () if keyring.contains(key) => "older",
                    () => "missing",
                };
                let amount = values.get(&key).copied().unwrap_or(0);
                table.push(format!("{key}  {state:<7}  {amount:>8}"));
            }
            terminal::data(table.join("\n"))?;
            store.check_keys().await.map_err(Failure::fatal)
        })
    }
}
