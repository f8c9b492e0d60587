//! The change log, read.

use keyferry_store::{Row, StoreError};
use serde_json::{Value, json};

use super::{damaged, moment, text_or_null};
use crate::id::IdOf;

/// An entry as answers show it.
pub(crate) fn shown(row: &Row) -> Result<Value, StoreError> {
    let seq: i64 = row.get("seq")?;
    let state = |column: &str| -> Result<Value, StoreError> {
        match row.get::<Option<String>>(column)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| damaged(&error)),
            None => Ok(Value::Null),
        }
    };
    Ok(json!({
        "id": IdOf::Change.id(seq),
        "seq": seq,
        "at": moment(row.get("at")?)?.to_string(),
        "actor": text_or_null(row, "actor")?,
        "action": text_or_null(row, "action")?,
        "resource": text_or_null(row, "resource")?,
        "before": state("before")?,
        "after": state("after")?,
        "previous_hash": text_or_null(row, "previous_hash")?,
        "hash": text_or_null(row, "hash")?,
    }))
}
