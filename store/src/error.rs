//! What can go wrong between us and a database. No variant carries a bound value or a password.

use keyferry_seal::{KeyId, SealError};

/// Why the database did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or cannot serve now. Trying again later may help.
    ///
    /// From [`crate::Transaction::commit`] it means that nobody knows whether the transaction was committed.
    #[error("the database is unavailable: {reason}")]
    Unavailable {
        /// What the driver said.
        reason: String,
    },
    /// Others wrote at the same time, and this transaction had to give way. Running it again helps.
    #[error("the transaction gave way to another one\nhint: try again")]
    Conflict,
    /// A row with this key exists.
    #[error("a row like this exists already ({constraint})")]
    Duplicate {
        /// `TABLE_COLUMNS_key` or `TABLE_pkey`, on both databases; the name of an index over an expression.
        constraint: String,
    },
    /// A row that this one refers to does not exist, or a row that is to go is still referred to.
    #[error("the row refers to one that does not exist, or is referred to itself")]
    Reference,
    /// A value that its column does not take.
    #[error("the database refuses a value: {reason}")]
    Refused {
        /// Which check or column.
        reason: String,
    },
    /// A query found no row where there must be one.
    #[error("the database lacks a row that must be there")]
    NoRow,
    /// A column that is not in the answer, or of another type. A mistake in a query.
    #[error("column {column} cannot be read: {reason}")]
    Column {
        /// The column.
        column: String,
        /// What the driver said.
        reason: String,
    },
    /// The database said no in another way. A mistake in a query, or a damaged database.
    #[error("the database failed: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
    /// The URL names no database that we can open.
    #[error(
        "the database URL is wrong: {reason}\nhint: write sqlite:FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be made.
    #[error("the database file {file} cannot be opened: {reason}")]
    File {
        /// The path.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// None of our tables is in it.
    #[error("{url} holds nothing of keyferry's\nhint: name the database that the service was started with")]
    Foreign {
        /// Which one.
        url: String,
    },
    /// What was applied once has changed since.
    #[error(
        "the database's schema {schema} does not follow from this release: migration {position} ({name}) {difference}\nhint: run the release that wrote this database, or restore a backup"
    )]
    Migration {
        /// Whose.
        schema: String,
        /// Which, from 1.
        position: i64,
        /// Its name in the database.
        name: String,
        /// How it differs.
        difference: &'static str,
    },
    /// A migration does not run.
    #[error("migration {name} of {schema} failed: {reason}")]
    MigrationFailed {
        /// Whose.
        schema: &'static str,
        /// Which.
        name: &'static str,
        /// What the database said.
        reason: String,
    },
    /// A change that is longer than PostgreSQL carries.
    #[error("a change on {channel} is longer than {} bytes", crate::MAX_PAYLOAD_BYTES)]
    ChangeTooLong {
        /// Its channel.
        channel: &'static str,
    },
    /// A value was to be sealed in a column that no schema declares: a rotation would not find it.
    #[error("{table}.{column} is not declared as sealed")]
    NotDeclared {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// Values in the database were sealed with keys that the keyring lacks.
    #[error("the keyring lacks keys that this database was sealed with: {}\nhint: use the keyring that belongs to this database; `keyferry keyring status` counts values by key", listed(.missing))]
    KeysMissing {
        /// Key, and how many values need it.
        missing: Vec<(KeyId, u64)>,
    },
    /// A value cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl StoreError {
    pub(crate) fn unavailable(reason: impl ToString) -> Self {
        Self::Unavailable { reason: reason.to_string() }
    }

    pub(crate) fn failed(reason: impl ToString) -> Self {
        Self::Failed { reason: reason.to_string() }
    }
}

fn listed(missing: &[(KeyId, u64)]) -> String {
    let rows: Vec<_> = missing.iter().map(|(id, rows)| format!("{id} ({rows} values)")).collect();
    rows.join(", ")
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => from_database(&*error),
            sqlx::Error::PoolTimedOut => Self::unavailable("no connection could be had in time"),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::unavailable(error),
            sqlx::Error::RowNotFound => Self::NoRow,
            error => Self::failed(error),
        }
    }
}

fn from_database(error: &dyn sqlx::error::DatabaseError) -> StoreError {
    use sqlx::error::ErrorKind;
    match error.kind() {
        ErrorKind::UniqueViolation => StoreError::Duplicate { constraint: constraint(error) },
        ErrorKind::ForeignKeyViolation => StoreError::Reference,
        // Only the message: a detail would show the row.
        ErrorKind::NotNullViolation | ErrorKind::CheckViolation => {
            StoreError::Refused { reason: error.message().to_owned() }
        }
        _ => match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
            Some(postgres) => from_postgres(postgres),
            None => from_sqlite(error),
        },
    }
}

/// Classes and codes: PostgreSQL's appendix A.
fn from_postgres(error: &sqlx::postgres::PgDatabaseError) -> StoreError {
    let code = error.code();
    match code {
        "40001" | "40P01" | "55P03" => StoreError::Conflict,
        // A read-only server is a standby that has not taken over yet.
        "25006" | "57014" => StoreError::unavailable(error.message()),
        _ if matches!(&code[..2.min(code.len())], "08" | "53" | "57" | "58") => {
            StoreError::unavailable(error.message())
        }
        _ => StoreError::failed(error.message()),
    }
}

fn from_sqlite(error: &dyn sqlx::error::DatabaseError) -> StoreError {
    const BUSY: i64 = 5;
    const LOCKED: i64 = 6;
    const IO: i64 = 10;
    const FULL: i64 = 13;
    const CANNOT_OPEN: i64 = 14;
    let code = error.code().and_then(|code| code.parse::<i64>().ok()).unwrap_or(0);
    // The low byte is the kind, the others say more about it.
    match code & 0xff {
        BUSY | LOCKED => StoreError::Conflict,
        IO | FULL | CANNOT_OPEN => StoreError::unavailable(error.message()),
        _ => StoreError::failed(error.message()),
    }
}

/// PostgreSQL says the constraint, SQLite the columns; both become the name that PostgreSQL gives by default.
fn constraint(error: &dyn sqlx::error::DatabaseError) -> String {
    if let Some(name) = error.constraint() {
        return name.to_owned();
    }
    const SQLITE_PRIMARY_KEY: &str = "1555";
    let message = error.message();
    let named = message.strip_prefix("UNIQUE constraint failed: ").unwrap_or(message);
    if let Some(index) = named.strip_prefix("index '").and_then(|rest| rest.strip_suffix('\'')) {
        return index.to_owned();
    }
    let columns: Vec<&str> = named.split(", ").collect();
    let table = columns[0].split('.').next().unwrap_or_default();
    if error.code().as_deref() == Some(SQLITE_PRIMARY_KEY) {
        return format!("{table}_pkey");
    }
    let columns: Vec<&str> =
        columns.iter().map(|column| column.rsplit('.').next().unwrap_or(column)).collect();
    format!("{table}_{}_key", columns.join("_"))
}
