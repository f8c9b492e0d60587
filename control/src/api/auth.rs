//! Who calls, and who may.

use http::{HeaderMap, header};
use keyferry_store::{StoreError, sql};

use super::App;
use super::error::ApiError;
use crate::id::IdOf;
use crate::token::{Token, TokenOf};

/// The class of caller that a route admits; every route has one, in the table of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Admits {
    /// Whoever has an API key.
    Operator,
    /// Whoever has a proxy's token.
    Proxy,
    /// Everybody.
    Anyone,
}

/// Through which door a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// One that strangers reach.
    Open,
    /// The socket that this process's own user alone can connect to.
    Owner,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Somebody with this key.
    Operator { key: i64, user: i64 },
    /// Whoever runs this process, as the first operator.
    Owner { user: i64 },
    /// This proxy.
    Proxy { row: i64 },
    /// Nobody asked.
    Anyone,
}

impl Caller {
    /// For the change log.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Operator { key, .. } => IdOf::ApiKey.id(*key),
            Self::Owner { user } => IdOf::User.id(*user),
            Self::Proxy { row } => IdOf::Proxy.id(*row),
            Self::Anyone => "system".to_owned(),
        }
    }

    /// The proxy that calls.
    pub(crate) fn proxy(&self) -> Result<i64, ApiError> {
        match self {
            Self::Proxy { row } => Ok(*row),
            Self::Operator { .. } | Self::Owner { .. } | Self::Anyone => Err(ApiError::NoProxy),
        }
    }

    /// The operator who calls: the key, where one was needed, and the user.
    pub(crate) fn operator(&self) -> Result<(Option<i64>, i64), ApiError> {
        match self {
            Self::Operator { key, user } => Ok((Some(*key), *user)),
            Self::Owner { user } => Ok((None, *user)),
            Self::Proxy { .. } | Self::Anyone => Err(ApiError::NoOperator),
        }
    }
}

/// Lets a caller in, or says why not.
pub(crate) async fn admit(
    app: &App,
    door: Door,
    admits: Admits,
    headers: &HeaderMap,
) -> Result<Caller, ApiError> {
    match admits {
        Admits::Anyone => Ok(Caller::Anyone),
        // Whoever shows a key, even here, is taken for whom the key says.
        Admits::Operator if door == Door::Owner && !headers.contains_key(header::AUTHORIZATION) => {
            let first = sql("SELECT row FROM control_users ORDER BY row LIMIT 1");
            let user = app.store.fetch_optional(first).await?.ok_or(ApiError::NoOperator)?;
            Ok(Caller::Owner { user: user.get("row")? })
        }
        Admits::Operator => operator(app, headers).await?.ok_or(ApiError::NoOperator),
        Admits::Proxy => proxy(app, headers).await,
    }
}

async fn operator(app: &App, headers: &HeaderMap) -> Result<Option<Caller>, StoreError> {
    let Some(token) = bearer(headers, TokenOf::Operator) else { return Ok(None) };
    let select = sql("SELECT row, owner FROM control_api_keys WHERE token_hash = $1 AND revoked_at IS NULL");
    match app.store.fetch_optional(select.bind(token.hash().as_str())).await? {
        Some(row) => Ok(Some(Caller::Operator { key: row.get("row")?, user: row.get("owner")? })),
        None => Ok(None),
    }
}

async fn proxy(app: &App, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = bearer(headers, TokenOf::Proxy).ok_or(ApiError::NoProxy)?;
    let hash = token.hash();
    let select = sql("SELECT row FROM control_proxies WHERE token_hash = $1").bind(hash.as_str());
    if let Some(row) = app.store.fetch_optional(select).await? {
        return Ok(Caller::Proxy { row: row.get("row")? });
    }
    let select =
        sql("SELECT revoked_at FROM control_revoked_tokens WHERE token_hash = $1").bind(hash.as_str());
    match app.store.fetch_optional(select).await? {
        Some(_) => Err(ApiError::ProxyRevoked),
        None => Err(ApiError::NoProxy),
    }
}

/// One `Authorization` with a token that looks right; a database is not asked about anything else.
fn bearer(headers: &HeaderMap, of: TokenOf) -> Option<Token> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::parse(token.trim(), of)).flatten()
}
