//! Grants: one secret to one principal or role.

use keyferry_store::{Reader, Row, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::{principals, roles, secrets};
use crate::attributes::{Attributes, Given};
use crate::details::Details;
use crate::id::IdOf;
use crate::rows::access::kind;
use crate::rows::list::list as page_of;
use crate::rows::write::Write;
use crate::rows::{micros, moment, time_or_null};
use crate::secret::SecretKind;

/// Who gets it.
#[derive(Clone, Copy)]
enum Grantee {
    Principal(i64),
    Role(i64),
}

struct GrantWrite {
    grantee: Option<Grantee>,
    secret: Option<(SecretKind, i64)>,
    priority: Option<i64>,
    expires_at: Given<jiff::Timestamp>,
}

/// A grant of a principal's own is stronger than one of a role, unless it says otherwise.
const DIRECT: i64 = 100;
const THROUGH_ROLE: i64 = 0;
/// Far from where arithmetic ends.
const PRIORITIES: std::ops::RangeInclusive<i64> = -1_000_000_000..=1_000_000_000;

impl GrantWrite {
    fn read(mut attributes: Attributes) -> Result<Self, Details> {
        let grantees = [("principal_id", IdOf::Principal), ("role_id", IdOf::Role)];
        let grantee = one_of(&mut attributes, &grantees.map(|(key, of)| (key.to_owned(), of)));
        let keys: Vec<_> = SecretKind::ALL.iter().map(|kind| (kind.grant_key(), kind.id_of())).collect();
        let secret = one_of(&mut attributes, &keys);
        let priority = attributes.typed::<i64>("priority", "must be a whole number").value();
        if priority.is_some_and(|priority| !PRIORITIES.contains(&priority)) {
            attributes.details.add("priority", "must be between -1000000000 and 1000000000");
        }
        let expires_at = attributes.time("expires_at");
        attributes.finish(|| Self {
            grantee: grantee.and_then(|(index, row)| {
                Some(if index == 0 { Grantee::Principal(row?) } else { Grantee::Role(row?) })
            }),
            secret: secret.and_then(|(index, row)| Some((SecretKind::ALL[index], row?))),
            priority,
            expires_at,
        })
    }
}

/// Exactly one of some references, by its place among them; what names nothing has no row.
fn one_of(attributes: &mut Attributes, keys: &[(String, IdOf)]) -> Option<(usize, Option<i64>)> {
    let given: Vec<_> = keys
        .iter()
        .enumerate()
        .filter_map(|(index, (key, of))| Some((index, attributes.id(key, *of).value()?)))
        .collect();
    match given.as_slice() {
        [one] => Some(*one),
        other => {
            let names = keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ");
            let message =
                if other.is_empty() { "must reference one of" } else { "must reference only one of" };
            attributes.details.add("base", format!("{message} {names}"));
            None
        }
    }
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let given = GrantWrite::read(call.data()?)?;
    let mut write = call.write().await?;
    let grantee = given.grantee.ok_or(ApiError::NotFound)?;
    let (kind, secret) = given.secret.ok_or(ApiError::NotFound)?;
    secrets::by_row(&mut write.on, kind, secret).await?.ok_or(ApiError::NotFound)?;
    let (principal, role) = match grantee {
        Grantee::Principal(row) => {
            principals::by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
            (Some(row), None)
        }
        Grantee::Role(row) => {
            roles::by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
            (None, Some(row))
        }
    };
    let existing = sql("SELECT row FROM control_grants WHERE secret = $1 AND (principal = $2 OR role = $3)");
    let existing = existing.bind(secret).bind(principal).bind(role);
    let (row, before) = match write.on.fetch_optional(existing).await? {
        Some(existing) => {
            let row: i64 = existing.get("row")?;
            let before = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
            if !change(&mut write, &given, &before).await? {
                return Ok(Answer::data(shown(&before)?).at(before.get("updated_at")?));
            }
            (row, Some(shown(&before)?))
        }
        None => {
            let row = write.new_row().await?;
            let default = if principal.is_some() { DIRECT } else { THROUGH_ROLE };
            let insert = sql(
                "INSERT INTO control_grants (row, principal, role, secret, priority, expires_at, created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
            );
            let statement = insert
                .bind(row)
                .bind(principal)
                .bind(role)
                .bind(secret)
                .bind(given.priority.unwrap_or(default))
                .bind(given.expires_at.value().map(micros))
                .bind(write.now);
            write.on.execute(statement).await?;
            (row, None)
        }
    };
    affects(&mut write, principal, role).await?;
    let after = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&after)?;
    let action = if before.is_some() { "grant.update" } else { "grant.create" };
    write.record(action, &IdOf::Grant.id(row), before.as_ref(), Some(&data)).await?;
    call.commit(write).await?;
    let answer = if before.is_some() { Answer::data(data) } else { Answer::created(data) };
    Ok(answer.at(after.get("updated_at")?))
}

