//! What else stands in an audit log: where its chain begins or goes on, and what was left out.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Level, Record};
use crate::chain::Hash;

/// Any line of an audit log.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// A request.
    Request(Box<Record<'a>>),
    /// Something about the log itself.
    Event(Event),
}

impl<'a> Line<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no line of an audit log.
    pub fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow)]
            msg: Cow<'a, str>,
        }
        match &*serde_json::from_slice::<Kind<'_>>(line)?.msg {
            "request" | "request_open" => serde_json::from_slice(line).map(Self::Request),
            _ => serde_json::from_slice(line).map(Self::Event),
        }
    }
}

/// A line that is about the log itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was written.
    pub time: Timestamp,
    /// `INFO`, or `WARN` where something is missing.
    pub level: Level,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "msg")]
pub enum EventKind {
    /// The hash chain begins, or goes on in another file or process.
    #[serde(rename = "audit_chain")]
    Chain {
        /// How.
        chain: Chain,
    },
    /// Records were left out, as `audit.on_full: sample` asks.
    #[serde(rename = "audit_dropped")]
    Dropped {
        /// How many.
        dropped: Dropped,
    },
}

/// Where a chain begins or goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Which of both.
    pub event: Beginning,
    /// The hash of the record before; zeros at the start.
    pub prev: Hash,
    /// The line before this one, if a crash left it incomplete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<Torn>,
}

/// Whether a chain begins or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// Nothing was there before.
    Start,
    /// It goes on from `prev`.
    Continue,
}

/// A line that a crash left incomplete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    /// Its length.
    pub bytes: u64,
    /// Its digest, so that nobody changes what is left of it.
    pub sha256: Hash,
}

/// Records that were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub count: u64,
}
