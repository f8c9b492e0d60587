//! The first start: a state to count from, an operator, a key.

use keyferry_store::{Reader, Store, StoreError, sql};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::api::App;
use crate::id::IdOf;
use crate::rows::write::Write;
use crate::token::{NoRandomness, Token, TokenOf, hex};

/// What the environment says about the first operator.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Who.
    pub email: Option<String>,
    /// The key, where it is chosen and not made here.
    pub api_key: Option<SecretString>,
}

/// What became of it.
#[derive(Debug)]
pub enum Bootstrapped {
    /// There is an operator already; nothing was done.
    Already,
    /// The key that was given is good now.
    WithGivenKey,
    /// A key was made. It is shown once, by the caller.
    WithNewKey(SecretString),
}

/// Why there is no first operator.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A key that no key looks like.
    #[error(
        "the first API key is no key\nhint: write iak_ and 64 lower-case hexadecimal digits, or leave it out and take the one that is made"
    )]
    Key,
    /// An address that is none.
    #[error("the first operator's address is no address\nhint: write somebody@example.com")]
    Email,
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An epoch that no other database has.
fn epoch() -> Result<String, StoreError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Failed { reason: NoRandomness.to_string() })?;
    Ok(hex(&bytes))
}

/// Begins another epoch.
pub(crate) async fn new_epoch(store: &Store) -> Result<(), StoreError> {
    state(store).await?;
    let mut transaction = store.begin().await?;
    transaction.execute(sql("UPDATE control_state SET epoch = $1 WHERE id = 1").bind(epoch()?)).await?;
    transaction.commit().await
}

/// Makes the state of a new database.
pub(crate) async fn state(store: &Store) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let insert = sql(
        "INSERT INTO control_state (id, epoch, number, next_row) VALUES (1, $1, 0, 0) ON CONFLICT DO NOTHING",
    );
    transaction.execute(insert.bind(epoch()?)).await?;
    transaction.commit().await
}

pub(crate) async fn run(app: &App, with: Bootstrap) -> Result<Bootstrapped, BootstrapError> {
    let email = with.email.unwrap_or_else(|| "operator@localhost".to_owned());
    let plain =
        email.len() <= 255 && !email.contains(char::is_control) && !email.contains(char::is_whitespace);
    if !plain || !email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()) {
        return Err(BootstrapError::Email);
    }
    let given = match &with.api_key {
        Some(key) => Some(Token::parse(key.expose_secret(), TokenOf::Operator).ok_or(BootstrapError::Key)?),
        None => None,
    };
    let mut write = Write::begin(&app.store, "system", (app.clock)()).await?;
    if write.on.fetch_optional(sql("SELECT row FROM control_users LIMIT 1")).await?.is_some() {
        return Ok(Bootstrapped::Already);
    }
    let made = given.is_none();
    let token = match given {
        Some(token) => token,
        None => Token::generate(TokenOf::Operator)?,
    };
    let (user, key, role) = (write.new_row().await?, write.new_row().await?, write.new_row().await?);
    let insert = sql("INSERT INTO control_users (row, email, created_at) VALUES ($1, $2, $3)");
    write.on.execute(insert.bind(user).bind(&email).bind(write.now)).await?;
    let insert = sql("INSERT INTO control_api_keys (row, owner, name, token_hash, created_at, updated_at) \
         VALUES ($1, $2, 'bootstrap', $3, $4, $4)");
    write.on.execute(insert.bind(key).bind(user).bind(token.hash().as_str()).bind(write.now)).await?;
    let insert = sql(
        "INSERT INTO control_roles (row, namespace, foreign_id, name, labels, is_default, created_at, updated_at) \
         VALUES ($1, 'default', 'infra', 'Infra', '{}', $2, $3, $3)",
    );
    write.on.execute(insert.bind(role).bind(true).bind(write.now)).await?;
    let after = json!({ "user_id": IdOf::User.id(user), "api_key_id": IdOf::ApiKey.id(key), "email": email });
    write.record("bootstrap", &IdOf::User.id(user), None, Some(&after)).await?;
    let (generation, affected) = write.commit().await?;
    app.hub.committed(&generation, &affected);
    Ok(if made {
        Bootstrapped::WithNewKey(token.expose().to_owned().into())
    } else {
        Bootstrapped::WithGivenKey
    })
}
