//! The thread that writes.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keyferry_contract::audit::{Dropped, EventKind, Level, Renderer};
use tokio::sync::mpsc;

use super::queue::{Audit, Health, Line};
use super::sink::{AuditError, AuditTarget, Sink, push_event};

/// Requests that may be open or unwritten at once.
const CAPACITY: usize = 65_536;
/// Records written with one system call.
const BATCH: usize = 256;
/// How long the writer sleeps after a batch: a request that finishes meanwhile wakes nobody, which costs more than its record.
const NAP: Duration = Duration::from_millis(2);
/// How long the writer waits before it tries a failing sink again.
const RETRY: Duration = Duration::from_millis(200);

/// The thread that writes; it ends when it is told to, or every [`Audit`] and every permit is gone.
#[derive(Debug)]
pub(crate) struct Writer {
    target: AuditTarget,
    thread: JoinHandle<()>,
    queue: mpsc::WeakSender<Line>,
    health: Arc<Health>,
}

impl Writer {
    /// Opens the sink and starts its writer.
    pub(crate) fn start(target: &AuditTarget) -> Result<(Audit, Self), AuditError> {
        Self::start_on(target.clone(), Sink::open(target)?, CAPACITY)
    }

    pub(super) fn start_on(
        target: AuditTarget,
        sink: Sink,
        capacity: usize,
    ) -> Result<(Audit, Self), AuditError> {
        let (queue, lines) = mpsc::channel(capacity);
        let health = Arc::new(Health::default());
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn({
            let health = Arc::clone(&health);
            move || write_all(lines, sink, &health)
        });
        let thread = thread.map_err(AuditError::Thread)?;
        let writer = Self { target, thread, queue: queue.downgrade(), health: Arc::clone(&health) };
        Ok((Audit { queue, health }, writer))
    }

    /// The way to a log that is still written, for a document that names it again: two writers would tear its chain.
    pub(crate) fn again(&self, target: &AuditTarget) -> Option<Audit> {
        let queue = self.queue.upgrade().filter(|_| self.target == *target)?;
        Some(Audit { queue, health: Arc::clone(&self.health) })
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until everything is written, at most `limit`.
    pub(crate) fn finish(self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut told = false;
        while !self.thread.is_finished() && Instant::now() < deadline {
            if !told {
                // A full queue is tried again: the writer makes room.
                told = self.queue.upgrade().is_none_or(|queue| queue.try_send(Line::End).is_ok());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn write_all(mut queue: mpsc::Receiver<Line>, mut sink: Sink, health: &Health) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut lines = Vec::with_capacity(BATCH * 1024);
    let mut renderer = Renderer::default();
    let mut ended = false;
    while !ended && queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        lines.clear();
        sink.prepare(&mut lines, health.rotate(), health);
        for line in batch.drain(..) {
            match line {
                Line::Record(entry) => {
                    let start = lines.len();
                    renderer.render(&entry.record(), &mut lines);
                    sink.end_record(&mut lines, start);
                }
                Line::Wake => {}
                Line::End => ended = true,
            }
        }
        let dropped = health.dropped.load(Ordering::Acquire);
        let count = dropped - health.reported.load(Ordering::Relaxed);
        if count > 0 {
            let dropped = Dropped { count };
            push_event(&mut lines, Level::Warn, EventKind::Dropped { dropped }, sink.head());
        }
        write_or_wait(&mut sink, &lines, health);
        health.reported.store(dropped, Ordering::Relaxed);
        if !ended {
            std::thread::sleep(NAP);
        }
    }
}

/// Nothing that found a place is dropped: the writer tries until the sink takes it, and the queue in front of it fills.
fn write_or_wait(sink: &mut Sink, mut lines: &[u8], health: &Health) {
    while !lines.is_empty() {
        let written = match sink.write(lines) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        };
        match written {
            Ok(written) => {
                lines = &lines[written..];
                if health.failing.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        refused = health.refused.load(Ordering::Relaxed),
                        dropped = health.dropped.load(Ordering::Relaxed),
                        "the audit sink works again; the numbers count since the start"
                    );
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                if !health.failing.swap(true, Ordering::Relaxed) {
                    health.stalls.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "the audit sink cannot be written; audit.on_full says what becomes of requests once its queue is full");
                }
            }
        }
        std::thread::sleep(RETRY);
    }
    if let Err(error) = sink.flush() {
        tracing::error!(%error, "the audit sink cannot be flushed");
    }
}
