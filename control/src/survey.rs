//! What a database holds, for those who look at it while no service runs.

use keyferry_contract::sync::Generation;
use keyferry_store::{Store, StoreError, sql};
use serde::Serialize;

use crate::rows::access;

/// How much there is, in all namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The newest state.
    pub generation: Generation,
    /// How many principals.
    pub principals: i64,
    /// How many roles.
    pub roles: i64,
    /// How many secrets.
    pub secrets: i64,
    /// How many grants, ended ones too.
    pub grants: i64,
    /// How many proxies.
    pub proxies: i64,
    /// How many sandboxes, ended ones too.
    pub sandboxes: i64,
}

impl Survey {
    /// Of a database that a control service has opened before. Changes nothing.
    ///
    /// # Errors
    ///
    /// The database's; it is not one of a control service.
    pub async fn of(store: &Store) -> Result<Self, StoreError> {
        let generation = access::generation(&mut &*store).await?;
        let row = store
            .fetch_one(sql("SELECT (SELECT count(*) FROM control_principals) AS principals, \
                 (SELECT count(*) FROM control_roles) AS roles, \
                 (SELECT count(*) FROM control_secrets) AS secrets, \
                 (SELECT count(*) FROM control_grants) AS grants, \
                 (SELECT count(*) FROM control_proxies) AS proxies, \
                 (SELECT count(*) FROM control_sandboxes) AS sandboxes"))
            .await?;
        Ok(Self {
            generation,
            principals: row.get("principals")?,
            roles: row.get("roles")?,
            secrets: row.get("secrets")?,
            grants: row.get("grants")?,
            proxies: row.get("proxies")?,
            sandboxes: row.get("sandboxes")?,
        })
    }
}
