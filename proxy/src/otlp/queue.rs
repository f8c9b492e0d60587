//! What waits for the collector. Requests never wait for it: where the queue is full, a record more is dropped and counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::transport::{Failure, Transport};
use crate::audit::Entry;
use crate::metrics::OtlpSignal;
use crate::trace::Trace;

/// How many wait: some megabytes while a collector is down.
const CAPACITY: usize = 8192;
/// How many go in one request, and how long the first of them waits for others: what the specification of OpenTelemetry has by default for logs.
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(1);
/// How long a batch is tried, and how long after the first attempt the second comes; later ones come at twice the time before.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A request that has ended, and its trace if that is told.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) entry: Entry,
    pub(crate) trace: Option<Box<Trace>>,
}

/// Something that OTLP has a request for.
pub(super) trait Signal: Send + Sync + Sized + 'static {
    const NAME: &'static str;

    /// The request that carries them.
    fn request(resource: &Arc<Resource>, batch: &[Self]) -> Vec<u8>;

    /// How many of them the collector did not want, and why.
    fn rejected(response: &[u8]) -> Option<(u64, String)>;
}

/// The queue in front of one endpoint, and the task that empties it.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: mpsc::Sender<T>,
    counters: OtlpSignal,
    end: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Signal> Queue<T> {
    pub(super) fn start(transport: Transport, (resource, counters): (Arc<Resource>, OtlpSignal)) -> Self {
        let (items, queue) = mpsc::channel(CAPACITY);
        let end = CancellationToken::new();
        let exporter =
            Exporter { transport, resource, counters: counters.clone(), end: end.clone(), trouble: None };
        let task = Mutex::new(Some(tokio::spawn(exporter.run(queue))));
        Self { items, counters, end, task }
    }

    /// Takes it if there is room.
    pub(super) fn offer(&self, item: T) {
        if self.items.try_send(item).is_err() {
            self.counters.dropped.inc();
        }
    }

    /// Sends what waits, at most for `limit`.
    pub(super) async fn finish(&self, limit: Duration) {
        self.end.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(limit, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

struct Exporter {
    transport: Transport,
    resource: Arc<Resource>,
    counters: OtlpSignal,
    end: CancellationToken,
    /// How many were dropped before the collector failed, while it does.
    trouble: Option<u64>,
}

impl Exporter {
    async fn run<T: Signal>(mut self, mut queue: mpsc::Receiver<T>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let end = self.end.clone();
            let ended = tokio::select! {
                received = queue.recv_many(&mut batch, BATCH) => received == 0,
                () = end.cancelled() => true,
            };
            if ended {
                break;
            }
            let _ = end.run_until_cancelled(fill(&mut queue, &mut batch)).await;
            self.send(&batch).await;
            batch.clear();
        }
        loop {
            while batch.len() < BATCH
                && let Ok(item) = queue.try_recv()
            {
                batch.push(item);
            }
            if batch.is_empty() {
                return;
            }
            self.send(&batch).await;
            batch.clear();
        }
    }

    /// Tries until the collector has it, does not want it, or has had long enough.
    async fn send<T: Signal>(&mut self, batch: &[T]) {
        let body = T::request(&self.resource, batch);
        let count = batch.len() as u64;
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_RETRY;
        loop {
            let failure = match self.transport.post(&body).await {
                Ok(response) => return self.taken::<T>(count, &response),
                Err(failure) => failure,
            };
            self.say::<T>(&failure);
            let wait = match failure {
                Failure::Final(_) => None,
                Failure::Passing(_, after) => Some(after.unwrap_or(pause)),
            };
            pause *= 2;
            // At the end of the process there is one attempt.
            let wait = wait.filter(|wait| !self.end.is_cancelled() && Instant::now() + *wait < deadline);
            let Some(wait) = wait else {
                self.counters.dropped.inc_by(count);
                return;
            };
            let end = self.end.clone();
            let _ = end.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    fn taken<T: Signal>(&mut self, count: u64, response: &[u8]) {
        let rejected = T::rejected(response);
        let unwanted = rejected.as_ref().map_or(0, |(unwanted, _)| *unwanted).min(count);
        self.counters.sent.inc_by(count - unwanted);
        self.counters.dropped.inc_by(unwanted);
        if let Some((1.., why)) = &rejected {
            tracing::warn!(
                signal = T::NAME,
                unwanted,
                why,
                "the OpenTelemetry collector did not want all records"
            );
        }
        if let Some(before) = self.trouble.take() {
            let dropped = self.counters.dropped.get() - before;
            tracing::info!(signal = T::NAME, dropped, "the OpenTelemetry collector takes records again");
        }
    }

    /// Once, until the collector takes something again.
    fn say<T: Signal>(&mut self, failure: &Failure) {
        if self.trouble.is_some() {
            return;
        }
        self.trouble = Some(self.counters.dropped.get());
        let collector = self.transport.shown();
        tracing::warn!(
            signal = T::NAME,
            collector,
            error = failure.words(),
            "the OpenTelemetry collector takes no records; requests go on, and what finds its queue full is dropped and counted"
        );
    }
}

/// Waits a while for more.
async fn fill<T>(queue: &mut mpsc::Receiver<T>, batch: &mut Vec<T>) {
    let more = async {
        while batch.len() < BATCH {
            if queue.recv_many(batch, BATCH - batch.len()).await == 0 {
                return;
            }
        }
    };
    // What has come by then goes.
    let _ = tokio::time::timeout(DELAY, more).await;
}
