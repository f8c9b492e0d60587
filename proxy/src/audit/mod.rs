//! One record per request (invariant 12): gathered while the request runs, written by a thread of its own.

mod entry;
mod file;
mod queue;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use entry::{Entry, Flow, Mode, Outcome, Recorder, RequestIds, SecretTrace, Target};
pub(crate) use queue::{Audit, AuditStatus, Permit};
pub use sink::{AuditError, AuditTarget};
pub(crate) use writer::Writer;
