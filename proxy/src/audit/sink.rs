//! The audit log's writer. A place in its queue is reserved before a request is judged, so that no finished request finds the queue full:
//! while the sink cannot keep up, new requests are refused (`audit_full`), counted, and visible in `/readyz`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use keyferry_config::document::{self, AuditSink};
use tokio::sync::mpsc;

use super::Entry;

/// Requests that may be open or unwritten at once.
const CAPACITY: usize = 65_536;
/// Records written with one system call.
const BATCH: usize = 256;
/// How long the writer sleeps after a batch: a request that finishes meanwhile wakes nobody, which costs more than its record.
const NAP: Duration = Duration::from_millis(2);
/// How long the writer waits before it tries a failing sink again.
const RETRY: Duration = Duration::from_millis(200);

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
#[error("audit file {} cannot be opened for appending: {source}\n  hint: check `audit.path` and the permissions of its folder", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// The queue's end that requests hold.
#[derive(Debug)]
pub(crate) struct Audit {
    queue: mpsc::Sender<Line>,
    health: Arc<Health>,
}

/// What the writer is sent.
#[derive(Debug)]
enum Line {
    Record(Box<Entry>),
    /// There will be no more.
    End,
}

#[derive(Debug, Default)]
struct Health {
    failing: AtomicBool,
    stalls: AtomicU64,
    refused: AtomicU64,
}

/// The queue, as it is at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    pub(crate) taken: usize,
    pub(crate) capacity: usize,
    /// How often the sink began to fail.
    pub(crate) stalls: u64,
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Permit(mpsc::OwnedPermit<Line>);

impl Permit {
    pub(crate) fn send(self, entry: Entry) {
        self.0.send(Line::Record(Box::new(entry)));
    }
}

/// The thread that writes; it ends when it is told to, or every [`Audit`] and every permit is gone.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    queue: mpsc::WeakSender<Line>,
}

impl Audit {
    /// Opens the sink and starts its writer.
    pub(crate) fn open(target: &AuditTarget) -> Result<(Self, Writer), AuditError> {
        let sink: Box<dyn Write + Send> = match target {
            AuditTarget::Stderr => Box::new(io::stderr()),
            AuditTarget::Stdout => Box::new(io::stdout()),
            AuditTarget::File(path) => Box::new(append_to(path)?),
        };
        let (queue, lines) = mpsc::channel(CAPACITY);
        let health = Arc::new(Health::default());
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn({
            let health = Arc::clone(&health);
            move || write_all(lines, sink, &health)
        });
        let thread =
            thread.map_err(|source| AuditError { path: PathBuf::from("(writer thread)"), source })?;
        let writer = Writer { thread, queue: queue.downgrade() };
        Ok((Self { queue, health }, writer))
    }

    /// A place in the queue, or none while the sink cannot keep up.
    pub(crate) fn reserve(&self) -> Option<Permit> {
        let permit = self.queue.clone().try_reserve_owned().ok().map(Permit);
        if permit.is_none() {
            self.health.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// How full the queue is.
    pub(crate) fn queue(&self) -> Queue {
        let capacity = self.queue.max_capacity();
        let stalls = self.health.stalls.load(Ordering::Relaxed);
        Queue { taken: capacity - self.queue.capacity(), capacity, stalls }
    }

    /// Why the sink is not well, if it is not.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        if self.health.failing.load(Ordering::Relaxed) {
            Some("the audit sink cannot be written")
        } else if self.queue.capacity() == 0 {
            Some("the audit queue is full")
        } else {
            None
        }
    }
}

impl Writer {
    /// Waits until everything is written, at most `limit`.
    pub(crate) fn finish(self, limit: Duration) {
        let deadline = std::time::Instant::now() + limit;
        let mut told = false;
        while !self.thread.is_finished() && std::time::Instant::now() < deadline {
            if !told {
                // A full queue is tried again: the writer makes room.
                told = self.queue.upgrade().is_none_or(|queue| queue.try_send(Line::End).is_ok());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn append_to(path: &Path) -> Result<File, AuditError> {
    let open = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    open.map_err(|source| AuditError { path: path.to_owned(), source })
}

fn write_all(mut queue: mpsc::Receiver<Line>, mut sink: Box<dyn Write + Send>, health: &Health) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut lines = Vec::with_capacity(64 * 1024);
    let mut ended = false;
    while !ended && queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        lines.clear();
        for line in batch.drain(..) {
            let Line::Record(entry) = line else {
                ended = true;
                continue;
            };
            // A record is plain data; `serde_json` cannot fail on it.
            if serde_json::to_writer(&mut lines, &entry.record()).is_ok() {
                lines.push(b'\n');
            }
        }
        write_or_wait(&mut *sink, &lines, health);
        if !ended {
            std::thread::sleep(NAP);
        }
    }
}

/// Nothing is dropped: the writer tries until the sink takes it, and the queue in front of it fills.
fn write_or_wait(sink: &mut dyn Write, mut lines: &[u8], health: &Health) {
    while !lines.is_empty() {
        let written = match sink.write(lines) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        };
        match written {
            Ok(written) => {
                lines = &lines[written..];
                if health.failing.swap(false, Ordering::Relaxed) {
                    let refused = health.refused.swap(0, Ordering::Relaxed);
                    tracing::warn!(
                        refused,
                        "the audit sink works again; requests refused meanwhile are counted here"
                    );
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                if !health.failing.swap(true, Ordering::Relaxed) {
                    health.stalls.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "the audit sink cannot be written; new requests are refused once its queue is full");
                }
            }
        }
        std::thread::sleep(RETRY);
    }
    if let Err(error) = sink.flush() {
        tracing::error!(%error, "the audit sink cannot be flushed");
    }
}
