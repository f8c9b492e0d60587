//! What came of a run.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Options;
use crate::process::{self, Usage};

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests answered while it counted.
    pub requests: u64,
    /// For how long it counted.
    pub seconds: f64,
    /// Bytes of bodies, both directions.
    pub bytes: u64,
    /// Microseconds within which half of the requests were answered.
    pub p50: u64,
    /// The same for 99 of 100.
    pub p99: u64,
    /// The slowest.
    pub slowest: u64,
    /// Processor seconds of the load itself.
    pub load_processor: f64,
    /// Processor seconds of processes that have no part in it: how noisy it was.
    pub foreign: f64,
    /// What the watched process used.
    pub watched: Option<Watched>,
}

/// What a proxy used in that time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Processor seconds.
    pub processor: f64,
    /// KiB in RAM before it counted.
    pub resident_before: u64,
    /// KiB in RAM afterwards.
    pub resident_after: u64,
    /// The most of it meanwhile.
    pub peak: u64,
}

/// The kernel's books at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Books {
    at: Instant,
    machine: Duration,
    own: Duration,
    watched: Option<Usage>,
    beside: Option<Usage>,
}

impl Books {
    pub(super) fn read(options: &Options) -> io::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            machine: process::machine()?,
            own: process::usage(std::process::id())?.processor,
            watched: options.watch.map(process::usage).transpose()?,
            beside: options.beside.map(process::usage).transpose()?,
        })
    }

    /// What all that take part have used.
    fn ours(&self) -> Duration {
        let parts = [self.watched, self.beside].into_iter().flatten();
        parts.map(|usage| usage.processor).sum::<Duration>() + self.own
    }
}

impl Outcome {
    pub(super) fn new(latencies: &Histogram<u64>, bytes: u64, before: &Books, after: &Books) -> Self {
        let foreign = (after.machine - before.machine).saturating_sub(after.ours() - before.ours());
        Self {
            requests: latencies.len(),
            seconds: (after.at - before.at).as_secs_f64(),
            bytes,
            p50: latencies.value_at_quantile(0.5),
            p99: latencies.value_at_quantile(0.99),
            slowest: latencies.max(),
            load_processor: (after.own - before.own).as_secs_f64(),
            foreign: foreign.as_secs_f64(),
            watched: before.watched.zip(after.watched).map(|(before, after)| Watched {
                processor: (after.processor - before.processor).as_secs_f64(),
                resident_before: before.resident,
                resident_after: after.resident,
                peak: after.peak,
            }),
        }
    }

    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// MiB of bodies in a second.
    pub fn throughput(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.seconds
    }

    /// Microseconds of the watched processor for each request.
    pub fn processor_per_request(&self) -> Option<f64> {
        Some(self.watched?.processor * 1e6 / self.requests as f64)
    }

    /// Seconds of the watched processor for each GiB of bodies.
    pub fn processor_per_gib(&self) -> Option<f64> {
        Some(self.watched?.processor * f64::from(1 << 30) / self.bytes as f64)
    }
}
