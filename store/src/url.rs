//! Which database, and how it is connected to.

use std::fmt;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::StoreError;

/// `sqlite:FILE` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. What it prints has no password.
///
/// PostgreSQL on another host is spoken to over verified TLS (`sslmode=verify-full`), unless the URL says another `sslmode`;
/// `sslrootcert=FILE` names its authority. What the URL leaves out, the driver takes from `PGPASSWORD` and its kin, as libpq does.
#[derive(Clone)]
pub struct DatabaseUrl(Kind);

#[derive(Clone)]
enum Kind {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Kind::Postgres(options) => {
                let database = options.get_database().unwrap_or_default();
                write!(f, "postgres://{}:{}/{database}", options.get_host(), options.get_port())
            }
        }
    }
}

/// How long a statement waits for another process that writes to the same file.
const SQLITE_BUSY: Duration = Duration::from_secs(5);

impl DatabaseUrl {
    /// The database in a file.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Sqlite(path.into()))
    }

    /// Reads a URL, which may hold a password.
    ///
    /// # Errors
    ///
    /// Neither form.
    pub fn parse(url: &SecretString) -> Result<Self, StoreError> {
        let wrong = |reason: &str| StoreError::Url { reason: reason.to_owned() };
        let url = url.expose_secret();
        if let Some(rest) = url.strip_prefix("sqlite:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return match path {
                "" => Err(wrong("it names no file")),
                ":memory:" => Err(wrong("a database in memory has only one connection")),
                _ if path.contains('?') => Err(wrong("sqlite: takes no parameters")),
                _ => Ok(Self::sqlite(path)),
            };
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("it begins with neither sqlite: nor postgres://"));
        }
        // The parser's own words may repeat a part of the URL.
        let options = PgConnectOptions::from_str(url).map_err(|_| wrong("it is not a PostgreSQL URL"))?;
        let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let says_mode =
            query.split('&').any(|pair| pair.starts_with("sslmode=") || pair.starts_with("ssl-mode="));
        let options =
            if says_mode || is_near(&options) { options } else { options.ssl_mode(PgSslMode::VerifyFull) };
        Ok(Self(Kind::Postgres(Box::new(options))))
    }

    /// Makes the file where there is none; PostgreSQL's databases are made by their operator.
    pub(crate) fn create(&self) -> Result<(), StoreError> {
        match &self.0 {
            Kind::Sqlite(path) => make_private(path),
            Kind::Postgres(_) => Ok(()),
        }
    }

    /// SQLite's own words do not say which file is missing.
    pub(crate) fn must_exist(&self) -> Result<(), StoreError> {
        match &self.0 {
            Kind::Sqlite(path) if !path.is_file() => Err(StoreError::File {
                file: path.display().to_string(),
                reason: "there is no such file".to_owned(),
            }),
            Kind::Sqlite(_) | Kind::Postgres(_) => Ok(()),
        }
    }

    pub(crate) fn connect(&self) -> Connect {
        match &self.0 {
            Kind::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(false)
                    .journal_mode(SqliteJournalMode::Wal)
                    // A commit that was answered survives a power failure: a rotated token cannot be had twice.
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    .busy_timeout(SQLITE_BUSY)
                    .pragma("trusted_schema", "OFF")
                    .disable_statement_logging();
                Connect::Sqlite(Box::new(options))
            }
            Kind::Postgres(options) => {
                let options = options
                    .as_ref()
                    .clone()
                    .application_name("keyferry")
                    .options([
                        ("statement_timeout", "30s"),
                        ("lock_timeout", "10s"),
                        ("idle_in_transaction_session_timeout", "60s"),
                    ])
                    .disable_statement_logging();
                Connect::Postgres(Box::new(options))
            }
        }
    }
}

pub(crate) enum Connect {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
}

fn is_near(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Makes the file with mode 0600, which SQLite gives to its companions as well.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let failed = |reason: String| StoreError::File { file: path.display().to_string(), reason };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let metadata = path.metadata().map_err(|error| failed(error.to_string()))?;
            if !metadata.is_file() {
                return Err(failed("it is not a file".to_owned()));
            }
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                let file = path.display();
                tracing::warn!(%file, mode = format!("{mode:04o}"), "the database is open to others than its owner");
            }
            Ok(())
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgSslMode;

    use super::{Connect, DatabaseUrl};

    #[test]
    fn another_host_is_spoken_to_over_verified_tls_unless_the_url_says_how() {
        let mode = |url: &str| {
            let Connect::Postgres(options) = DatabaseUrl::parse(&url.into()).expect("a URL").connect() else {
                panic!("PostgreSQL");
            };
            options.get_ssl_mode()
        };
        assert!(matches!(mode("postgres://a@db.example/d"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://a@10.0.0.1/d?application_name=x"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://a@db.example/d?sslmode=require"), PgSslMode::Require));
        for near in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert!(matches!(mode(&format!("postgres://a@{near}/d")), PgSslMode::Prefer), "{near}");
        }
        // What decides is where the connection goes, wherever the URL says so.
        assert!(matches!(mode("postgres://a@localhost/d?host=db.example"), PgSslMode::VerifyFull));
    }
}
