//! What is committed as a whole, and what is read from one moment.

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection};

use crate::open::Pools;
use crate::reader::Executor;
use crate::{Change, Dialect, MAX_PAYLOAD_BYTES, Reader, Row, Statement, Store, StoreError, sql};

/// A transaction that writes. What is not committed is undone when it is dropped.
///
/// On SQLite it begins with `BEGIN IMMEDIATE`: whoever has one is the only writer, so that no statement in it can fail for
/// another writer. On PostgreSQL each statement sees what was committed before it; [`Transaction::lock`] makes others wait.
///
/// While it is open, ask it and not the store: on SQLite, a write of the store would wait for it in vain.
pub struct Transaction {
    on: Open,
    store: Store,
    /// Told once it is committed.
    changes: Vec<Change>,
}

/// Reads that see one moment of the database, whatever is committed meanwhile.
pub struct Snapshot {
    on: Open,
    store: Store,
}

enum Open {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Open {
    fn executor(&mut self) -> Executor<&mut SqliteConnection, &mut PgConnection> {
        match self {
            Self::Sqlite(transaction) => Executor::Sqlite(&mut **transaction),
            Self::Postgres(transaction) => Executor::Postgres(&mut **transaction),
        }
    }
}

impl Store {
    /// Begins a transaction.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::Conflict`] where another process keeps a SQLite file for more than 5 s.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_as("BEGIN").await
    }

    /// Begins a transaction that is committed only if it could have run alone; otherwise it fails with
    /// [`StoreError::Conflict`], at any statement, and is to be run again. On SQLite every transaction is like this, and none fails.
    ///
    /// # Errors
    ///
    /// As [`Store::begin`].
    pub async fn begin_serializable(&self) -> Result<Transaction, StoreError> {
        self.begin_as("BEGIN ISOLATION LEVEL SERIALIZABLE").await
    }

    async fn begin_as(&self, postgres: &'static str) -> Result<Transaction, StoreError> {
        let on = match &self.0.pools {
            Pools::Sqlite { writer, .. } => Open::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres(pool) => Open::Postgres(pool.begin_with(postgres).await?),
        };
        Ok(Transaction { on, store: self.clone(), changes: Vec::new() })
    }

    /// Reads from here on see the database as it is at the first of them.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let on = match &self.0.pools {
            Pools::Sqlite { readers, .. } => Open::Sqlite(readers.begin_with("BEGIN DEFERRED").await?),
            Pools::Postgres(pool) => {
                Open::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
            }
        };
        Ok(Snapshot { on, store: self.clone() })
    }
}

impl Transaction {
    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    ///
    /// The database's. On PostgreSQL the transaction can only be dropped then.
    pub async fn execute(&mut self, statement: Statement) -> Result<u64, StoreError> {
        self.store.count_query();
        self.on.executor().execute(statement).await
    }

    /// Waits until no other transaction holds the lock of this name, and holds it to the end. What the statements after it read
    /// is then no older than the last commit of a holder.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::Conflict`] after 10 s.
    pub async fn lock(&mut self, name: &str) -> Result<(), StoreError> {
        match self.store.dialect() {
            // Whoever writes is alone already.
            Dialect::Sqlite => Ok(()),
            Dialect::Postgres => {
                let statement = sql("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").bind(name);
                self.fetch_all(statement).await.map(drop)
            }
        }
    }

    /// Tells all who listen to this channel, in all replicas, once the transaction is committed.
    ///
    /// # Errors
    ///
    /// The database's; longer than [`MAX_PAYLOAD_BYTES`].
    pub async fn announce(&mut self, channel: &'static str, payload: &str) -> Result<(), StoreError> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(StoreError::ChangeTooLong { channel });
        }
        let change = Change { channel: channel.to_owned(), payload: payload.to_owned() };
        match self.store.dialect() {
            Dialect::Sqlite => self.changes.push(change),
            Dialect::Postgres => {
                let statement =
                    sql("SELECT pg_notify($1, $2)").bind(crate::changes::CHANNEL).bind(change.encode());
                self.fetch_all(statement).await?;
            }
        }
        Ok(())
    }

    /// Makes it last.
    ///
    /// # Errors
    ///
    /// The database's. After [`StoreError::Unavailable`] it may have been committed or not.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self.on {
            Open::Sqlite(transaction) => transaction.commit().await?,
            Open::Postgres(transaction) => transaction.commit().await?,
        }
        for change in self.changes {
            self.store.0.hub.tell(change);
        }
        Ok(())
    }

    /// Undoes it, and waits until that is done.
    ///
    /// # Errors
    ///
    /// The database's; it is undone all the same.
    pub async fn roll_back(self) -> Result<(), StoreError> {
        match self.on {
            Open::Sqlite(transaction) => transaction.rollback().await?,
            Open::Postgres(transaction) => transaction.rollback().await?,
        }
        Ok(())
    }

    /// Statements without parameters, as migrations are.
    pub(crate) async fn run_script(&mut self, script: &'static str) -> Result<(), StoreError> {
        self.store.count_query();
        match &mut self.on {
            Open::Sqlite(transaction) => {
                sqlx::Executor::execute(&mut **transaction, sqlx::raw_sql(script)).await?;
            }
            Open::Postgres(transaction) => {
                sqlx::Executor::execute(&mut **transaction, sqlx::raw_sql(script)).await?;
            }
        }
        Ok(())
    }
}

impl Reader for Transaction {
    async fn fetch_all(&mut self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        self.store.count_query();
        self.on.executor().fetch_all(statement).await
    }

    async fn fetch_optional(&mut self, statement: Statement) -> Result<Option<Row>, StoreError> {
        self.store.count_query();
        self.on.executor().fetch_optional(statement).await
    }
}

impl Reader for Snapshot {
    async fn fetch_all(&mut self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        self.store.count_query();
        self.on.executor().fetch_all(statement).await
    }

    async fn fetch_optional(&mut self, statement: Statement) -> Result<Option<Row>, StoreError> {
        self.store.count_query();
        self.on.executor().fetch_optional(statement).await
    }
}
