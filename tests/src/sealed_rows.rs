//! A service as small as can be, for tests that end one in the middle of a write: pairs of sealed rows.

use keyferry_store::{Migration, Reader, Schema, SealedColumn, Sql, Statement, Store, StoreError, sql};
use secrecy::{ExposeSecret, SecretString};

/// Where the values are.
pub const VALUE: SealedColumn = SealedColumn { table: "pairs", column: "value", id: "id" };

/// What it keeps.
pub const SCHEMA: Schema = Schema {
    name: "pairs",
    migrations: &[Migration {
        name: "pairs of rows that only exist together",
        sql: Sql::Both(
            "CREATE TABLE pairs (id TEXT PRIMARY KEY, number BIGINT NOT NULL, value BYTEA NOT NULL)",
        ),
    }],
    sealed: &[VALUE],
};

/// Commits the pairs with these numbers as one.
///
/// # Errors
/// The database's.
pub async fn write_pairs(store: &Store, numbers: impl Iterator<Item = i64>) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    for number in numbers {
        for side in ["left", "right"] {
            let id = format!("{side}-{number:08}");
            let sealed = store.seal(&VALUE, &id, &SecretString::from(format!("value of {id}")))?;
            let insert = sql("INSERT INTO pairs (id, number, value) VALUES ($1, $2, $3)");
            transaction.execute(insert.bind(id).bind(number).bind(sealed)).await?;
        }
    }
    transaction.commit().await
}

/// The numbers of all pairs, in order. Every value opens, and no pair has lost one of its rows.
///
/// # Panics
/// One does not open, or stands alone.
pub async fn read_pairs(store: &Store) -> Vec<i64> {
    let mut snapshot = store.snapshot().await.expect("the database can be read");
    let all: Statement = sql("SELECT id, number, value FROM pairs ORDER BY number, id");
    let rows = snapshot.fetch_all(all).await.expect("the rows can be read");
    let numbers: Vec<i64> = rows
        .iter()
        .map(|row| {
            let id: String = row.get("id").expect("an id");
            let sealed = row.sealed("value").expect("a value");
            let value = store.unseal(&VALUE, &id, &sealed).expect("the value opens");
            assert_eq!(value.expose_secret(), format!("value of {id}"));
            row.get("number").expect("a number")
        })
        .collect();
    numbers
        .chunks(2)
        .map(|pair| {
            assert_eq!(pair, [pair[0], pair[0]], "a pair is whole");
            pair[0]
        })
        .collect()
}
