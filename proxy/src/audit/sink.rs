//! Where records go: a stream, or a file that is rotated. Each record is sealed on its way there, but on standard error, which
//! it shares with the log.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use keyferry_config::document::{self, AuditSink, Rotate};
use keyferry_contract::audit::{Beginning, Chain, Event, EventKind, Level};
use keyferry_contract::chain::Head;

use super::file::LogFile;
use super::queue::Health;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// Standard error, the default.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to; made with mode 0600.
    File(PathBuf),
}

impl From<&document::Audit> for AuditTarget {
    fn from(audit: &document::Audit) -> Self {
        match (audit.sink, &audit.path) {
            (AuditSink::Stderr, _) | (AuditSink::File, None) => Self::Stderr,
            (AuditSink::Stdout, _) => Self::Stdout,
            (AuditSink::File, Some(path)) => Self::File(path.clone()),
        }
    }
}

/// The sink cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened or read.
    #[error("audit file {} cannot be opened: {source}\n  hint: check `audit.path` and the permissions of its folder", path.display())]
    Open {
        /// `audit.path`.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two writers would tear its chain.
    #[error("audit file {} is written by another process\n  hint: give each proxy a file of its own", .0.display())]
    Taken(PathBuf),
    /// The thread that writes cannot be started.
    #[error("the audit writer cannot be started: {0}")]
    Thread(io::Error),
}

impl AuditError {
    pub(super) fn open(path: &Path, source: io::Error) -> Self {
        Self::Open { path: path.to_owned(), source }
    }
}

/// An open sink.
pub(super) enum Sink {
    /// Standard error: records are not chained.
    Loose(Box<dyn Write + Send>),
    /// Standard output, a pipe or a device: one chain for each process.
    Stream(Box<dyn Write + Send>, Head),
    /// A file: one chain, whatever rotates and restarts.
    File(Box<LogFile>),
}

impl Sink {
    pub(super) fn open(target: &AuditTarget) -> Result<Self, AuditError> {
        match target {
            AuditTarget::Stderr => Ok(Self::Loose(Box::new(io::stderr()))),
            AuditTarget::Stdout => Ok(Self::Stream(Box::new(io::stdout()), Head::default())),
            AuditTarget::File(path) => LogFile::open(path),
        }
    }

    /// Before a batch: a file that is full, or was moved away, gives way to a new one, and a chain that begins here says so.
    pub(super) fn prepare(&mut self, lines: &mut Vec<u8>, rotate: Option<Rotate>, health: &Health) {
        match self {
            Self::Loose(_) => {}
            Self::Stream(_, head) => {
                if *head == Head::default() {
                    let chain = Chain { event: Beginning::Start, prev: head.hash, torn: None };
                    push_event(lines, Level::Info, EventKind::Chain { chain }, Some(head));
                }
            }
            Self::File(file) => file.prepare(lines, rotate, health),
        }
    }

    /// Ends the record that begins at `start`.
    pub(super) fn end_record(&mut self, lines: &mut Vec<u8>, start: usize) {
        if let Some(head) = self.head() {
            head.seal(lines, start);
        }
        lines.push(b'\n');
    }

    pub(super) fn head(&mut self) -> Option<&mut Head> {
        match self {
            Self::Loose(_) => None,
            Self::Stream(_, head) => Some(head),
            Self::File(file) => Some(&mut file.head),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self {
            Self::Loose(to) | Self::Stream(to, _) => to.write(lines),
            Self::File(file) => file.write(lines),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Loose(to) | Self::Stream(to, _) => to.flush(),
            Self::File(_) => Ok(()),
        }
    }
}

/// Appends a line about the log itself.
pub(super) fn push_event(lines: &mut Vec<u8>, level: Level, kind: EventKind, head: Option<&mut Head>) {
    let start = lines.len();
    let event = Event { time: jiff::Timestamp::now(), level, kind };
    // An event is plain data; `serde_json` cannot fail on it.
    if serde_json::to_writer(&mut *lines, &event).is_ok() {
        if let Some(head) = head {
            head.seal(lines, start);
        }
        lines.push(b'\n');
    }
}
