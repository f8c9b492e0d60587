//! Keys of operators. Everybody sees their own.

use keyferry_store::{Row, StoreError, sql};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::ApiError;
use crate::id::IdOf;
use crate::rows::list::list as page_of;
use crate::rows::{moment, text_or_null};
use crate::token::{Token, TokenOf};

const MINE: &str = " FROM control_api_keys k WHERE k.revoked_at IS NULL AND k.owner = ";

pub(crate) async fn list(call: Call) -> Result<Answer, ApiError> {
    let (_, user) = call.caller.operator()?;
    let columns = sql("SELECT k.*").push(MINE).push_bind(user);
    let count = sql("SELECT COUNT(*) AS total").push(MINE).push_bind(user);
    let listed =
        page_of(&mut &call.app.store, columns, count, " ORDER BY k.created_at, k.row", call.page()?).await?;
    Ok(Answer::list(&listed, shown)?)
}

pub(crate) async fn show(call: Call) -> Result<Answer, ApiError> {
    Ok(Answer::data(shown(&mine(&call).await?)?))
}

pub(crate) async fn create(call: Call) -> Result<Answer, ApiError> {
    let (_, user) = call.caller.operator()?;
    let mut attributes = call.data()?;
    let name = attributes.required_name();
    let name = attributes.finish(|| name.unwrap_or_default())?;
    let token = Token::generate(TokenOf::Operator).map_err(|_| ApiError::Broken("there is no randomness"))?;
    let mut write = call.write().await?;
    let row = write.new_row().await?;
    let insert = sql("INSERT INTO control_api_keys (row, owner, name, token_hash, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $5)");
    let statement = insert.bind(row).bind(user).bind(&name).bind(token.hash().as_str()).bind(write.now);
    write.on.execute(statement).await?;
    let at = moment(write.now)?;
    let mut data = json!({ "id": IdOf::ApiKey.id(row), "name": name, "created_at": at, "updated_at": at });
    write.record("api_key.create", &IdOf::ApiKey.id(row), None, Some(&data)).await?;
    call.commit(write).await?;
    data["token"] = json!(token.expose());
    Ok(Answer::created(data))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, ApiError> {
    let (key, _) = call.caller.operator()?;
    let found = mine(&call).await?;
    let row: i64 = found.get("row")?;
    if Some(row) == key {
        return Err(ApiError::Refused("cannot revoke the API key used for this request"));
    }
    let mut write = call.write().await?;
    let update = sql("UPDATE control_api_keys SET revoked_at = $2 WHERE row = $1 AND revoked_at IS NULL");
    if write.on.execute(update.bind(row).bind(write.now)).await? == 0 {
        return Err(ApiError::NotFound);
    }
    write.record("api_key.revoke", &IdOf::ApiKey.id(row), Some(&shown(&found)?), None).await?;
    call.commit(write).await?;
    Ok(Answer::Nothing)
}

async fn mine(call: &Call) -> Result<Row, ApiError> {
    let (_, user) = call.caller.operator()?;
    let row = call.row("id", IdOf::ApiKey)?;
    let select = sql("SELECT k.*").push(MINE).push_bind(user).push(" AND k.row = ").push_bind(row);
    call.app.store.fetch_optional(select).await?.ok_or(ApiError::NotFound)
}

fn shown(row: &Row) -> Result<Value, StoreError> {
    Ok(json!({
        "id": IdOf::ApiKey.id(row.get("row")?),
        "name": text_or_null(row, "name")?,
        "created_at": moment(row.get("created_at")?)?,
        "updated_at": moment(row.get("updated_at")?)?,
    }))
}