/// The same grant with another priority or end is changed; whether anything is another one.
async fn change(write: &mut Write, given: &GrantWrite, before: &Row) -> Result<bool, StoreError> {
    let (priority, expires_at): (i64, Option<i64>) = (before.get("priority")?, before.get("expires_at")?);
    let new_priority = given.priority.unwrap_or(priority);
    let new_end = match given.expires_at {
        Given::Not => expires_at,
        Given::Null => None,
        Given::Is(end) => Some(micros(end)),
    };
    if (new_priority, new_end) == (priority, expires_at) {
        return Ok(false);
    }
    let update =
        sql("UPDATE control_grants SET priority = $2, expires_at = $3, updated_at = $4 WHERE row = $1");
    let statement = update.bind(before.get::<i64>("row")?).bind(new_priority).bind(new_end);
    write.on.execute(statement.bind(write.after(before.get("updated_at")?))).await?;
    Ok(true)
}

async fn affects(write: &mut Write, principal: Option<i64>, role: Option<i64>) -> Result<(), StoreError> {
    write.affected.principals.extend(principal);
    match role {
        Some(role) => write.affects_members_of(role).await,
        None => Ok(()),
    }
}

pub(crate) async fn show(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Grant)?;
    let found = by_row(&mut &call.app.store, row).await?.ok_or(ApiError::NotFound)?;
    Ok(Answer::data(shown(&found)?).at(found.get("updated_at")?))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Grant)?;
    let mut write = call.write().await?;
    let found = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    call.if_match(found.get("updated_at")?)?;
    affects(&mut write, found.get("principal")?, found.get("role")?).await?;
    write.on.execute(sql("DELETE FROM control_grants WHERE row = $1").bind(row)).await?;
    write.record("grant.delete", &IdOf::Grant.id(row), Some(&shown(&found)?), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

/// The direct grants of a principal.
pub(crate) async fn of_principal(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Principal)?;
    principals::by_row(&mut &call.app.store, row).await?.ok_or(ApiError::NotFound)?;
    listed(call, " WHERE g.principal = ", row).await
}

/// The grants of a role.
pub(crate) async fn of_role(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Role)?;
    roles::by_row(&mut &call.app.store, row).await?.ok_or(ApiError::NotFound)?;
    listed(call, " WHERE g.role = ", row).await
}

async fn listed(call: Call, condition: &'static str, row: i64) -> Result<Answer, ApiError> {
    let columns = sql(COLUMNS).push(condition).push_bind(row);
    let count = sql("SELECT COUNT(*) AS total FROM control_grants g").push(condition).push_bind(row);
    let listed =
        page_of(&mut &call.app.store, columns, count, " ORDER BY g.created_at, g.row", call.page()?).await?;
    Ok(Answer::list(&listed, shown)?)
}

const COLUMNS: &str = "SELECT g.*, s.kind FROM control_grants g JOIN control_secrets s ON s.row = g.secret";

async fn by_row(on: &mut impl Reader, row: i64) -> Result<Option<Row>, StoreError> {
    on.fetch_optional(sql(COLUMNS).push(" WHERE g.row = ").push_bind(row)).await
}

/// A grant as answers show it: the two references that it has.
fn shown(row: &Row) -> Result<Value, StoreError> {
    let mut shown = serde_json::Map::new();
    shown.insert("id".into(), json!(IdOf::Grant.id(row.get("row")?)));
    if let Some(principal) = row.get::<Option<i64>>("principal")? {
        shown.insert("principal_id".into(), json!(IdOf::Principal.id(principal)));
    }
    if let Some(role) = row.get::<Option<i64>>("role")? {
        shown.insert("role_id".into(), json!(IdOf::Role.id(role)));
    }
    let kind = kind(row)?;
    shown.insert(kind.grant_key(), json!(kind.id_of().id(row.get("secret")?)));
    shown.insert("priority".into(), json!(row.get::<i64>("priority")?));
    shown.insert("expires_at".into(), time_or_null(row, "expires_at")?);
    shown.insert("created_at".into(), json!(moment(row.get("created_at")?)?));
    shown.insert("updated_at".into(), json!(moment(row.get("updated_at")?)?));
    Ok(Value::Object(shown))
}
