//! Sandboxes: who may use a shared proxy, and as whom.

use std::time::Duration;

use jiff::Timestamp;
use keyferry_contract::sync::{Capability, Transport, sandbox_socket};
use keyferry_store::{Reader, Row, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use super::principals;
use crate::attributes::{Attributes, Given};
use crate::details::Details;
use crate::id::IdOf;
use crate::rows::list::list as page_of;
use crate::rows::{json as column_json, micros, moment, text_or_null, time_or_null};
use crate::token::{Token, TokenOf};

struct SandboxWrite {
    name: Option<String>,
    principal: Given<Option<i64>>,
    requester: Given<Option<i64>>,
    expires_at: Option<Timestamp>,
    source_cidrs: Vec<ipnet::IpNet>,
    transport: Transport,
}

impl SandboxWrite {
    fn read(mut attributes: Attributes, now: Timestamp) -> Result<Self, Details> {
        let name = attributes.required_name();
        let principal = attributes.id("principal_id", IdOf::Principal);
        if matches!(principal, Given::Not | Given::Null) {
            attributes.details.add("principal_id", "can't be blank");
        }
        let requester = attributes.id("requester_principal_id", IdOf::Principal);
        let expires_at = attributes.time("expires_at").value();
        if expires_at.is_some_and(|end| end <= now) {
            attributes.details.add("expires_at", "has passed");
        }
        let source_cidrs = attributes.cidrs("source_cidrs").value().unwrap_or_default();
        if source_cidrs.len() > 100 {
            attributes.details.add("source_cidrs", "at most 100 ranges");
        }
        let transport = attributes.typed("transport", "must be token or unix").value().unwrap_or_default();
        if transport == Transport::Unix && !source_cidrs.is_empty() {
            attributes.details.add("source_cidrs", "whoever comes through a socket has no address");
        }
        attributes.finish(|| Self { name, principal, requester, expires_at, source_cidrs, transport })
    }
}

const COLUMNS: &str =
    "SELECT s.*, p.namespace FROM control_sandboxes s JOIN control_principals p ON p.row = s.principal";

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    // Nobody's are none.
    let principal = call.parameter("principal_id").map(|id| IdOf::Principal.row(id).unwrap_or(-1));
    let filtered = |start: &'static str| {
        let mut statement = sql(start).push(" WHERE s.row > 0");
        if let Some(principal) = principal {
            statement = statement.push(" AND s.principal = ").push_bind(principal);
        }
        if let Some(namespace) = call.parameter("namespace") {
            statement = statement.push(" AND p.namespace = ").push_bind(namespace);
        }
        statement
    };
    let count = filtered(
        "SELECT COUNT(*) AS total FROM control_sandboxes s JOIN control_principals p ON p.row = s.principal",
    );
    let listed = page_of(
        &mut &call.app.store,
        filtered(COLUMNS),
        count,
        " ORDER BY s.created_at, s.row",
        call.page()?,
    )
    .await?;
    let now = (call.app.clock)();
    Ok(Answer::list(&listed, |row| shown(row, now))?)
}

pub(crate) async fn show(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Sandbox)?;
    let found = by_row(&mut &call.app.store, row).await?.ok_or(ApiError::NotFound)?;
    Ok(Answer::data(shown(&found, (call.app.clock)())?).at(found.get("updated_at")?))
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let given = SandboxWrite::read(call.data()?, (call.app.clock)())?;
    let token = Token::generate(TokenOf::Sandbox).map_err(|_| ApiError::Broken("there is no randomness"))?;
    let mut write = call.write().await?;
    let principal = given.principal.value().flatten().ok_or(ApiError::NotFound)?;
    let holder = principals::by_row(&mut write.on, principal).await?.ok_or(ApiError::NotFound)?;
    let requester = match given.requester.value() {
        Some(row) => {
            let row = row.ok_or(ApiError::NotFound)?;
            principals::requester(&mut write.on, row, &holder).await?;
            Some(row)
        }
        None => None,
    };
    if given.transport == Transport::Unix && !Serving::of(&call, &holder.namespace).await?.makes_sockets {
        let why = format!(
            "no proxy that serves the namespace {:?} makes sockets for sandboxes: start one with --sandbox-sockets, or keyferry up",
            holder.namespace
        );
        return Err(Details::one("transport", why).into());
    }
    let row = write.new_row().await?;
    let insert = sql(
        "INSERT INTO control_sandboxes (row, name, principal, requester, token_hash, expires_at, source_cidrs, \
         transport, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
    );
    let statement = insert
        .bind(row)
        .bind(given.name)
        .bind(principal)
        .bind(requester)
        .bind(token.hash().as_str())
        .bind(given.expires_at.map(micros))
        .bind(json!(given.source_cidrs).to_string())
        .bind(name_of(given.transport))
        .bind(write.now);
    write.on.execute(statement).await?;
    write.affected.sandboxes.insert(row);
    let created = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&created, (call.app.clock)())?;
    write.record("sandbox.create", &IdOf::Sandbox.id(row), None, Some(&data)).await?;
    let number = call.commit(write).await?;
    let data = ready(&call, data, &holder.namespace, number, &token).await?;
    Ok(Answer::created(data).at(created.get("updated_at")?))
}

