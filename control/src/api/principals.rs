//! Principals.

use keyferry_store::{Reader, Row, Statement, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::upsert::{self, Named};
use crate::attributes::Given;
use crate::details::Details;
use crate::id::IdOf;
use crate::name::ForeignId;
use crate::principal::{Principal, PrincipalWrite};
use crate::rows::list::{list as page_of, with_labels};
use crate::rows::write::Write;
use crate::rows::{PRINCIPAL_COLUMNS, micros, principal};

const FILTERS: [(&str, &str); 5] = [
    ("kind", " AND p.kind = "),
    ("slack_user_id", " AND p.slack_user_id = "),
    ("slack_channel_id", " AND p.slack_channel_id = "),
    ("slack_team_id", " AND p.slack_team_id = "),
    ("slack_email", " AND p.slack_email = "),
];

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    let namespace = call.required("namespace", "namespace is required")?;
    let labels = call.labels()?;
    let filtered = |start: Statement| {
        let mut statement =
            start.push(" FROM control_principals p WHERE p.namespace = ").push_bind(namespace);
        for (parameter, condition) in FILTERS {
            if let Some(value) = call.parameter(parameter) {
                statement = statement.push(condition).push_bind(value);
            }
        }
        with_labels(statement, "principal", "p.row", &labels)
    };
    let columns = filtered(sql("SELECT ").push(PRINCIPAL_COLUMNS));
    let count = filtered(sql("SELECT COUNT(*) AS total"));
    let listed =
        page_of(&mut &call.app.store, columns, count, " ORDER BY p.created_at, p.row", call.page()?).await?;
    Ok(Answer::list(&listed, |row| principal(row).map(|it| shown(&it)))?)
}

pub(crate) async fn show(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Principal)?;
    Ok(answer(&by_row(&mut &call.app.store, row).await?.ok_or(ApiError::NotFound)?))
}

pub(crate) async fn lookup(call: Call) -> Result<Answer, ApiError> {
    Ok(answer(&looked_up(&call).await?))
}

/// The principal that a lookup names.
pub(super) async fn looked_up(call: &Call) -> Result<Principal, ApiError> {
    let (namespace, foreign_id) = (upsert::namespace_of(call), call.part("foreign_id"));
    by_name(&mut &call.app.store, namespace, foreign_id).await?.ok_or(ApiError::NotFound)
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let given = PrincipalWrite::read(call.data()?)?;
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
    let named = upsert::named(&call, IdOf::Principal)?;
    let given = PrincipalWrite::read(call.data()?)?;
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
        Some(found) => update(call, write, given, found).await,
        None => {
            call.if_match_absent()?;
            upsert::named_so(given.foreign_id.as_ref(), foreign_id.as_ref())?;
            insert(call, write, given, foreign_id).await
        }
    }
}

pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Principal)?;
    let mut write = call.write().await?;
    let found = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    call.if_match(micros(found.updated_at))?;
    let proxies = sql("SELECT row FROM control_proxies WHERE principal = $1").bind(row);
    for proxy in write.on.fetch_all(proxies).await? {
        write.affected.proxies.insert(proxy.get("row")?);
    }
    let clear = sql(
        "UPDATE control_proxies SET assigned_at = NULL, updated_at = updated_at + 1 WHERE principal = $1",
    );
    write.on.execute(clear.bind(row)).await?;
    let sandboxes = sql("SELECT row FROM control_sandboxes WHERE principal = $1 OR requester = $1").bind(row);
    for sandbox in write.on.fetch_all(sandboxes).await? {
        write.affected.sandboxes.insert(sandbox.get("row")?);
    }
    write.affected.principals.insert(row);
    write.unlabel("principal", row).await?;
    write.on.execute(sql("DELETE FROM control_principals WHERE row = $1").bind(row)).await?;
    write.record("principal.delete", &found.id(), Some(&shown(&found)), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

async fn insert(
    call: Call,
    mut write: Write,
    given: PrincipalWrite,
    foreign_id: Option<ForeignId>,
) -> Result<Answer, ApiError> {
    let row = write.new_row().await?;
    let labels = given.labels.value().unwrap_or_default();
    let [user, channel, team, email] = given.identity.map(Given::value);
    let insert = sql(
        "INSERT INTO control_principals (row, namespace, foreign_id, name, labels, kind, slack_user_id, \
         slack_channel_id, slack_team_id, slack_email, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
    );
    let statement = insert
        .bind(row)
        .bind(upsert::or_default(&given.namespace))
        .bind(foreign_id.as_ref().map(ForeignId::as_str))
        .bind(given.name.value())
        .bind(json!(labels).to_string())
        .bind(given.kind.value().unwrap_or_default().name())
        .bind(user)
        .bind(channel)
        .bind(team)
        .bind(email)
        .bind(write.now);
    write.on.execute(statement).await?;
    write.label("principal", row, &labels).await?;
    // Only a new principal gets them: what is taken away later stays away.
    let defaults = sql("INSERT INTO control_assignments (principal, role, created_at) \
         SELECT $1, r.row, $2 FROM control_roles r WHERE r.namespace = $3 AND r.is_default");
    write.on.execute(defaults.bind(row).bind(write.now).bind(upsert::or_default(&given.namespace))).await?;
    write.affected.principals.insert(row);
    finish(call, write, row, None).await
}

async fn update(
    call: Call,
    mut write: Write,
    given: PrincipalWrite,
    found: Principal,
) -> Result<Answer, ApiError> {
    call.if_match(micros(found.updated_at))?;
    let known = (found.namespace.as_str(), found.foreign_id.as_deref());
    upsert::same_name(given.namespace.as_ref(), given.foreign_id.as_ref(), known)?;
    let keep = |given: Given<String>, old: &Option<String>| match given {
        Given::Not => old.clone(),
        Given::Null => None,
        Given::Is(text) => Some(text),
    };
    let labels = match given.labels {
        Given::Not => found.labels.clone(),
        Given::Null => crate::attributes::Labels::new(),
        Given::Is(labels) => labels,
    };
    let kind = match given.kind {
        Given::Not => found.kind,
        Given::Null => crate::principal::PrincipalKind::Unknown,
        Given::Is(kind) => kind,
    };
    let [user, channel, team, email] = given.identity;
    let update = sql(
        "UPDATE control_principals SET name = $2, labels = $3, kind = $4, slack_user_id = $5, slack_channel_id = $6, \
         slack_team_id = $7, slack_email = $8, updated_at = $9 WHERE row = $1",
    );
    let statement = update
        .bind(found.row)
        .bind(keep(given.name, &found.name))
        .bind(json!(labels).to_string())
        .bind(kind.name())
        .bind(keep(user, &found.identity.slack_user_id))
        .bind(keep(channel, &found.identity.slack_channel_id))
        .bind(keep(team, &found.identity.slack_team_id))
        .bind(keep(email, &found.identity.slack_email))
        .bind(write.after(micros(found.updated_at)));
    write.on.execute(statement).await?;
    write.label("principal", found.row, &labels).await?;
    // Settings of databases may name any of it.
    write.affected.principals.insert(found.row);
    finish(call, write, found.row, Some(found)).await
}

async fn finish(
    call: Call,
    mut write: Write,
    row: i64,
    before: Option<Principal>,
) -> Result<Answer, ApiError> {
    let after = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let (old, new) = (before.as_ref().map(shown), shown(&after));
    let action = if old.is_some() { "principal.update" } else { "principal.create" };
    write.record(action, &after.id(), old.as_ref(), Some(&new)).await?;
    call.commit(write).await?;
    let answer = if old.is_some() { Answer::data(new) } else { Answer::created(new) };
    Ok(answer.at(micros(after.updated_at)))
}

pub(super) async fn by_row(on: &mut impl Reader, row: i64) -> Result<Option<Principal>, StoreError> {
    let select = sql("SELECT ").push(PRINCIPAL_COLUMNS).push(" FROM control_principals p WHERE p.row = ");
    one(on.fetch_optional(select.push_bind(row)).await?)
}

/// The user who asks in a principal's channel. One tenant's grants never reach another tenant's sandbox (T66).
pub(super) async fn requester(on: &mut impl Reader, row: i64, holder: &Principal) -> Result<(), ApiError> {
    let requester = by_row(on, row).await?.ok_or(ApiError::NotFound)?;
    if requester.namespace == holder.namespace {
        Ok(())
    } else {
        Err(Details::one("requester_principal_id", "must be in the principal's namespace").into())
    }
}

async fn by_name(
    on: &mut impl Reader,
    namespace: &str,
    foreign_id: &str,
) -> Result<Option<Principal>, StoreError> {
    let select =
        sql("SELECT ").push(PRINCIPAL_COLUMNS).push(" FROM control_principals p WHERE p.namespace = ");
    let select = select.push_bind(namespace).push(" AND p.foreign_id = ").push_bind(foreign_id);
    one(on.fetch_optional(select).await?)
}

fn one(row: Option<Row>) -> Result<Option<Principal>, StoreError> {
    row.as_ref().map(principal).transpose()
}

fn answer(found: &Principal) -> Answer {
    Answer::data(shown(found)).at(micros(found.updated_at))
}

/// A principal as answers show it.
fn shown(principal: &Principal) -> Value {
    json!({
        "id": principal.id(),
        "namespace": principal.namespace,
        "foreign_id": principal.foreign_id,
        "name": principal.name,
        "labels": principal.labels,
        "kind": principal.kind.name(),
        "slack_user_id": principal.identity.slack_user_id,
        "slack_channel_id": principal.identity.slack_channel_id,
        "slack_team_id": principal.identity.slack_team_id,
        "slack_email": principal.identity.slack_email,
        "created_at": principal.created_at,
        "updated_at": principal.updated_at,
    })
}
