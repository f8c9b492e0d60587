//! `audit`: where the record of each request goes.

use std::path::PathBuf;

use serde::Deserialize;

use super::field::Field;
use super::place::At;

/// The `audit` block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Where records are written.
    pub sink: AuditSink,
    /// The file of [`AuditSink::File`]; absent for every other sink.
    pub path: Option<PathBuf>,
}

/// Where records are written, one JSON object a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    sink: Field<AuditSink>,
    path: Field<String>,
}

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
        Self { sink, path: path.get().map(PathBuf::from) }
    }
}
