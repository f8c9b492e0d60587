//! Roles, and who has them.

use keyferry_store::{Reader, Row, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::principals;
use super::upsert::{self, Named};
use crate::attributes::{Attributes, Given, Labels};
use crate::details::Details;
use crate::id::IdOf;
use crate::name::{ForeignId, Namespace};
use crate::rows::list::{list as page_of, with_labels};
use crate::rows::write::Write;
use crate::rows::{json as column_json, moment, text_or_null};

/// What a write says. What it leaves out stays.
struct RoleWrite {
    namespace: Option<Namespace>,
    foreign_id: Option<ForeignId>,
    name: Given<String>,
    labels: Given<Labels>,
    is_default: Given<bool>,
}

impl RoleWrite {
    fn read(mut attributes: Attributes) -> Result<Self, Details> {
        let namespace = attributes.namespace();
        let foreign_id = attributes.foreign_id(IdOf::Role);
        let (name, labels) = (attributes.name(), attributes.labels());
        let is_default = attributes.flag("default");
        attributes.finish(|| Self { namespace, foreign_id, name, labels, is_default })
    }
}

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    let namespace = call.required("namespace", "namespace is required")?;
    let labels = call.labels()?;
    let filtered = |start: &'static str| {
        let statement = sql(start).push(" FROM control_roles r WHERE r.namespace = ").push_bind(namespace);
        with_labels(statement, "role", "r.row", &labels)
    };
    let (columns, count) = (filtered("SELECT r.*"), filtered("SELECT COUNT(*) AS total"));
    let listed =
        page_of(&mut &call.app.store, columns, count, " ORDER BY r.created_at, r.row", call.page()?).await?;
    Ok(Answer::list(&listed, shown)?)
}

pub(crate) async fn show(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Role)?;
    answer(&by_row(&mut &call.app.store, row).await?.ok_or(ApiError::NotFound)?)
}

pub(crate) async fn lookup(call: Call) -> Result<Answer, ApiError> {
    let (namespace, foreign_id) = (upsert::namespace_of(&call), call.part("foreign_id"));
    answer(&by_name(&mut &call.app.store, namespace, foreign_id).await?.ok_or(ApiError::NotFound)?)
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let given = RoleWrite::read(call.data()?)?;
    let mut write = call.write().await?;
    if let Some(foreign_id) = &given.foreign_id
        && by_name(&mut write.on, upsert::or_default(&given.namespace), foreign_id.as_str()).await?.is_some()
    {
        return Err(upsert::taken());
    }
    let foreign_id = given.foreign_id.clone();
    insert(call, write, given, foreign_id).await
}

pub(crate) async fn upsert(call: Call) -> Result<Answer, ApiError> {
    let named = upsert::named(&call, IdOf::Role)?;
    let given = RoleWrite::read(call.data()?)?;
    let mut write = call.write().await?;
    let (found, foreign_id) = match named {
        Named::Row(row) => {
            let row = row.ok_or(ApiError::NotFound)?;
            (Some(by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?), None)
        }
        Named::ForeignId(foreign_id) => (
            by_name(&mut write.on, upsert::or_default(&given.namespace), foreign_id.as_str()).await?,
            Some(foreign_id),
        ),
    };
    match found {
        Some(found) => update(call, write, given, &found).await,
        None => {
            call.if_match_absent()?;
            upsert::named_so(given.foreign_id.as_ref(), foreign_id.as_ref())?;
            insert(call, write, given, foreign_id).await
        }
    }
}

pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Role)?;
    let mut write = call.write().await?;
    let found = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    call.if_match(found.get("updated_at")?)?;
    write.affects_members_of(row).await?;
    write.unlabel("role", row).await?;
    write.on.execute(sql("DELETE FROM control_roles WHERE row = $1").bind(row)).await?;
    write.record("role.delete", &IdOf::Role.id(row), Some(&shown(&found)?), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

async fn insert(
    call: Call,
    mut write: Write,
    given: RoleWrite,
    foreign_id: Option<ForeignId>,
) -> Result<Answer, ApiError> {
    let row = write.new_row().await?;
    let labels = given.labels.value().unwrap_or_default();
    let insert = sql(
        "INSERT INTO control_roles (row, namespace, foreign_id, name, labels, is_default, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
    );
    let statement = insert
        .bind(row)
        .bind(upsert::or_default(&given.namespace))
        .bind(foreign_id.as_ref().map(ForeignId::as_str))
        .bind(given.name.value())
        .bind(json!(labels).to_string())
        .bind(given.is_default.value().unwrap_or(false))
        .bind(write.now);
    write.on.execute(statement).await?;
    write.label("role", row, &labels).await?;
    finish(call, write, row, None).await
}

async fn update(call: Call, mut write: Write, given: RoleWrite, found: &Row) -> Result<Answer, ApiError> {
    let (row, before): (i64, i64) = (found.get("row")?, found.get("updated_at")?);
    call.if_match(before)?;
    upsert::same_name_as(given.namespace.as_ref(), given.foreign_id.as_ref(), found)?;
    let name = match given.name {
        Given::Not => found.get("name")?,
        Given::Null => None,
        Given::Is(name) => Some(name),
    };
    let labels = match given.labels {
        Given::Not => column_json(found, "labels")?,
        Given::Null => Labels::new(),
        Given::Is(labels) => labels,
    };
    let is_default = match given.is_default {
        Given::Not => found.get("is_default")?,
        Given::Null => false,
        Given::Is(is_default) => is_default,
    };
    let update = sql(
        "UPDATE control_roles SET name = $2, labels = $3, is_default = $4, updated_at = $5 WHERE row = $1",
    );
    let statement = update
        .bind(row)
        .bind(name)
        .bind(json!(labels).to_string())
        .bind(is_default)
        .bind(write.after(before));
    write.on.execute(statement).await?;
    write.label("role", row, &labels).await?;
    finish(call, write, row, Some(shown(found)?)).await
}

async fn finish(call: Call, mut write: Write, row: i64, before: Option<Value>) -> Result<Answer, ApiError> {
    let after = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&after)?;
    let action = if before.is_some() { "role.update" } else { "role.create" };
    write.record(action, &IdOf::Role.id(row), before.as_ref(), Some(&data)).await?;
    call.commit(write).await?;
    let answer = if before.is_some() { Answer::data(data) } else { Answer::created(data) };
    Ok(answer.at(after.get("updated_at")?))
}

