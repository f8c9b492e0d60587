//! What the operator sees of a running proxy beside its log and its records.

use crate::audit::Entry;
use crate::metrics::Metrics;

/// Shared by everything that has something to tell.
#[derive(Debug)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Metrics,
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        Self { metrics: Metrics::new() }
    }

    /// A request has ended, and this is its record.
    pub(crate) fn ended(&self, entry: &Entry) {
        self.metrics.ended(entry);
    }
}
