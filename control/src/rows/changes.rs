//! The change log, read and verified.

use keyferry_store::{Row, Store, StoreError, sql};
use serde::Serialize;
use serde_json::{Value, json};

use super::write::{FIRST_LINK, Link, change_hash};
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

/// What became of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ChangeLogCheck)]
pub(crate) struct Checked {
    /// Every entry is as it was written, and follows the one before it.
    pub(crate) ok: bool,
    /// How many were read.
    pub(crate) entries: u64,
    /// The hash of the last one. Noted elsewhere, it shows later that nothing was cut off.
    pub(crate) head: String,
    /// The first entry that is not as it was written.
    pub(crate) broken_at: Option<i64>,
    /// What is wrong with it.
    pub(crate) reason: Option<&'static str>,
    /// Whether an entry has the hash that was asked for.
    pub(crate) noted: Option<bool>,
}

/// How many entries are held at once.
const AT_ONCE: i64 = 500;

/// Computes every hash anew (T87). What was cut off at the end, or written anew as a whole, shows by `noted` alone.
pub(crate) async fn verify(store: &Store, noted: Option<&str>) -> Result<Checked, StoreError> {
    let mut checked = Checked {
        ok: true,
        entries: 0,
        head: FIRST_LINK.to_owned(),
        broken_at: None,
        reason: None,
        noted: noted.map(|noted| noted == FIRST_LINK),
    };
    let mut last = 0_i64;
    loop {
        let select = sql("SELECT * FROM control_changes WHERE seq > $1 ORDER BY seq LIMIT $2");
        let rows = store.fetch_all(select.bind(last).bind(AT_ONCE)).await?;
        if rows.is_empty() {
            return Ok(checked);
        }
        for row in rows {
            let seq = row.get("seq")?;
            if let Some(reason) = fault(&row, last, &checked.head)? {
                return Ok(Checked { ok: false, broken_at: Some(seq), reason: Some(reason), ..checked });
            }
            checked.head = row.get("hash")?;
            checked.entries += 1;
            if noted == Some(&checked.head) {
                checked.noted = Some(true);
            }
            last = seq;
        }
    }
}

/// What is wrong with an entry, given the one before it.
fn fault(row: &Row, last: i64, previous: &str) -> Result<Option<&'static str>, StoreError> {
    let seq: i64 = row.get("seq")?;
    if seq != last + 1 {
        return Ok(Some("entries before it are missing"));
    }
    if row.get::<String>("previous_hash")? != previous {
        return Ok(Some("it does not follow the entry before it"));
    }
    let (actor, action, resource): (String, String, String) =
        (row.get("actor")?, row.get("action")?, row.get("resource")?);
    let (before, after): (Option<String>, Option<String>) = (row.get("before")?, row.get("after")?);
    let hash = change_hash(&Link {
        previous,
        seq,
        at: row.get("at")?,
        actor: &actor,
        action: &action,
        resource: &resource,
        before: before.as_deref(),
        after: after.as_deref(),
    });
    Ok((hash != row.get::<String>("hash")?).then_some("it is not as it was written"))
}
