//! `audit`: where the record of each request goes.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{self, GoDuration};
use super::field::{Block, Field, text};
use super::place::At;

/// The `audit` block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Where records are written.
    pub sink: AuditSink,
    /// The file of [`AuditSink::File`]; absent for every other sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// When the file gives way to a new one; never, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
    /// What becomes of requests that cannot be recorded.
    pub on_full: OnFull,
}

/// Where records are written, one JSON object a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "audit sink", rename_all = "lowercase")]
pub enum AuditSink {
    /// The standard error stream, as iron-proxy does.
    #[default]
    Stderr,
    /// The standard output stream.
    Stdout,
    /// A file, which is appended to.
    File,
}

/// When a file of records gives way to a new one, and how many stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rotate {
    /// The size at which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The age at which it does, when the next record comes.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_age")]
    pub max_age: Option<Duration>,
    /// How many older files stay; all of them, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<NonZeroU32>,
}

/// What becomes of a request whose record finds no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "choice", rename_all = "lowercase")]
pub enum OnFull {
    /// It is refused: nothing passes unrecorded.
    #[default]
    Deny,
    /// It passes. Records that find no room are counted, and the log says how many are missing.
    Sample,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "audit", deny_unknown_fields)]
pub(super) struct Keys {
    /// Where records are written.
    #[schemars(extend("default" = "stderr"))]
    sink: Field<AuditSink>,
    /// The file of `sink: file`, and of no other.
    path: Field<String>,
    /// When the file gives way to a new one; never, if absent.
    #[serde(rename = "rotate")]
    #[schemars(with = "Option<RotateKeys>")]
    _rotate: Block,
    /// What becomes of requests while records find no room.
    #[schemars(extend("default" = "deny"))]
    on_full: Field<OnFull>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "audit_rotate", deny_unknown_fields)]
struct RotateKeys {
    /// The size at which the file gives way to a new one, at least 65536.
    max_bytes: Field<u64>,
    /// The age at which it does, when the next record comes; at least 1m.
    #[serde(deserialize_with = "text")]
    max_age: Field<GoDuration>,
    /// How many older files stay; all of them, if absent.
    keep: Field<NonZeroU32>,
}

/// Of a file: smaller ones would hold little more than their own beginning.
const SMALLEST: u64 = 65_536;
const SHORTEST: Duration = Duration::from_secs(60);

impl Audit {
    pub(super) fn read(at: &At<'_>) -> Self {
        let Some(keys) = at.decode::<Keys>() else { return Self::default() };
        let path = keys.path.not_empty();
        let known = matches!(keys.sink, Field::Absent | Field::Is(_));
        let sink = keys.sink.get().unwrap_or_default();
        if known && sink == AuditSink::File && path.is_absent() {
            at.key("path")
                .error("required by the sink \"file\"", "name the file that records are appended to");
        }
        if known && sink != AuditSink::File && !path.is_absent() {
            at.key("path")
                .error("only the sink \"file\" takes a path", "write sink: file, or leave out the path");
        }
        let rotate = Rotate::read(&at.key("rotate"));
        if known && sink != AuditSink::File && rotate.is_some() {
            at.key("rotate")
                .error("only the sink \"file\" is rotated", "write sink: file, or leave out the rotation");
        }
        let on_full = keys.on_full.get().unwrap_or_default();
        Self { sink, path: path.get().map(PathBuf::from), rotate, on_full }
    }
}

impl Rotate {
    fn read(at: &At<'_>) -> Option<Self> {
        at.node()?;
        let keys = at.decode::<RotateKeys>()?;
        if keys.max_bytes.is_absent() && keys.max_age.is_absent() {
            at.error(
                "says neither how large nor how old a file may become",
                "set max_bytes, max_age, or both",
            );
        }
        let max_bytes = keys.max_bytes.get();
        if max_bytes.is_some_and(|bytes| bytes < SMALLEST) {
            at.key("max_bytes").error(format!("must be at least {SMALLEST}"), ());
        }
        let max_age = keys.max_age.get().map(|age| age.to_std().unwrap_or_default());
        if max_age.is_some_and(|age| age < SHORTEST) {
            at.key("max_age").error("must be at least 1m", ());
        }
        Some(Self { max_bytes, max_age, keep: keys.keep.get() })
    }
}

fn write_age<S: serde::Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match age {
        Some(age) => duration::write(age, serializer),
        None => serializer.serialize_none(),
    }
}
