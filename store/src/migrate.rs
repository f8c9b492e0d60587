//! Bringing a database up to what this release expects.

use aws_lc_rs::digest;

use crate::{Dialect, Reader, SealedColumn, Store, StoreError, Transaction, sql};

/// What one crate keeps in the database.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The crate's name.
    pub name: &'static str,
    /// In this order, for ever: a release adds at the end and changes nothing before it.
    pub migrations: &'static [Migration],
    /// All columns that hold sealed values, so that a rotation of keys finds them.
    pub sealed: &'static [SealedColumn],
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// What it does, in a few words.
    pub name: &'static str,
    /// How.
    pub sql: Sql,
}

/// Statements, without parameters.
#[derive(Clone, Copy, Debug)]
pub enum Sql {
    /// The same for both databases.
    Both(&'static str),
    /// What cannot be written once.
    Each {
        /// For SQLite.
        sqlite: &'static str,
        /// For PostgreSQL.
        postgres: &'static str,
    },
}

impl Sql {
    fn of(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Both(sql), _) => sql,
            (Self::Each { sqlite, .. }, Dialect::Sqlite) => sqlite,
            (Self::Each { postgres, .. }, Dialect::Postgres) => postgres,
        }
    }
}

const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS store_migrations (
    schema_name TEXT NOT NULL,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (schema_name, position)
);
CREATE TABLE IF NOT EXISTS store_sealed_columns (
    table_name TEXT NOT NULL,
    column_name TEXT NOT NULL,
    id_column TEXT NOT NULL,
    PRIMARY KEY (table_name, column_name)
);
";

/// All of it is one transaction, under a lock: killed midway, nothing has happened; started twice, the second one finds it done.
pub(crate) async fn run(store: &Store, schemas: &[Schema]) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    if store.dialect() == Dialect::Postgres {
        // Many replicas may start at once behind a long migration.
        transaction.run_script("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0").await?;
    }
    transaction.lock("keyferry migrations").await?;
    transaction.run_script(OWN_TABLES).await?;
    for schema in schemas {
        apply(&mut transaction, store.dialect(), schema).await?;
    }
    transaction.commit().await
}

async fn apply(transaction: &mut Transaction, dialect: Dialect, schema: &Schema) -> Result<(), StoreError> {
    let rows = transaction
        .fetch_all(
            sql("SELECT position, name, checksum FROM store_migrations WHERE schema_name = $1 ORDER BY position")
                .bind(schema.name),
        )
        .await?;
    let mut known = schema.migrations.iter();
    for row in &rows {
        let (position, name) = (row.get("position")?, row.get::<String>("name")?);
        let differs = |name: String, difference| StoreError::Migration {
            schema: schema.name.to_owned(),
            position,
            name,
            difference,
        };
        let Some(migration) = known.next() else {
            return Err(differs(name, "is of a newer release"));
        };
        if row.get::<String>("checksum")? != checksum(migration.sql.of(dialect)) {
            return Err(differs(name, "was applied in another form"));
        }
    }
    for (migration, position) in known.zip(rows.len() as i64 + 1..) {
        let failed = |error: StoreError| match error {
            StoreError::Unavailable { .. } | StoreError::Conflict => error,
            error => StoreError::MigrationFailed {
                schema: schema.name,
                name: migration.name,
                reason: error.to_string(),
            },
        };
        let script = migration.sql.of(dialect);
        transaction.run_script(script).await.map_err(failed)?;
        transaction
            .execute(
                sql("INSERT INTO store_migrations (schema_name, position, name, checksum) VALUES ($1, $2, $3, $4)")
                    .bind(schema.name)
                    .bind(position)
                    .bind(migration.name)
                    .bind(checksum(script)),
            )
            .await?;
    }
    for column in schema.sealed {
        transaction
            .execute(
                sql("INSERT INTO store_sealed_columns (table_name, column_name, id_column) VALUES ($1, $2, $3) \
                     ON CONFLICT (table_name, column_name) DO UPDATE SET id_column = excluded.id_column")
                .bind(column.table)
                .bind(column.column)
                .bind(column.id),
            )
            .await?;
    }
    Ok(())
}

fn checksum(script: &str) -> String {
    let digest = digest::digest(&digest::SHA256, script.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
