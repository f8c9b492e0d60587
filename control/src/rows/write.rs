//! One write: a transaction that numbers a state, records what it did, and says whom it concerns.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use keyferry_contract::sync::Generation;
use keyferry_store::{Reader, Store, StoreError, Transaction, sql};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::micros;
use crate::attributes::Labels;
use crate::token::hex;

/// The channel that replicas listen to.
pub(crate) const CHANNEL: &str = "control";

/// Whom a write concerns, so that nobody else is computed again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Affected {
    /// Everybody: there were too many to name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) all: bool,
    /// Principals whose access may be another one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) principals: BTreeSet<i64>,
    /// Sandboxes that came, went or changed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) sandboxes: BTreeSet<i64>,
    /// Proxies that came, went or have another principal.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) proxies: BTreeSet<i64>,
}

/// What is announced to all replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    /// The state.
    pub(crate) number: u64,
    /// Whom it concerns.
    #[serde(flatten)]
    pub(crate) affected: Affected,
}

/// A write in progress. Dropped, nothing has happened.
pub(crate) struct Write {
    pub(crate) on: Transaction,
    pub(crate) affected: Affected,
    /// The moment of the write.
    pub(crate) now: i64,
    generation: Generation,
    actor: String,
}

impl Write {
    /// Begins one. Writers wait for each other, so that states are numbered in the order in which they can be seen, and a first
    /// upsert and a second one of the same name cannot both create.
    pub(crate) async fn begin(store: &Store, actor: &str, now: Timestamp) -> Result<Self, StoreError> {
        let mut on = store.begin().await?;
        on.lock("keyferry control").await?;
        let state = on
            .fetch_one(sql(
                "UPDATE control_state SET number = number + 1 WHERE id = 1 RETURNING epoch, number",
            ))
            .await?;
        let number = u64::try_from(state.get::<i64>("number")?).unwrap_or_default();
        let generation = Generation { epoch: state.get("epoch")?, number };
        Ok(Self { on, affected: Affected::default(), now: micros(now), generation, actor: actor.to_owned() })
    }

    /// The number of a new row.
    pub(crate) async fn new_row(&mut self) -> Result<i64, StoreError> {
        let statement =
            sql("UPDATE control_state SET next_row = next_row + 1 WHERE id = 1 RETURNING next_row");
        self.on.fetch_one(statement).await?.get("next_row")
    }

    /// A moment after `before`, whatever the clock says: an ETag must never come back.
    pub(crate) fn after(&self, before: i64) -> i64 {
        self.now.max(before + 1)
    }

    /// Everybody who holds a secret.
    pub(crate) async fn affects_holders_of(&mut self, secret: i64) -> Result<(), StoreError> {
        let holders = sql(
            "SELECT g.principal AS principal FROM control_grants g WHERE g.secret = $1 AND g.principal IS NOT NULL \
             UNION SELECT a.principal FROM control_grants g JOIN control_assignments a ON a.role = g.role WHERE g.secret = $1",
        )
        .bind(secret);
        for row in self.on.fetch_all(holders).await? {
            self.affected.principals.insert(row.get("principal")?);
        }
        Ok(())
    }

    /// Everybody who has a role.
    pub(crate) async fn affects_members_of(&mut self, role: i64) -> Result<(), StoreError> {
        let members = sql("SELECT principal FROM control_assignments WHERE role = $1").bind(role);
        for row in self.on.fetch_all(members).await? {
            self.affected.principals.insert(row.get("principal")?);
        }
        Ok(())
    }

    /// Writes down the labels of a row, for filters.
    pub(crate) async fn label(
        &mut self,
        resource: &'static str,
        row: i64,
        labels: &Labels,
    ) -> Result<(), StoreError> {
        self.unlabel(resource, row).await?;
        for (label, value) in labels {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let insert =
                sql("INSERT INTO control_labels (resource, row, label, value) VALUES ($1, $2, $3, $4)");
            self.on.execute(insert.bind(resource).bind(row).bind(label).bind(text)).await?;
        }
        Ok(())
    }

    /// Forgets them.
    pub(crate) async fn unlabel(&mut self, resource: &'static str, row: i64) -> Result<(), StoreError> {
        let delete = sql("DELETE FROM control_labels WHERE resource = $1 AND row = $2");
        self.on.execute(delete.bind(resource).bind(row)).await.map(drop)
    }

    /// Adds to the change log. What is shown to readers of the API is what is recorded: no value is ever in it.
    pub(crate) async fn record(
        &mut self,
        action: &str,
        resource: &str,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Result<(), StoreError> {
        let last = sql("SELECT seq, hash FROM control_changes ORDER BY seq DESC LIMIT 1");
        let (seq, previous) = match self.on.fetch_optional(last).await? {
            Some(row) => (row.get::<i64>("seq")? + 1, row.get::<String>("hash")?),
            None => (1, FIRST_LINK.to_owned()),
        };
        let text = |value: Option<&Value>| value.map(Value::to_string);
        let (before, after) = (text(before), text(after));
        let hash = change_hash(&Link {
            previous: &previous,
            seq,
            at: self.now,
            actor: &self.actor,
            action,
            resource,
            before: before.as_deref(),
            after: after.as_deref(),
        });
        let insert = sql(
            "INSERT INTO control_changes (seq, at, actor, action, resource, before, after, previous_hash, hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        );
        let insert = insert.bind(seq).bind(self.now).bind(self.actor.as_str()).bind(action).bind(resource);
        self.on.execute(insert.bind(before).bind(after).bind(previous).bind(hash)).await.map(drop)
    }

    /// Makes it last and tells all replicas.
    pub(crate) async fn commit(mut self) -> Result<(Generation, Affected), StoreError> {
        let announcement = Announcement { number: self.generation.number, affected: self.affected.clone() };
        let mut payload = json!(announcement).to_string();
        if payload.len() > keyferry_store::MAX_PAYLOAD_BYTES {
            self.affected = Affected { all: true, ..Affected::default() };
            payload = json!({ "number": self.generation.number, "all": true }).to_string();
        }
        self.on.announce(CHANNEL, &payload).await?;
        self.on.commit().await?;
        Ok((self.generation, self.affected))
    }
}

/// What stands before the first entry.
pub(crate) const FIRST_LINK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What an entry of the log is, and the entry before it.
pub(crate) struct Link<'a> {
    pub(crate) previous: &'a str,
    pub(crate) seq: i64,
    pub(crate) at: i64,
    pub(crate) actor: &'a str,
    pub(crate) action: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) before: Option<&'a str>,
    pub(crate) after: Option<&'a str>,
}

/// The hash of an entry; each is bound to the one before.
pub(crate) fn change_hash(link: &Link<'_>) -> String {
    let canonical = json!([
        link.previous,
        link.seq,
        link.at,
        link.actor,
        link.action,
        link.resource,
        link.before,
        link.after
    ]);
    hex(digest(&SHA256, canonical.to_string().as_bytes()).as_ref())
}
