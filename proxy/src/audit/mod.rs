//! One record per request (invariant 12): gathered while the request runs, written by a thread of its own.

mod entry;
mod sink;

pub(crate) use entry::{Entry, Flow, Mode, Outcome, Recorder, RequestIds, SecretTrace, Target};
pub(crate) use sink::{Audit, Permit, Writer};
pub use sink::{AuditError, AuditTarget};

#[cfg(test)]
mod tests;
