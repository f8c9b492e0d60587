//! What is kept, and how it is read and written.

pub(crate) mod access;
pub(crate) mod changes;
pub(crate) mod list;
mod schema;
pub(crate) mod write;

use jiff::Timestamp;
use keyferry_store::{Row, StoreError};
use serde_json::Value;

pub use schema::SCHEMA;
pub(crate) use schema::SECRET_VALUE;

use crate::attributes::Labels;
use crate::principal::{Principal, PrincipalKind, SlackIdentity};

/// A moment as it is stored.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// A moment that was stored.
pub(crate) fn moment(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|error| damaged(&error))
}

/// Something that this service did not write.
pub(crate) fn damaged(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed { reason: format!("a row holds what this service did not write: {error}") }
}

/// A column of JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &Row, column: &str) -> Result<T, StoreError> {
    serde_json::from_str(&row.get::<String>(column)?).map_err(|error| damaged(&error))
}

pub(crate) const PRINCIPAL_COLUMNS: &str = "p.row, p.namespace, p.foreign_id, p.name, p.labels, p.kind, \
     p.slack_user_id, p.slack_channel_id, p.slack_team_id, p.slack_email, p.created_at, p.updated_at";

pub(crate) fn principal(row: &Row) -> Result<Principal, StoreError> {
    Ok(Principal {
        row: row.get("row")?,
        namespace: row.get("namespace")?,
        foreign_id: row.get("foreign_id")?,
        name: row.get("name")?,
        labels: json::<Labels>(row, "labels")?,
        kind: PrincipalKind::of_name(&row.get::<String>("kind")?).unwrap_or_default(),
        identity: SlackIdentity {
            slack_user_id: row.get("slack_user_id")?,
            slack_channel_id: row.get("slack_channel_id")?,
            slack_team_id: row.get("slack_team_id")?,
            slack_email: row.get("slack_email")?,
        },
        created_at: moment(row.get("created_at")?)?,
        updated_at: moment(row.get("updated_at")?)?,
    })
}

/// A column that may be empty as a JSON value.
pub(crate) fn text_or_null(row: &Row, column: &str) -> Result<Value, StoreError> {
    Ok(row.get::<Option<String>>(column)?.map_or(Value::Null, Value::String))
}

/// A moment as answers show it.
pub(crate) fn time_or_null(row: &Row, column: &str) -> Result<Value, StoreError> {
    match row.get::<Option<i64>>(column)? {
        Some(micros) => Ok(Value::String(moment(micros)?.to_string())),
        None => Ok(Value::Null),
    }
}
