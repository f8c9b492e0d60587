//! One handle per source.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use keyferry_config::document::Source;
use secrecy::SecretString;
use tokio::task::JoinSet;

use crate::caching::Caching;
use crate::counts::FetchCounts;
use crate::environment::Environment;
use crate::error::SourceError;
use crate::fetch::{Brought, FromSource};
use crate::handle::SecretHandle;

/// A secret whose value is brought.
pub struct Delivered {
    handle: Arc<SecretHandle>,
    brought: Arc<Brought>,
}

impl Delivered {
    /// What requests ask.
    pub fn handle(&self) -> &Arc<SecretHandle> {
        &self.handle
    }

    /// Brings the value that counts from now on. The one before is still looked for in responses for a while, as with every
    /// rotation.
    pub fn bring(&self, value: SecretString) {
        *self.brought.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        self.handle.bring(self.brought.text());
    }
}

/// Its handle (T46).
impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

/// All sources in use. Lives as long as the process, over every reload of the policy.
#[derive(Debug)]
pub struct Sources {
    environment: Environment,
    versions: Arc<AtomicU64>,
    counts: Arc<FetchCounts>,
    handles: Mutex<HashMap<Source, Arc<SecretHandle>>>,
}

impl Sources {
    /// No sources yet; variables will be looked up in `environment`.
    pub fn new(environment: Environment) -> Self {
        Self { environment, versions: Arc::default(), counts: Arc::default(), handles: Mutex::default() }
    }

    /// The handle of `source`: the same for everyone who asks with an equal source. Fetches nothing.
    pub fn get(&self, source: &Source) -> Arc<SecretHandle> {
        let mut handles = self.handles();
        if let Some(handle) = handles.get(source) {
            return handle.clone();
        }
        let fetch = FromSource { source: source.clone(), environment: self.environment.clone() };
        let handle = SecretHandle::new(
            source.display_name(),
            Box::new(fetch),
            Caching::of(source),
            self.versions.clone(),
            self.counts.clone(),
        );
        handles.insert(source.clone(), handle.clone());
        handle
    }

    /// A secret whose value is brought and not fetched: by whoever configures us from afar.
    pub fn delivered(&self, source: &Source, name: String, value: SecretString) -> Delivered {
        let json_key = source.json_key.clone();
        let brought = Arc::new(Brought { name: name.clone(), json_key, value: Mutex::new(value) });
        let handle = SecretHandle::new(
            name,
            Box::new(Arc::clone(&brought)),
            Caching::of(source),
            self.versions.clone(),
            self.counts.clone(),
        );
        handle.bring(brought.text());
        Delivered { handle, brought }
    }

    /// How the fetches of all sources went, now and later.
    pub fn fetch_counts(&self) -> Arc<FetchCounts> {
        self.counts.clone()
    }

    /// Drops the handles that only this registry still holds, and wipes their values: after a reload, once the policies that
    /// are no longer in force are gone.
    pub fn retain_used(&self) {
        self.handles().retain(|_, handle| Arc::strong_count(handle) > 1);
    }

    /// Fetches every source again, all at once, and returns what failed: an operator who asks for a reload has often just
    /// written a new value. Values that are kept are served meanwhile, and stay where fetching fails.
    pub async fn refresh_all(&self) -> Vec<SourceError> {
        let handles: Vec<_> = self.handles().values().cloned().collect();
        let mut refreshes: JoinSet<_> =
            handles.into_iter().map(|handle| async move { handle.refresh().await.err() }).collect();
        let mut failures = Vec::new();
        while let Some(refreshed) = refreshes.join_next().await {
            failures.extend(refreshed.ok().flatten());
        }
        failures
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, HashMap<Source, Arc<SecretHandle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
