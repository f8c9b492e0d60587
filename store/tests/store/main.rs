//! What holds on both databases.

mod availability;
mod changes;
mod migrations;
mod rows;
mod sealed;

use keyferry_store::{Migration, Schema, SealedColumn, Sql, Store, StoreError, sql};

const VALUE: SealedColumn = SealedColumn { table: "secrets", column: "value", id: "id" };

const SCHEMA: Schema = Schema {
    name: "example",
    migrations: &[
        Migration {
            name: "owners and their secrets",
            sql: Sql::Both(
                "CREATE TABLE owners (id TEXT PRIMARY KEY, name TEXT NOT NULL, UNIQUE (name));
                 CREATE TABLE secrets (
                     id TEXT PRIMARY KEY,
                     owner TEXT NOT NULL REFERENCES owners (id),
                     name TEXT NOT NULL CHECK (name <> ''),
                     priority BIGINT NOT NULL DEFAULT 0,
                     enabled BOOLEAN NOT NULL DEFAULT TRUE,
                     ratio DOUBLE PRECISION,
                     value BYTEA,
                     UNIQUE (owner, name)
                 );",
            ),
        },
        Migration {
            name: "one preferred secret of each name",
            sql: Sql::Each {
                sqlite: "CREATE UNIQUE INDEX secrets_lower_name_key ON secrets (owner, lower(name)) WHERE priority > 0",
                postgres: "CREATE UNIQUE INDEX secrets_lower_name_key ON secrets USING btree (owner, lower(name)) WHERE priority > 0",
            },
        },
    ],
    sealed: &[VALUE],
};

async fn add_owner(store: &Store, id: &str, name: &str) -> Result<u64, StoreError> {
    store.execute(sql("INSERT INTO owners (id, name) VALUES ($1, $2)").bind(id).bind(name)).await
}

async fn add_secret(store: &Store, id: &str, owner: &str, name: &str) -> Result<u64, StoreError> {
    let insert = sql("INSERT INTO secrets (id, owner, name) VALUES ($1, $2, $3)");
    store.execute(insert.bind(id).bind(owner).bind(name)).await
}

/// The texts of one column, in the order of the answer.
async fn texts(mut from: impl keyferry_store::Reader, statement: keyferry_store::Statement) -> Vec<String> {
    let rows = from.fetch_all(statement).await.expect("reads");
    rows.iter().map(|row| row.get("name").expect("a text")).collect()
}
