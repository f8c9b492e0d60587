//! Figures of a machine that does something else as well are figures of that: a run waits for quiet, within limits.

use std::time::{Duration, Instant};

use super::Options;
use crate::load::Outcome;
use crate::process;

/// How much of one processor others may use.
pub(super) const NOISE: f64 = 0.15;
/// How long it listens whether they do.
const LISTEN: Duration = Duration::from_millis(100);
/// How long it waits before it listens again.
const PAUSE: Duration = Duration::from_millis(400);

/// The time that may still be spent on quiet.
#[derive(Debug)]
pub(super) struct Patience {
    left: Duration,
}

impl Patience {
    pub(super) fn new(options: &Options) -> Self {
        Self { left: Duration::from_secs(options.patience) }
    }

    /// Waits until the machine is quiet, or patience is at its end. None of our processes has anything to do at that time.
    pub(super) async fn wait(&mut self) {
        let began = Instant::now();
        while began.elapsed() < self.left {
            let (Ok(before), at) = (process::machine(), Instant::now()) else { return };
            tokio::time::sleep(LISTEN).await;
            let Ok(after) = process::machine() else { return };
            if (after - before).as_secs_f64() <= NOISE * at.elapsed().as_secs_f64() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.left = self.left.saturating_sub(began.elapsed());
    }

    /// Whether a run that took so long is to be repeated.
    pub(super) fn repeat(&mut self, outcome: &Outcome, took: Duration) -> bool {
        if is_quiet(outcome) || took > self.left {
            return false;
        }
        self.left -= took;
        true
    }
}

/// Nobody else did much meanwhile.
pub(super) fn is_quiet(outcome: &Outcome) -> bool {
    outcome.foreign <= NOISE * outcome.seconds
}
