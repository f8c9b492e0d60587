//! One handle per source.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use keyferry_config::document::Source;
use tokio::task::JoinSet;

use crate::caching::Caching;
use crate::counts::FetchCounts;
use crate::environment::Environment;
use crate::error::SourceError;
use crate::fetch::FromSource;
use crate::handle::SecretHandle;

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
