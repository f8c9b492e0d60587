//! Proxies: who enforces, and for whom.

use keyferry_contract::sync::{Capability, Status};
use keyferry_store::{Reader, Row, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::principals;
use crate::attributes::{Attributes, Given, Labels};
use crate::details::Details;
use crate::id::IdOf;
use crate::name::Namespace;
use crate::rows::list::{list as page_of, with_labels};
use crate::rows::{json as column_json, moment, text_or_null, time_or_null};
use crate::token::{Token, TokenOf};

struct ProxyWrite {
    name: Given<String>,
    shared: Option<bool>,
    namespaces: Given<Vec<String>>,
    principal: Given<Option<i64>>,
    labels: Given<Labels>,
    address: Given<String>,
}

impl ProxyWrite {
    fn read(mut attributes: Attributes) -> Result<Self, Details> {
        let name = attributes.name();
        let shared = match attributes.text("kind", 32) {
            Given::Is(kind) if kind == "dedicated" => Some(false),
            Given::Is(kind) if kind == "shared" => Some(true),
            Given::Is(_) => {
                attributes.details.add("kind", "must be dedicated or shared");
                None
            }
            Given::Not | Given::Null => None,
        };
        let namespaces = attributes.typed::<Vec<String>>("namespaces", "must be a list of namespaces");
        if let Given::Is(list) = &namespaces {
            for message in list.iter().filter_map(|text| Namespace::parse(text).err()) {
                attributes.details.add("namespaces", format!("a namespace {message}"));
            }
            if list.len() > 1000 {
                attributes.details.add("namespaces", "at most 1000 namespaces");
            }
        }
        let principal = attributes.id("principal_id", IdOf::Principal);
        let labels = attributes.labels();
        if let Given::Is(labels) = &labels
            && labels.values().any(|label| !label.is_string())
        {
            attributes.details.add("labels", "a label of a proxy is a text");
        }
        let address = attributes.text("address", 255);
        if let Given::Is(address) = &address
            && address
                .parse::<http::uri::Authority>()
                .ok()
                .is_none_or(|it| it.port_u16().is_none() || address.contains('@'))
        {
            attributes.details.add("address", "must be HOST:PORT");
        }
        attributes.finish(|| Self { name, shared, namespaces, principal, labels, address })
    }
}

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    let labels = call.labels()?;
    // Nobody's are none.
    let principal = call.parameter("principal_id").map(|id| IdOf::Principal.row(id).unwrap_or(-1));
    let filtered = |start: &'static str| {
        let mut statement = sql(start).push(" FROM control_proxies x WHERE x.row > 0");
        if let Some(principal) = principal {
            statement = statement.push(" AND x.principal = ").push_bind(principal);
        }
        with_labels(statement, "proxy", "x.row", &labels)
    };
    let (columns, count) = (filtered("SELECT x.*"), filtered("SELECT COUNT(*) AS total"));
    let listed =
        page_of(&mut &call.app.store, columns, count, " ORDER BY x.created_at, x.row", call.page()?).await?;
    Ok(Answer::list(&listed, shown)?)
}

pub(crate) async fn show(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Proxy)?;
    let found = by_row(&mut &call.app.store, row).await?.ok_or(ApiError::NotFound)?;
    Ok(Answer::data(shown(&found)?).at(found.get("updated_at")?))
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let given = ProxyWrite::read(call.data()?)?;
    let name = given.name.value().filter(|name| !name.trim().is_empty());
    let name = name.ok_or_else(|| Details::one("name", "can't be blank"))?;
    let shared = given.shared.unwrap_or(false);
    let namespaces = given.namespaces.clone().value().unwrap_or_default();
    check_kind(shared, &namespaces, given.principal.clone().value().is_some())?;
    let token = Token::generate(TokenOf::Proxy).map_err(|_| ApiError::Broken("there is no randomness"))?;
    let mut write = call.write().await?;
    let principal = match given.principal.value() {
        Some(row) => {
            let row = row.ok_or(ApiError::NotFound)?;
            principals::by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
            Some(row)
        }
        None => None,
    };
    let row = write.new_row().await?;
    let labels = given.labels.value().unwrap_or_default();
    let insert = sql(
        "INSERT INTO control_proxies (row, name, kind, namespaces, labels, token_hash, principal, assigned_at, address, \
         capabilities, missing, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '[]', '[]', $10, $10)",
    );
    let statement = insert
        .bind(row)
        .bind(name)
        .bind(if shared { "shared" } else { "dedicated" })
        .bind(json!(namespaces).to_string())
        .bind(json!(labels).to_string())
        .bind(token.hash().as_str())
        .bind(principal)
        .bind(principal.map(|_| write.now))
        .bind(given.address.value())
        .bind(write.now);
    write.on.execute(statement).await?;
    write.label("proxy", row, &labels).await?;
    write.affected.proxies.insert(row);
    let created = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let mut data = shown(&created)?;
    write.record("proxy.create", &IdOf::Proxy.id(row), None, Some(&data)).await?;
    call.commit(write).await?;
    data["token"] = json!(token.expose());
    Ok(Answer::created(data).at(created.get("updated_at")?))
}

