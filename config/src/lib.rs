//! keyferry's policy language: what may leave a sandbox, and with which credential.
//!
//! [`document`] holds the words (the YAML file, or the same document rendered by a control plane), [`policy`] their meaning;
//! [`preset`] has documents that are ready to use.
//! Everything here is pure: no I/O, no async, no clock of its own. The proxy asks [`policy`] on its hot path; `check`,
//! `explain` and every other tool asks the same code off it, so no second opinion about a rule exists.

pub mod document;
pub mod policy;
pub mod preset;
