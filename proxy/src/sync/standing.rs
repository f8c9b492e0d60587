//! How a managed proxy stands with its control service: what is in force, and what is wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use keyferry_contract::sync::{Applied, Generation, Serves, Status};
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::enforce::{Enforcer, Stand};

/// Shared by the connection to control, the clock, and whoever asks.
#[derive(Debug)]
pub(crate) struct Standing {
    enforcer: Mutex<Enforcer>,
    line: Mutex<Line>,
    /// Somebody wants to hear from control now.
    pub(super) poke: Notify,
    /// What is in force; changes with each state, and with each confirmation.
    pub(super) applied: watch::Sender<Option<Applied>>,
    /// What the clock waits for may be another thing now.
    pub(super) changed: Notify,
}

/// How it is going.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// `stream` or `poll`.
    pub(super) by: Option<&'static str>,
    /// Control answered since the start.
    pub(super) synced_once: bool,
    pub(super) last_sync: Option<Timestamp>,
    pub(super) error: Option<String>,
}

/// The part of `/v1/status` that is about control.
#[derive(Debug, Serialize)]
pub(crate) struct ManagedStatus {
    pub(crate) generation: Option<Generation>,
    pub(super) config_hash: Option<String>,
    principal_id: Option<String>,
    principal_status: Option<Status>,
    serves: Option<Serves>,
    state: &'static str,
    synced_once: bool,
    last_sync_at: Option<Timestamp>,
    connected_by: Option<&'static str>,
    last_error: Option<String>,
    policies: usize,
    sandboxes: usize,
    /// By policy, what this version does not run; requests that it applies to are refused.
    unsupported: BTreeMap<String, Vec<String>>,
}

impl Standing {
    pub(crate) fn new(enforcer: Enforcer) -> Self {
        Self {
            enforcer: Mutex::new(enforcer),
            line: Mutex::default(),
            poke: Notify::new(),
            applied: watch::Sender::new(None),
            changed: Notify::new(),
        }
    }

    pub(crate) fn enforcer(&self) -> MutexGuard<'_, Enforcer> {
        self.enforcer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force ends at another time now.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Completes once something is in force.
    pub(crate) async fn in_force(&self) {
        let mut applied = self.applied.subscribe();
        while self.enforcer().standing != Stand::InForce && applied.changed().await.is_ok() {}
    }

    /// The number of the state that is in force; 0 before there is one.
    pub(crate) fn number(&self) -> u64 {
        self.enforcer().state.as_ref().map_or(0, |state| state.number)
    }

    /// Asks control at once instead of in a while.
    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }

    /// Why no traffic should be sent here, if there is a reason.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        match self.enforcer().standing {
            Stand::Waiting => Some("policy_not_ready"),
            Stand::Stale => Some("policy_stale"),
            Stand::Revoked => Some("proxy_revoked"),
            Stand::InForce => None,
        }
    }

    pub(crate) fn status(&self) -> ManagedStatus {
        let Line { by, synced_once, last_sync, error } = self.line().clone();
        let enforcer = self.enforcer();
        let only = match enforcer.serves {
            Some(Serves::Dedicated) => enforcer.policies.values().next().map(|held| &held.of),
            Some(Serves::Shared) | None => None,
        };
        let unsupported = enforcer.policies.iter().filter(|(_, held)| !held.unsupported.is_empty());
        ManagedStatus {
            generation: enforcer.state.clone(),
            config_hash: only.map(|of| of.config_hash.clone()),
            principal_id: only.and_then(|of| of.principal_id.clone()),
            principal_status: only.map(|of| of.status),
            serves: enforcer.serves,
            state: match enforcer.standing {
                Stand::Waiting => "waiting",
                Stand::InForce => "in_force",
                Stand::Stale => "stale",
                Stand::Revoked => "revoked",
            },
            synced_once,
            last_sync_at: last_sync,
            connected_by: by,
            last_error: error,
            policies: enforcer.policies.len(),
            sandboxes: enforcer.policies.values().map(|held| held.sandboxes.len()).sum(),
            unsupported: unsupported.map(|(id, held)| (id.clone(), held.unsupported.clone())).collect(),
        }
    }

    /// A state is in force, or the one that is was confirmed.
    pub(super) fn heard(&self, address: Option<&str>) {
        {
            let mut line = self.line();
            (line.synced_once, line.last_sync, line.error) = (true, Some(Timestamp::now()), None);
        }
        self.announce(address);
    }

    pub(super) fn announce(&self, address: Option<&str>) {
        let applied = {
            let enforcer = self.enforcer();
            let hash = match enforcer.serves {
                Some(Serves::Dedicated) => {
                    enforcer.policies.values().next().map(|held| held.of.config_hash.clone())
                }
                Some(Serves::Shared) | None => None,
            };
            let sandbox_sockets = enforcer.sockets.as_ref().map(|sockets| sockets.directory());
            enforcer.state.clone().map(|generation| Applied {
                generation,
                config_hash: hash,
                address: address.map(str::to_owned),
                sandbox_sockets: sandbox_sockets.map(|directory| directory.display().to_string()),
            })
        };
        self.applied.send_if_modified(|known| std::mem::replace(known, applied.clone()) != applied);
        self.changed.notify_one();
    }
}