fn check_kind(shared: bool, namespaces: &[String], assigned: bool) -> Result<(), Details> {
    let mut details = Details::default();
    if shared && namespaces.is_empty() {
        details.add("namespaces", "can't be blank for a shared proxy");
    }
    if !shared && !namespaces.is_empty() {
        details.add("namespaces", "is for shared proxies");
    }
    if shared && assigned {
        details.add(
            "principal_id",
            "is for dedicated proxies; a shared one serves the sandboxes of its namespaces",
        );
    }
    details.unless(|| ())
}

pub(crate) async fn update(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Proxy)?;
    let given = ProxyWrite::read(call.data()?)?;
    let mut write = call.write().await?;
    let found = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let before: i64 = found.get("updated_at")?;
    call.if_match(before)?;
    let shared = found.get::<String>("kind")? == "shared";
    if given.shared.is_some_and(|given| given != shared) {
        return Err(Details::one("kind", "is immutable").into());
    }
    let namespaces = match given.namespaces {
        Given::Not => column_json(&found, "namespaces")?,
        Given::Null => Vec::new(),
        Given::Is(list) => list,
    };
    let assigned: Option<i64> = found.get("principal")?;
    let (principal, assigned_at) = match given.principal {
        Given::Not => (assigned, found.get("assigned_at")?),
        Given::Null => (None, None),
        Given::Is(row) => {
            let row = row.ok_or(ApiError::NotFound)?;
            principals::by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
            // The same one again is no new assignment.
            if assigned == Some(row) {
                (Some(row), found.get("assigned_at")?)
            } else {
                (Some(row), Some(write.now))
            }
        }
    };
    check_kind(shared, &namespaces, principal.is_some())?;
    let name = match given.name {
        Given::Is(name) if !name.trim().is_empty() => name,
        Given::Not => found.get("name")?,
        Given::Is(_) | Given::Null => return Err(Details::one("name", "can't be blank").into()),
    };
    let labels = match given.labels {
        Given::Not => column_json(&found, "labels")?,
        Given::Null => Labels::new(),
        Given::Is(labels) => labels,
    };
    let address: Option<String> = match given.address {
        Given::Not => found.get("address")?,
        Given::Null => None,
        Given::Is(address) => Some(address),
    };
    let update = sql(
        "UPDATE control_proxies SET name = $2, namespaces = $3, labels = $4, principal = $5, assigned_at = $6, \
         address = $7, updated_at = $8 WHERE row = $1",
    );
    let statement = update
        .bind(row)
        .bind(name)
        .bind(json!(namespaces).to_string())
        .bind(json!(labels).to_string())
        .bind(principal)
        .bind(assigned_at)
        .bind(address)
        .bind(write.after(before));
    write.on.execute(statement).await?;
    write.label("proxy", row, &labels).await?;
    write.affected.proxies.insert(row);
    let updated = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&updated)?;
    write.record("proxy.update", &IdOf::Proxy.id(row), Some(&shown(&found)?), Some(&data)).await?;
    call.commit(write).await?;
    Ok(Answer::data(data).at(updated.get("updated_at")?))
}

/// Its token is remembered as revoked, so that a proxy that still holds it is told to drop everything.
pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Proxy)?;
    let mut write = call.write().await?;
    let found = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    call.if_match(found.get("updated_at")?)?;
    let tombstone = sql("INSERT INTO control_revoked_tokens (token_hash, revoked_at) VALUES ($1, $2)");
    write.on.execute(tombstone.bind(found.get::<String>("token_hash")?).bind(write.now)).await?;
    write.unlabel("proxy", row).await?;
    write.on.execute(sql("DELETE FROM control_proxies WHERE row = $1").bind(row)).await?;
    write.affected.proxies.insert(row);
    write.record("proxy.delete", &IdOf::Proxy.id(row), Some(&shown(&found)?), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

pub(super) async fn by_row(on: &mut impl Reader, row: i64) -> Result<Option<Row>, StoreError> {
    on.fetch_optional(sql("SELECT * FROM control_proxies WHERE row = $1").bind(row)).await
}

/// A proxy as answers show it.
fn shown(row: &Row) -> Result<Value, StoreError> {
    let principal: Option<i64> = row.get("principal")?;
    let missing: Vec<Capability> = column_json(row, "missing")?;
    let shared = row.get::<String>("kind")? == "shared";
    let status = match (shared || principal.is_some(), missing.is_empty()) {
        (_, false) => Status::Incompatible,
        (true, true) => Status::Assigned,
        (false, true) => Status::Unassigned,
    };
    let applied =
        match (row.get::<Option<String>>("applied_epoch")?, row.get::<Option<i64>>("applied_number")?) {
            (Some(epoch), Some(number)) => json!({ "epoch": epoch, "number": number }),
            _ => Value::Null,
        };
    Ok(json!({
        "id": IdOf::Proxy.id(row.get("row")?),
        "name": text_or_null(row, "name")?,
        "kind": text_or_null(row, "kind")?,
        "namespaces": column_json::<Vec<String>>(row, "namespaces")?,
        "labels": column_json::<Labels>(row, "labels")?,
        "address": text_or_null(row, "address")?,
        "principal_id": principal.map(|row| IdOf::Principal.id(row)),
        "status": status,
        "missing_capabilities": missing,
        "principal_assigned_at": time_or_null(row, "assigned_at")?,
        "applied_generation": applied,
        "applied_config_hash": text_or_null(row, "applied_hash")?,
        "seen_at": time_or_null(row, "seen_at")?,
        "created_at": moment(row.get("created_at")?)?,
        "updated_at": moment(row.get("updated_at")?)?,
    }))
}