/// A new token; the old one ends with it.
pub(crate) async fn rotate(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Sandbox)?;
    let token = Token::generate(TokenOf::Sandbox).map_err(|_| ApiError::Broken("there is no randomness"))?;
    let mut write = call.write().await?;
    let found = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    call.if_match(found.get("updated_at")?)?;
    let update = sql("UPDATE control_sandboxes SET token_hash = $2, updated_at = $3 WHERE row = $1");
    let statement = update.bind(row).bind(token.hash().as_str());
    write.on.execute(statement.bind(write.after(found.get("updated_at")?))).await?;
    write.affected.sandboxes.insert(row);
    let now = (call.app.clock)();
    let updated = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    let data = shown(&updated, now)?;
    write.record("sandbox.rotate", &IdOf::Sandbox.id(row), Some(&shown(&found, now)?), Some(&data)).await?;
    let number = call.commit(write).await?;
    let data = ready(&call, data, &found.get::<String>("namespace")?, number, &token).await?;
    Ok(Answer::data(data).at(updated.get("updated_at")?))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Sandbox)?;
    let mut write = call.write().await?;
    let found = by_row(&mut write.on, row).await?.ok_or(ApiError::NotFound)?;
    call.if_match(found.get("updated_at")?)?;
    write.on.execute(sql("DELETE FROM control_sandboxes WHERE row = $1").bind(row)).await?;
    write.affected.sandboxes.insert(row);
    let before = shown(&found, (call.app.clock)())?;
    write.record("sandbox.delete", &IdOf::Sandbox.id(row), Some(&before), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

/// How long a caller waits for proxies; then it is told that some have not applied it yet.
const PATIENCE: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Waits for the connected proxies, and adds what is shown once.
async fn ready(
    call: &Call,
    mut data: Value,
    namespace: &str,
    number: u64,
    token: &Token,
) -> Result<Value, ApiError> {
    let until = tokio::time::Instant::now() + PATIENCE;
    let (pending, serving) = loop {
        let serving = Serving::of(call, namespace).await?;
        let behind = |applied: &Option<u64>| applied.is_none_or(|applied| applied < number);
        // Where nobody is connected there is nobody to wait for.
        let pending = serving.applied.is_empty() || serving.applied.iter().any(behind);
        if !pending || serving.applied.is_empty() || tokio::time::Instant::now() >= until {
            break (pending, serving);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    };
    data["pending"] = json!(pending);
    let id = data["id"].as_str().unwrap_or_default();
    if data["transport"] == json!("token") {
        let url = serving.address.or_else(|| call.app.settings.proxy_address.clone());
        let url = url.map(|address| format!("http://{id}:{}@{address}", token.expose()));
        data["token"] = json!(token.expose());
        data["proxy_url"] = json!(url);
    } else {
        let socket = serving.sockets.map(|directory| sandbox_socket(directory.as_ref(), id));
        data["socket"] = json!(socket);
    }
    Ok(data)
}

/// The shared proxies of a namespace.
#[derive(Default)]
struct Serving {
    /// What each that is connected has applied, if it was of this epoch.
    applied: Vec<Option<u64>>,
    /// Where the first that says so is reached.
    address: Option<String>,
    makes_sockets: bool,
    /// Where the first that makes sockets, and is connected, does so.
    sockets: Option<String>,
}

impl Serving {
    async fn of(call: &Call, namespace: &str) -> Result<Self, ApiError> {
        let select =
            sql("SELECT namespaces, address, capabilities, sandbox_sockets, applied_number, applied_epoch, \
             (SELECT epoch FROM control_state WHERE id = 1) AS epoch, connected_until \
             FROM control_proxies WHERE kind = 'shared' ORDER BY row");
        let now = micros((call.app.clock)());
        let mut serving = Self::default();
        for row in call.app.store.fetch_all(select).await? {
            let namespaces: Vec<String> = column_json(&row, "namespaces")?;
            if !namespaces.iter().any(|known| known == namespace) {
                continue;
            }
            let capabilities: Vec<Capability> = column_json(&row, "capabilities")?;
            let makes_sockets = capabilities.contains(&Capability::SandboxSockets);
            serving.makes_sockets |= makes_sockets;
            serving.address = serving.address.or(row.get("address")?);
            if row.get::<Option<i64>>("connected_until")?.is_none_or(|until| until <= now) {
                continue;
            }
            if makes_sockets {
                serving.sockets = serving.sockets.or(row.get("sandbox_sockets")?);
            }
            let same_epoch = row.get::<Option<String>>("applied_epoch")? == Some(row.get::<String>("epoch")?);
            let applied = row.get::<Option<i64>>("applied_number")?.filter(|_| same_epoch);
            serving.applied.push(applied.and_then(|number| u64::try_from(number).ok()));
        }
        Ok(serving)
    }
}

async fn by_row(on: &mut impl Reader, row: i64) -> Result<Option<Row>, StoreError> {
    on.fetch_optional(sql(COLUMNS).push(" WHERE s.row = ").push_bind(row)).await
}

const fn name_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Token => "token",
        Transport::Unix => "unix",
    }
}

/// A sandbox as answers show it.
fn shown(row: &Row, now: Timestamp) -> Result<Value, StoreError> {
    let ended = row.get::<Option<i64>>("expires_at")?.is_some_and(|end| end <= micros(now));
    Ok(json!({
        "id": IdOf::Sandbox.id(row.get("row")?),
        "name": text_or_null(row, "name")?,
        "namespace": text_or_null(row, "namespace")?,
        "principal_id": IdOf::Principal.id(row.get("principal")?),
        "requester_principal_id": row.get::<Option<i64>>("requester")?.map(|row| IdOf::Principal.id(row)),
        "status": if ended { "expired" } else { "live" },
        "expires_at": time_or_null(row, "expires_at")?,
        "source_cidrs": column_json::<Vec<ipnet::IpNet>>(row, "source_cidrs")?,
        "transport": text_or_null(row, "transport")?,
        "created_at": moment(row.get("created_at")?)?,
        "updated_at": moment(row.get("updated_at")?)?,
    }))
}
