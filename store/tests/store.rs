//! What holds on both databases.

use keyferry_store::{Migration, Reader, Schema, SealedColumn, Sql, StoreError, on_both_databases, sql};

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
            name: "an index",
            sql: Sql::Each {
                sqlite: "CREATE INDEX secrets_name ON secrets (name)",
                postgres: "CREATE INDEX secrets_name ON secrets USING btree (name)",
            },
        },
    ],
    sealed: &[VALUE],
};

on_both_databases! {
    async fn what_is_committed_is_read_with_its_types(database) {
        let store = database.open(&[SCHEMA]).await;
        let mut transaction = store.begin().await.expect("begins");
        transaction.execute(sql("INSERT INTO owners (id, name) VALUES ($1, $2)").bind("o1").bind("Ann")).await.expect("inserts");
        let insert = sql("INSERT INTO secrets (id, owner, name, priority, enabled, ratio, value) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id")
            .bind("s1").bind("o1").bind("token").bind(i64::MAX).bind(false).bind(0.25).bind(&b"\0\xff"[..]);
        let inserted = transaction.fetch_one(insert).await.expect("inserts");
        assert_eq!(inserted.get::<String>("id"), Ok("s1".to_owned()));
        assert!(store.fetch_optional(sql("SELECT id FROM secrets")).await.expect("reads").is_none(), "not committed yet");
        transaction.commit().await.expect("commits");

        let row = store.fetch_one(sql("SELECT * FROM secrets WHERE id = $1").bind("s1")).await.expect("reads");
        assert_eq!(row.get::<i64>("priority"), Ok(i64::MAX));
        assert_eq!(row.get::<bool>("enabled"), Ok(false));
        assert_eq!(row.get::<Option<f64>>("ratio"), Ok(Some(0.25)));
        assert_eq!(row.get::<Option<Vec<u8>>>("value"), Ok(Some(b"\0\xff".to_vec())));
        assert!(matches!(row.get::<i64>("name"), Err(StoreError::Column { column, .. }) if column == "name"));
        assert!(matches!(row.get::<i64>("nothing"), Err(StoreError::Column { .. })));
    }
}
