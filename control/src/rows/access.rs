//! What effective access is computed from: a fixed number of queries, however many principals, grants and secrets there are.

use std::collections::{BTreeSet, HashMap};

use keyferry_contract::sync::Generation;
use keyferry_store::{Reader, Row, Store, StoreError, sql};
use secrecy::SecretString;

use super::{PRINCIPAL_COLUMNS, SECRET_VALUE, damaged, json, moment, principal};
use crate::effective::{GrantedSecret, HeldGrant, HeldRule, Holder, Via};
use crate::id::IdOf;
use crate::secret::{SecretKind, Spec};

/// Some principals as they are in one state.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) generation: Generation,
    pub(crate) holders: HashMap<i64, Holder>,
    pub(crate) secrets: HashMap<i64, GrantedSecret>,
}

/// Reads the principals with these rows. Those that do not exist are not in the answer.
pub(crate) async fn load(store: &Store, principals: &BTreeSet<i64>) -> Result<Access, StoreError> {
    let rows: Vec<i64> = principals.iter().copied().collect();
    let mut on = store.snapshot().await?;
    let generation = generation(&mut on).await?;
    let mut holders = HashMap::new();
    let select = sql("SELECT ").push(PRINCIPAL_COLUMNS).push(" FROM control_principals p WHERE p.row = ANY(");
    for row in on.fetch_all(select.push_bind(rows.clone()).push(")")).await? {
        let principal = principal(&row)?;
        holders.insert(principal.row, Holder { principal, grants: Vec::new(), rules: Vec::new() });
    }
    // What is one's own is read first and in the order in which it was made, then what comes through roles.
    let grants = sql(
        "SELECT g.row, g.principal AS holder, NULL AS role_row, NULL AS role_foreign_id, NULL AS role_name, g.secret, \
         g.priority, g.expires_at FROM control_grants g WHERE g.principal = ANY($1) \
         UNION ALL SELECT g.row, a.principal, r.row, r.foreign_id, r.name, g.secret, g.priority, g.expires_at \
         FROM control_assignments a JOIN control_roles r ON r.row = a.role JOIN control_grants g ON g.role = r.row \
         WHERE a.principal = ANY($1) ORDER BY 1",
    );
    let mut secrets = BTreeSet::new();
    for row in on.fetch_all(grants.bind(rows.clone())).await? {
        let Some(holder) = holders.get_mut(&row.get("holder")?) else { continue };
        let secret = row.get("secret")?;
        secrets.insert(secret);
        let expires_at = row.get::<Option<i64>>("expires_at")?.map(moment).transpose()?;
        let (id, via) = (IdOf::Grant.id(row.get("row")?), via(&row)?);
        holder.grants.push(HeldGrant { id, via, secret, priority: row.get("priority")?, expires_at });
    }
    let rules = sql(
        "SELECT e.row, e.principal AS holder, NULL AS role_row, NULL AS role_foreign_id, NULL AS role_name, e.rule \
         FROM control_egress_rules e WHERE e.principal = ANY($1) \
         UNION ALL SELECT e.row, a.principal, r.row, r.foreign_id, r.name, e.rule \
         FROM control_assignments a JOIN control_roles r ON r.row = a.role JOIN control_egress_rules e ON e.role = r.row \
         WHERE a.principal = ANY($1) ORDER BY 1",
    );
    for row in on.fetch_all(rules.bind(rows)).await? {
        let Some(holder) = holders.get_mut(&row.get("holder")?) else { continue };
        let (id, via) = (IdOf::EgressRule.id(row.get("row")?), via(&row)?);
        holder.rules.push(HeldRule { id, via, rule: json(&row, "rule")? });
    }
    let secrets = granted(store, &mut on, secrets.into_iter().collect()).await?;
    Ok(Access { generation, holders, secrets })
}

/// The state that is read.
pub(crate) async fn generation(on: &mut impl Reader) -> Result<Generation, StoreError> {
    let row = on.fetch_one(sql("SELECT epoch, number FROM control_state WHERE id = 1")).await?;
    let number = u64::try_from(row.get::<i64>("number")?).map_err(|error| damaged(&error))?;
    Ok(Generation { epoch: row.get("epoch")?, number })
}

fn via(row: &Row) -> Result<Via, StoreError> {
    let Some(role) = row.get::<Option<i64>>("role_row")? else { return Ok(Via::Direct) };
    let role_id = IdOf::Role.id(role);
    let name = row.get::<Option<String>>("role_foreign_id")?.or(row.get("role_name")?);
    Ok(Via::Role { role: name.unwrap_or_else(|| role_id.clone()), role_id })
}

async fn granted(
    store: &Store,
    on: &mut impl Reader,
    rows: Vec<i64>,
) -> Result<HashMap<i64, GrantedSecret>, StoreError> {
    let mut values: HashMap<i64, HashMap<String, SecretString>> = HashMap::new();
    let select = sql("SELECT id, secret, field, value FROM control_secret_values WHERE secret = ANY($1)");
    for row in on.fetch_all(select.bind(rows.clone())).await? {
        let value = store.unseal(&SECRET_VALUE, &row.get::<String>("id")?, &row.sealed("value")?)?;
        values.entry(row.get("secret")?).or_default().insert(row.get("field")?, value);
    }
    let select = sql(
        "SELECT row, kind, foreign_id, name, enabled, spec, created_at FROM control_secrets WHERE row = ANY($1)",
    );
    let mut secrets = HashMap::new();
    for row in on.fetch_all(select.bind(rows)).await? {
        let number: i64 = row.get("row")?;
        let kind = kind(&row)?;
        let mut spec = Spec::stored(kind, &row.get::<String>("spec")?).map_err(|error| damaged(&error))?;
        spec.put_values(&mut values.remove(&number).unwrap_or_default());
        secrets.insert(
            number,
            GrantedSecret {
                row: number,
                kind,
                foreign_id: row.get("foreign_id")?,
                name: row.get("name")?,
                enabled: row.get("enabled")?,
                created_at: moment(row.get("created_at")?)?,
                spec,
            },
        );
    }
    Ok(secrets)
}

/// The kind of a stored secret.
pub(crate) fn kind(row: &Row) -> Result<SecretKind, StoreError> {
    let name: String = row.get("kind")?;
    SecretKind::of_name(&name).ok_or_else(|| damaged(&"an unknown kind of secret"))
}
