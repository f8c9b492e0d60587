//! How many values were asked for at their sources.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the fetches of all sources.
#[derive(Debug, Default)]
pub struct FetchCounts {
    ok: AtomicU64,
    failed: AtomicU64,
}

impl FetchCounts {
    /// How many have succeeded and failed since the start.
    pub fn counts(&self) -> (u64, u64) {
        (self.ok.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    pub(crate) fn settled(&self, ok: bool) {
        if ok { &self.ok } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
    }
}
