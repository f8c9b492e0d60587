//! The store: opening it, and asking it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyferry_seal::Keys;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{ConnectOptions, PgPool, SqlitePool};

use crate::changes::Hub;
use crate::reader::Executor;
use crate::url::Connect;
use crate::{DatabaseUrl, Row, Schema, SealedColumn, Statement, StoreError, migrate};

/// Connections of one process to PostgreSQL, and to a SQLite file for reading.
const POSTGRES_CONNECTIONS: u32 = 16;
const SQLITE_READERS: u32 = 8;
/// How long a caller waits for a connection before it hears that the database is unavailable.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open database. Clones share its connections.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) pools: Pools,
    pub(crate) keys: Keys,
    pub(crate) sealed: Mutex<BTreeSet<SealedColumn>>,
    pub(crate) hub: Hub,
    queries: AtomicU64,
}

pub(crate) enum Pools {
    Sqlite {
        /// One connection: a second writer would only wait for the first one inside SQLite.
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
}

/// Which database it is, for the few statements that cannot be written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.dialect()).finish()
    }
}

impl Store {
    /// Opens the database, applies what is missing of the schemas, and checks that the keyring opens what is sealed in it.
    ///
    /// # Errors
    ///
    /// It is not there; it was written by another release; [`StoreError::KeysMissing`].
    pub async fn open(url: &DatabaseUrl, keys: Keys, schemas: &[Schema]) -> Result<Self, StoreError> {
        url.create()?;
        let store = Self::connect(url, keys).await?;
        migrate::run(&store, schemas).await?;
        store.declare(schemas);
        store.check_keys().await?;
        Ok(store)
    }

    /// A database that exists, as it is: nothing is created, migrated, or compared with the keyring. For those who look after
    /// the keys, and know nothing of the services.
    ///
    /// # Errors
    ///
    /// It is not there, or no service of ours has ever opened it.
    pub async fn attach(url: &DatabaseUrl, keys: Keys) -> Result<Self, StoreError> {
        url.must_exist()?;
        let store = Self::connect(url, keys).await?;
        match store.registered().await {
            Err(StoreError::Failed { .. }) => Err(StoreError::Foreign { url: url.to_string() }),
            outcome => outcome.map(|_| store),
        }
    }

    async fn connect(url: &DatabaseUrl, keys: Keys) -> Result<Self, StoreError> {
        let (pools, hub) = match url.connect() {
            Connect::Sqlite(options) => {
                let writer = SqlitePoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(PATIENCE)
                    // Never empty: the last connection to close would throw the write-ahead log away, over and over.
                    .min_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .connect_with(options.as_ref().clone())
                    .await?;
                let readers = SqlitePoolOptions::new()
                    .max_connections(SQLITE_READERS)
                    .acquire_timeout(PATIENCE)
                    .connect_lazy_with(options.pragma("query_only", "ON"));
                (Pools::Sqlite { writer, readers }, Hub::within_process())
            }
            Connect::Postgres(options) => {
                reach(&options).await?;
                let pool = PgPoolOptions::new()
                    .max_connections(POSTGRES_CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .connect_lazy_with(options.as_ref().clone());
                (Pools::Postgres(pool), Hub::between_processes(*options))
            }
        };
        Ok(Self(Arc::new(Inner { pools, keys, sealed: Mutex::default(), hub, queries: AtomicU64::new(0) })))
    }

    /// Which database it is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.0.pools {
            Pools::Sqlite { .. } => Dialect::Sqlite,
            Pools::Postgres(_) => Dialect::Postgres,
        }
    }

    /// All rows, read outside of any transaction.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn fetch_all(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        self.reading().fetch_all(statement).await
    }

    /// The first row, if any.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn fetch_optional(&self, statement: Statement) -> Result<Option<Row>, StoreError> {
        self.reading().fetch_optional(statement).await
    }

    /// The first row, which must be there.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::NoRow`].
    pub async fn fetch_one(&self, statement: Statement) -> Result<Row, StoreError> {
        self.fetch_optional(statement).await?.ok_or(StoreError::NoRow)
    }

    /// One statement that writes, as a transaction of its own; how many rows it changed.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn execute(&self, statement: Statement) -> Result<u64, StoreError> {
        self.count_query();
        let on = match &self.0.pools {
            Pools::Sqlite { writer, .. } => Executor::Sqlite(writer),
            Pools::Postgres(pool) => Executor::Postgres(pool),
        };
        on.execute(statement).await
    }

    /// How many statements were sent so far, so that a test can show that their number does not grow with the rows.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.0.queries.load(Ordering::Relaxed)
    }

    /// Closes all connections, once what runs on them has ended.
    pub async fn close(&self) {
        match &self.0.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    pub(crate) fn count_query(&self) {
        self.0.queries.fetch_add(1, Ordering::Relaxed);
    }

    fn reading(&self) -> Executor<&SqlitePool, &PgPool> {
        self.count_query();
        match &self.0.pools {
            Pools::Sqlite { readers, .. } => Executor::Sqlite(readers),
            Pools::Postgres(pool) => Executor::Postgres(pool),
        }
    }
}

/// One connection by hand: a pool says only that none could be had in time, not why.
async fn reach(options: &PgConnectOptions) -> Result<(), StoreError> {
    let attempt = tokio::time::timeout(PATIENCE, options.connect());
    let connection = attempt.await.map_err(|_| StoreError::unavailable("it does not answer"))??;
    let _ = sqlx::Connection::close(connection).await;
    Ok(())
}
