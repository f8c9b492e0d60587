//! The queue in front of the writer. A place in it is reserved before a request is judged, so that no finished request finds it full:
//! while the sink cannot keep up, new requests are refused (`audit_full`), or pass unrecorded where the operator wants it so (T86).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use keyferry_config::document::{self, OnFull, Rotate};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Entry;

/// The queue's end that requests hold.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(super) queue: mpsc::Sender<Line>,
    pub(super) health: Arc<Health>,
}

/// What the writer is sent.
#[derive(Debug)]
pub(super) enum Line {
    Record(Box<Entry>),
    /// There is something to do beside records.
    Wake,
    /// There will be no more.
    End,
}

/// How the log does, and what the document asks of it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The sink takes nothing.
    pub(super) failing: AtomicBool,
    /// The file cannot give way to a new one.
    pub(super) stuck: AtomicBool,
    /// How often the sink began to fail.
    pub(super) stalls: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Of those dropped, the ones that the log says are missing.
    pub(super) reported: AtomicU64,
    pub(super) rotation_failures: AtomicU64,
    sample: AtomicBool,
    rotate: Mutex<Option<Rotate>>,
}

/// What operators can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AuditStatus {
    /// Requests that are open or not written yet.
    pub(crate) queued: usize,
    /// For how many there is room.
    pub(crate) capacity: usize,
    /// How often the sink began to fail.
    pub(crate) stalls: u64,
    /// Requests refused for lack of room.
    pub(crate) refused: u64,
    /// Records left out for lack of room.
    pub(crate) dropped: u64,
    /// How often a file could not give way to a new one.
    pub(crate) rotation_failures: u64,
    /// What is wrong now.
    pub(crate) trouble: Option<&'static str>,
}

/// A place in the queue, or the promise to look for one when the record is there.
#[derive(Debug)]
pub(crate) struct Permit(Room);

#[derive(Debug)]
enum Room {
    Place(mpsc::OwnedPermit<Line>),
    /// None was free, and the request passes all the same.
    Late(mpsc::Sender<Line>, Arc<Health>),
}

impl Permit {
    pub(crate) fn send(self, entry: Entry) {
        let line = Line::Record(Box::new(entry));
        match self.0 {
            Room::Place(place) => {
                place.send(line);
            }
            Room::Late(queue, health) => {
                if queue.try_send(line).is_err() {
                    health.dropped.fetch_add(1, Ordering::Release);
                    // The writer may have made room meanwhile, and would not look again.
                    let _ = queue.try_send(Line::Wake);
                }
            }
        }
    }
}

impl Audit {
    /// A place in the queue, or none while the sink cannot keep up and nothing may pass unrecorded.
    pub(crate) fn reserve(&self) -> Option<Permit> {
        match self.queue.clone().try_reserve_owned() {
            Ok(place) => Some(Permit(Room::Place(place))),
            Err(TrySendError::Full(queue) | TrySendError::Closed(queue)) => {
                if self.health.sample.load(Ordering::Relaxed) {
                    return Some(Permit(Room::Late(queue, Arc::clone(&self.health))));
                }
                self.health.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// A document that asks for this is in force.
    pub(crate) fn apply(&self, audit: &document::Audit) {
        self.health.sample.store(audit.on_full == OnFull::Sample, Ordering::Relaxed);
        *self.health.rotate.lock().unwrap_or_else(PoisonError::into_inner) = audit.rotate;
    }

    /// Has the writer look whether its file was moved away, even if there is nothing to write.
    pub(crate) fn look(&self) {
        // A full queue keeps it looking.
        let _ = self.queue.try_send(Line::Wake);
    }

    /// Why the log is not well, if it is not.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        let health = &self.health;
        if health.failing.load(Ordering::Relaxed) {
            Some("the audit sink cannot be written")
        } else if health.dropped.load(Ordering::Relaxed) > health.reported.load(Ordering::Relaxed) {
            Some("audit records are left out")
        } else if self.queue.capacity() == 0 {
            Some("the audit queue is full")
        } else if health.stuck.load(Ordering::Relaxed) {
            Some("the audit file cannot be rotated")
        } else {
            None
        }
    }

    pub(crate) fn status(&self) -> AuditStatus {
        AuditStatus {
            queued: self.queue.max_capacity() - self.queue.capacity(),
            capacity: self.queue.max_capacity(),
            stalls: self.health.stalls.load(Ordering::Relaxed),
            refused: self.health.refused.load(Ordering::Relaxed),
            dropped: self.health.dropped.load(Ordering::Relaxed),
            rotation_failures: self.health.rotation_failures.load(Ordering::Relaxed),
            trouble: self.trouble(),
        }
    }
}

impl Health {
    pub(super) fn rotate(&self) -> Option<Rotate> {
        *self.rotate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
