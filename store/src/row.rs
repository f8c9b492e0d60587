//! A row of an answer.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Postgres, Sqlite, Type, ValueRef};

use crate::{Sealed, StoreError};

/// A row of an answer, from either database.
pub struct Row(pub(crate) Kind);

pub(crate) enum Kind {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as: `String`, `i64`, `bool`, `f64`, `Vec<u8>`, and `Option` of these.
pub trait Column:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
    /// Whether NULL is a value of this type. SQLite's driver would read NULL as 0, or as an empty text.
    const TAKES_NULL: bool;
}

macro_rules! columns {
    ($($type:ty),+) => {$(
        impl Column for $type {
            const TAKES_NULL: bool = false;
        }

        impl Column for Option<$type> {
            const TAKES_NULL: bool = true;
        }
    )+};
}

columns!(String, i64, bool, f64, Vec<u8>);

impl Row {
    /// The value of a column.
    ///
    /// # Errors
    ///
    /// No such column; NULL where `T` is no `Option`; another type.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, StoreError> {
        let value = match &self.0 {
            Kind::Sqlite(row) => read(row, column),
            Kind::Postgres(row) => read(row, column),
        };
        value.map_err(|error| StoreError::Column { column: column.to_owned(), reason: error.to_string() })
    }

    /// A sealed column, for [`crate::Store::unseal`].
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn sealed(&self, column: &str) -> Result<Sealed, StoreError> {
        self.get(column).map(Sealed::from_bytes)
    }

    /// A sealed column that may be NULL.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn sealed_if_any(&self, column: &str) -> Result<Option<Sealed>, StoreError> {
        Ok(self.get::<Option<Vec<u8>>>(column)?.map(Sealed::from_bytes))
    }
}

fn read<'r, R, T>(row: &'r R, column: &str) -> Result<T, sqlx::Error>
where
    R: sqlx::Row,
    for<'c> &'c str: ColumnIndex<R>,
    T: Column + Decode<'r, R::Database> + Type<R::Database>,
{
    if !T::TAKES_NULL && row.try_get_raw(column)?.is_null() {
        return Err(sqlx::Error::Decode("it is NULL".into()));
    }
    row.try_get(column)
}
