//! Columns that nobody can read on disk, and the rotation of the keys around them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::PoisonError;

use keyferry_seal::{KEY_ID_LENGTH, KEY_ID_OFFSET, KeyId, Place, SealError};
use secrecy::{ExposeSecret, SecretString};

use crate::{Reader, Row, Schema, Statement, Store, StoreError, sql};

/// A column of type `BYTEA` that holds sealed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealedColumn {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The table's primary key, one column of type `TEXT` that never changes.
    pub id: &'static str,
}

/// A value as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed")
    }
}

/// How many values of a column are sealed with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The key.
    pub key: KeyId,
    /// How many values.
    pub values: u64,
}

/// What a rotation has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Values that are under the current key now and were not before.
    pub values: u64,
}

/// How many values are wrapped anew in one transaction: little enough that nobody waits for it.
const BATCH: i64 = 100;

impl Store {
    /// Seals a value for one row.
    ///
    /// # Errors
    ///
    /// No schema declares this column.
    pub fn seal(&self, column: &SealedColumn, row: &str, value: &SecretString) -> Result<Sealed, StoreError> {
        if !self.sealed_columns().contains(column) {
            return Err(StoreError::NotDeclared { table: column.table, column: column.column });
        }
        let sealed = self.0.keys.seal(&column.place(row), value.expose_secret().as_bytes())?;
        Ok(Sealed(sealed))
    }

    /// Opens what was sealed for this very row.
    ///
    /// # Errors
    ///
    /// Its key is missing; it was altered; it belongs to another row.
    pub fn unseal(
        &self,
        column: &SealedColumn,
        row: &str,
        sealed: &Sealed,
    ) -> Result<SecretString, StoreError> {
        let place = column.place(row);
        let value = self.0.keys.open(&place, &sealed.0)?;
        // Only text is ever sealed.
        let text =
            str::from_utf8(&value).map_err(|_| SealError::NotAnEnvelope { place: place.to_string() })?;
        Ok(SecretString::from(text))
    }

    /// How many values are sealed with which key, over all columns that any service ever declared.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn census(&self) -> Result<Vec<Census>, StoreError> {
        let mut census = Vec::new();
        for column in self.registered().await? {
            let Registered { table, column, .. } = column;
            let statement = Statement::of_identifiers(format!(
                "SELECT key_id, COUNT(*) AS amount FROM (SELECT substr({column}, {KEY_ID_START}, {KEY_ID_LENGTH}) AS key_id \
                 FROM {table} WHERE {column} IS NOT NULL) AS keys GROUP BY key_id ORDER BY key_id"
            ));
            for row in self.fetch_all(statement).await? {
                let bytes: Vec<u8> = row.get("key_id")?;
                let key = bytes
                    .try_into()
                    .map(KeyId::from_bytes)
                    .map_err(|_| SealError::NotAnEnvelope { place: format!("{table}.{column}") })?;
                let values = u64::try_from(row.get::<i64>("amount")?).unwrap_or(0);
                census.push(Census { table: table.clone(), column: column.clone(), key, values });
            }
        }
        Ok(census)
    }

    /// Wraps every value with the keyring's current key that is not yet. Others read and write meanwhile. Killed midway, it
    /// goes on where it was when it is called again. `progress` is called after each batch, and may end it there.
    ///
    /// # Errors
    ///
    /// The database's; a value that does not open.
    pub async fn rewrap(
        &self,
        mut progress: impl FnMut(Rewrapped) -> ControlFlow<()>,
    ) -> Result<Rewrapped, StoreError> {
        let mut done = Rewrapped::default();
        for column in self.registered().await? {
            // In the order of ids, so that a value that somebody writes with an older key meanwhile cannot keep it busy.
            let mut after = String::new();
            while let Some(last) = self.rewrap_batch(&column, &after, &mut done).await? {
                after = last;
                if progress(done).is_break() {
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }

    /// The last id of the batch, or `None` if nothing was left.
    async fn rewrap_batch(
        &self,
        column: &Registered,
        after: &str,
        done: &mut Rewrapped,
    ) -> Result<Option<String>, StoreError> {
        let keyring = self.0.keys.current();
        let Registered { table, column, id } = column;
        let mut transaction = self.begin().await?;
        let rows = transaction
            .fetch_all(
                Statement::of_identifiers(format!(
                    "SELECT {id} AS id, {column} AS sealed FROM {table} WHERE {column} IS NOT NULL AND {id} > $1 \
                     AND substr({column}, {KEY_ID_START}, {KEY_ID_LENGTH}) <> $2 ORDER BY {id} LIMIT {BATCH}"
                ))
                .bind(after)
                .bind(keyring.current().as_bytes().as_slice()),
            )
            .await?;
        let mut last = None;
        for row in rows {
            let row_id: String = row.get("id")?;
            let sealed: Vec<u8> = row.get("sealed")?;
            let place = Place { table, column, row: &row_id };
            if let Some(rewrapped) = keyring.rewrap(&place, &sealed)? {
                // Unless somebody has written another value since: that one is found by the next pass, if need be.
                let update = Statement::of_identifiers(format!(
                    "UPDATE {table} SET {column} = $1 WHERE {id} = $2 AND {column} = $3"
                ));
                let statement = update.bind(rewrapped).bind(row_id.as_str()).bind(sealed);
                done.values += transaction.execute(statement).await?;
            }
            last = Some(row_id);
        }
        transaction.commit().await?;
        Ok(last)
    }

    pub(crate) fn declare(&self, schemas: &[Schema]) {
        self.sealed_columns().extend(schemas.iter().flat_map(|schema| schema.sealed.iter().copied()));
    }

    /// Whether the keyring opens everything, by the ids of its keys.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::KeysMissing`].
    pub async fn check_keys(&self) -> Result<(), StoreError> {
        let keyring = self.0.keys.current();
        let mut missing: BTreeMap<KeyId, u64> = BTreeMap::new();
        for count in self.census().await? {
            if !keyring.contains(count.key) {
                *missing.entry(count.key).or_default() += count.values;
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(StoreError::KeysMissing { missing: missing.into_iter().collect() })
    }

    /// From the database, so that a rotation needs no service to know what is sealed.
    pub(crate) async fn registered(&self) -> Result<Vec<Registered>, StoreError> {
        let rows = self
            .fetch_all(sql(
                "SELECT table_name, column_name, id_column FROM store_sealed_columns ORDER BY table_name, column_name",
            ))
            .await?;
        rows.iter().map(Registered::read).collect()
    }

    fn sealed_columns(&self) -> std::sync::MutexGuard<'_, BTreeSet<SealedColumn>> {
        self.0.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SQL counts from 1.
const KEY_ID_START: usize = KEY_ID_OFFSET + 1;

impl SealedColumn {
    fn place<'a>(&self, row: &'a str) -> Place<'a> {
        Place { table: self.table, column: self.column, row }
    }
}

pub(crate) struct Registered {
    table: String,
    column: String,
    id: String,
}

impl Registered {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let name = |column: &str| {
            let name: String = row.get(column)?;
            // They become part of statements, and a database is input like any other.
            let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if plain {
                Ok(name)
            } else {
                Err(StoreError::failed("store_sealed_columns holds a name that is none"))
            }
        };
        Ok(Self { table: name("table_name")?, column: name("column_name")?, id: name("id_column")? })
    }
}
