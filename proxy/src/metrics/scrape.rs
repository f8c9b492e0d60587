//! The page that a scraper reads.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, TextEncoder};

use super::{Metrics, Seen};
use crate::data_plane::DataPlane;
use crate::reload::Status;

/// The text format, version 0.0.4.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything that is counted, and what is looked up at this moment.
pub(crate) fn scrape(plane: &DataPlane, status: &Status) -> Result<String, prometheus::Error> {
    let metrics: &Metrics = &plane.telemetry.metrics;
    let _scraping = metrics.scraping.lock().unwrap_or_else(PoisonError::into_inner);
    metrics.seen.look(plane, status);
    TextEncoder::new().encode_to_string(&metrics.registry.gather())
}

impl Seen {
    fn look(&self, plane: &DataPlane, status: &Status) {
        let generation = plane.nobody.generation.load();
        let told = plane.control.as_ref().map(|control| control.number());
        self.generation.set(whole(told.unwrap_or_else(|| generation.policy.generation())));
        self.applied.set(seconds(status.applied));
        self.attempted.set(seconds(status.last_attempt));
        self.connections_open.set(whole(plane.admission.open() as u64));
        self.pool_idle.set(whole(generation.pool.idle() as u64));
        let (ok, failed) = plane.fetches.counts();
        count(&self.fetches_ok, ok);
        count(&self.fetches_failed, failed);
        let audit = generation.audit.status();
        self.audit_queue.set(whole(audit.queued as u64));
        self.audit_capacity.set(whole(audit.capacity as u64));
        count(&self.audit_stalls, audit.stalls);
        count(&self.audit_sampled, audit.dropped);
        count(&self.audit_rotation_failures, audit.rotation_failures);
        self.audit_failing.set(i64::from(audit.trouble.is_some()));
    }
}

/// Counted elsewhere: here it is as it was seen.
fn count(counter: &IntCounter, seen: u64) {
    counter.reset();
    counter.inc_by(seen);
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn seconds(time: SystemTime) -> i64 {
    whole(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}
