//! Which requests were sent, which were answered, and which are in the audit log.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

/// Requests by the number that stands in their path.
#[derive(Default)]
pub(crate) struct Ledger {
    next: AtomicU64,
    /// Whether it was answered.
    sent: Mutex<HashMap<u64, bool>>,
}

/// Requests against records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Requests with a number.
    pub sent: u64,
    /// Those to which the client saw an answer.
    pub answered: u64,
    /// Those with one record.
    pub recorded: u64,
    /// Those with more than one.
    pub twice: u64,
    /// Those that were answered and have none.
    pub missing: u64,
    /// Records with a number that was never sent.
    pub unknown: u64,
    /// Records without a number.
    pub unnumbered: u64,
}

impl Ledger {
    /// A new request: its number, and the path that it is to have.
    pub(crate) fn send(&self) -> (u64, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.sent.lock().expect("no holder of this lock panics").insert(number, false);
        (number, format!("/soak/{number}"))
    }

    /// The request was answered.
    pub(crate) fn answered(&self, number: u64) {
        self.sent.lock().expect("no holder of this lock panics").insert(number, true);
    }

    pub(super) fn reconcile(&self, audit: &str) -> Reconciled {
        let sent = self.sent.lock().expect("no holder of this lock panics");
        let mut records = HashMap::<u64, u64>::new();
        let mut reconciled = Reconciled { sent: sent.len() as u64, ..Reconciled::default() };
        for line in audit.lines() {
            let record: Value = serde_json::from_str(line).expect("a record on each line");
            if record["msg"] == "request_open" {
                continue;
            }
            let path = record["audit"]["path"].as_str().unwrap_or_default();
            match path.strip_prefix("/soak/").and_then(|number| number.parse().ok()) {
                Some(number) => *records.entry(number).or_default() += 1,
                None => reconciled.unnumbered += 1,
            }
        }
        reconciled.unknown = records.keys().filter(|number| !sent.contains_key(number)).count() as u64;
        for (number, answered) in sent.iter() {
            reconciled.answered += u64::from(*answered);
            match records.get(number) {
                None => reconciled.missing += u64::from(*answered),
                Some(1) => reconciled.recorded += 1,
                Some(_) => reconciled.twice += 1,
            }
        }
        reconciled
    }
}

impl Reconciled {
    pub(super) fn faults(&self) -> Vec<String> {
        [
            (self.twice, "requests have more than one record"),
            (self.missing, "requests were answered and have no record"),
            (self.unknown, "records are of requests that nobody sent"),
            (u64::from(self.answered * 10 < self.sent * 8), "in five requests was not answered"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}: {self:?}"))
        .collect()
    }
}