/// The roles of a principal.
pub(crate) async fn of_principal(call: Call) -> Result<Answer, ApiError> {
    let principal = call.row("id", IdOf::Principal)?;
    principals::by_row(&mut &call.app.store, principal).await?.ok_or(ApiError::NotFound)?;
    let select = sql(
        "SELECT r.* FROM control_assignments a JOIN control_roles r ON r.row = a.role WHERE a.principal = $1 \
         ORDER BY a.created_at, r.row",
    );
    let rows = call.app.store.fetch_all(select.bind(principal)).await?;
    Ok(Answer::all(rows.iter().map(shown).collect::<Result<_, _>>()?))
}

/// Gives a principal a role. Once is as good as twice.
pub(crate) async fn assign(call: Call) -> Result<Answer, ApiError> {
    let principal = call.row("id", IdOf::Principal)?;
    let mut attributes = call.data()?;
    let role = attributes.id("role_id", IdOf::Role);
    if role == Given::Not || role == Given::Null {
        attributes.details.add("role_id", "can't be blank");
    }
    attributes.finish(|| ())?;
    let mut write = call.write().await?;
    let holder = principals::by_row(&mut write.on, principal).await?.ok_or(ApiError::NotFound)?;
    let role = role.value().flatten().ok_or(ApiError::NotFound)?;
    let found = by_row(&mut write.on, role).await?.ok_or(ApiError::NotFound)?;
    if found.get::<String>("namespace")? != holder.namespace {
        return Err(Details::one("role_id", "must be in the principal's namespace").into());
    }
    let insert = sql(
        "INSERT INTO control_assignments (principal, role, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    );
    let data = shown(&found)?;
    if write.on.execute(insert.bind(principal).bind(role).bind(write.now)).await? == 0 {
        return Ok(Answer::data(data));
    }
    write.affected.principals.insert(principal);
    let after = json!({ "principal_id": holder.id(), "role_id": IdOf::Role.id(role) });
    write.record("role.assign", &holder.id(), None, Some(&after)).await?;
    call.commit(write).await?;
    Ok(Answer::created(data))
}

/// Takes a role away.
pub(crate) async fn unassign(call: Call) -> Result<Answer, ApiError> {
    let principal = call.row("id", IdOf::Principal)?;
    let role = call.row("role_id", IdOf::Role)?;
    let mut write = call.write().await?;
    let delete = sql("DELETE FROM control_assignments WHERE principal = $1 AND role = $2");
    if write.on.execute(delete.bind(principal).bind(role)).await? == 0 {
        return Err(ApiError::NotFound);
    }
    write.affected.principals.insert(principal);
    let id = IdOf::Principal.id(principal);
    let before = json!({ "principal_id": id, "role_id": IdOf::Role.id(role) });
    write.record("role.unassign", &id, Some(&before), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

pub(super) async fn by_row(on: &mut impl Reader, row: i64) -> Result<Option<Row>, StoreError> {
    on.fetch_optional(sql("SELECT * FROM control_roles WHERE row = $1").bind(row)).await
}

async fn by_name(on: &mut impl Reader, namespace: &str, foreign_id: &str) -> Result<Option<Row>, StoreError> {
    let select = sql("SELECT * FROM control_roles WHERE namespace = $1 AND foreign_id = $2");
    on.fetch_optional(select.bind(namespace).bind(foreign_id)).await
}

fn answer(row: &Row) -> Result<Answer, ApiError> {
    Ok(Answer::data(shown(row)?).at(row.get("updated_at")?))
}

/// A role as answers show it.
fn shown(row: &Row) -> Result<Value, StoreError> {
    Ok(json!({
        "id": IdOf::Role.id(row.get("row")?),
        "namespace": text_or_null(row, "namespace")?,
        "foreign_id": text_or_null(row, "foreign_id")?,
        "name": text_or_null(row, "name")?,
        "labels": column_json::<Labels>(row, "labels")?,
        "default": row.get::<bool>("is_default")?,
        "created_at": moment(row.get("created_at")?)?,
        "updated_at": moment(row.get("updated_at")?)?,
    }))
}
