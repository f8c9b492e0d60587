//! A clock for things that rarely stand still: one timer, armed only while something waits, and not touched when bytes move.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How exact it is.
const EVERY: Duration = Duration::from_secs(60);

/// Counts how long nothing has moved.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    sleep: Option<Pin<Box<Sleep>>>,
    moved: bool,
    /// Ticks in a row without a move.
    quiet: u32,
}

impl Ticks {
    /// Something moved.
    pub(crate) fn moved(&mut self) {
        self.moved = true;
    }

    /// Ready at each tick while waiting; says for how long nothing has moved, at most one tick too little.
    pub(crate) fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(EVERY)));
        ready!(sleep.as_mut().poll(cx));
        sleep.as_mut().reset(Instant::now() + EVERY);
        self.quiet = if std::mem::take(&mut self.moved) { 0 } else { self.quiet + 1 };
        Poll::Ready(EVERY * self.quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn quiet_time_is_counted_in_ticks_and_a_move_starts_it_anew() {
        let mut ticks = Ticks::default();
        assert_eq!(poll_fn(|cx| ticks.poll_tick(cx)).await, EVERY);
        assert_eq!(poll_fn(|cx| ticks.poll_tick(cx)).await, 2 * EVERY);
        ticks.moved();
        assert_eq!(poll_fn(|cx| ticks.poll_tick(cx)).await, Duration::ZERO);
        assert_eq!(poll_fn(|cx| ticks.poll_tick(cx)).await, EVERY);
    }
}
