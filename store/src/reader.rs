//! One way to ask, whoever is asked.

use std::future::Future;

use crate::row::Kind;
use crate::{Row, Statement, Store, StoreError};

/// What answers queries: a [`Store`], a [`crate::Transaction`], a [`crate::Snapshot`].
///
/// A function of a repository takes `&mut impl Reader`, so that it works inside a transaction and outside.
pub trait Reader: Send {
    /// All rows.
    fn fetch_all(
        &mut self,
        statement: Statement,
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send;

    /// The first row, if any.
    fn fetch_optional(
        &mut self,
        statement: Statement,
    ) -> impl Future<Output = Result<Option<Row>, StoreError>> + Send;

    /// The first row, which must be there.
    fn fetch_one(&mut self, statement: Statement) -> impl Future<Output = Result<Row, StoreError>> + Send {
        async { self.fetch_optional(statement).await?.ok_or(StoreError::NoRow) }
    }
}

/// Each query on its own, on any connection; on SQLite it cannot write.
impl Reader for &Store {
    async fn fetch_all(&mut self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        Store::fetch_all(self, statement).await
    }

    async fn fetch_optional(&mut self, statement: Statement) -> Result<Option<Row>, StoreError> {
        Store::fetch_optional(self, statement).await
    }
}

/// A connection of either database, or a pool of them.
pub(crate) enum Executor<S, P> {
    Sqlite(S),
    Postgres(P),
}

impl<'c, S, P> Executor<S, P>
where
    S: sqlx::Executor<'c, Database = sqlx::Sqlite>,
    P: sqlx::Executor<'c, Database = sqlx::Postgres>,
{
    pub(crate) async fn fetch_all(self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(on) => {
                let rows = statement.for_sqlite().fetch_all(on).await?;
                rows.into_iter().map(|row| Row(Kind::Sqlite(row))).collect()
            }
            Self::Postgres(on) => {
                let rows = statement.for_postgres().fetch_all(on).await?;
                rows.into_iter().map(|row| Row(Kind::Postgres(row))).collect()
            }
        })
    }

    pub(crate) async fn fetch_optional(self, statement: Statement) -> Result<Option<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(on) => {
                statement.for_sqlite().fetch_optional(on).await?.map(|row| Row(Kind::Sqlite(row)))
            }
            Self::Postgres(on) => {
                statement.for_postgres().fetch_optional(on).await?.map(|row| Row(Kind::Postgres(row)))
            }
        })
    }

    pub(crate) async fn execute(self, statement: Statement) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(on) => statement.for_sqlite().execute(on).await?.rows_affected(),
            Self::Postgres(on) => statement.for_postgres().execute(on).await?.rows_affected(),
        })
    }
}
