//! SQLite or PostgreSQL behind one way to write SQL.
//!
//! [`Store::open`] opens the database that a [`DatabaseUrl`] names, brings it up to the [`Schema`]s that the services hand in,
//! and refuses where the keyring cannot open what is stored. SQL is written once for both:
//!
//! - parameters are `$1`, `$2`, …; a list is one parameter behind `= ANY($1)`
//! - columns are `TEXT`, `BIGINT`, `BOOLEAN`, `DOUBLE PRECISION` and `BYTEA`; JSON is `TEXT`, a moment is a `BIGINT`
//! - `INSERT … ON CONFLICT … DO UPDATE … RETURNING` works on both; [`StoreError::Duplicate`] names a constraint as PostgreSQL
//!   names it by default
//!
//! Reads go through [`Reader`], which the store, a [`Transaction`] and a [`Snapshot`] are. Writes go through a transaction, of
//! which SQLite runs one at a time; [`Transaction::lock`] gives the same on PostgreSQL. Values that nobody may read on disk go
//! into [`SealedColumn`]s. [`Store::changes`] tells other replicas what was committed.

mod changes;
mod error;
mod migrate;
mod open;
mod reader;
mod row;
mod sealed;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod url;

pub use changes::{Change, Changes, Heard, MAX_PAYLOAD_BYTES};
pub use error::StoreError;
pub use migrate::{Migration, Schema, Sql};
pub use open::{Dialect, Store};
pub use reader::Reader;
pub use row::{Column, Row};
pub use sealed::{Census, Rewrapped, Sealed, SealedColumn};
pub use statement::{Statement, Value, sql};
pub use transaction::{Snapshot, Transaction};
pub use url::DatabaseUrl;

pub use keyferry_seal as seal;
