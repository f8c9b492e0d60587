//! Wrong credentials again and again: the answers come later and later (T68). Those who show the right ones wait for nothing, also
//! behind the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many are answered at once: a client that was started with an old token is no attacker.
const FREE: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// After so long without a failure an address is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Failures {
    /// One more from there; how long its answer waits.
    pub(super) fn another(&self, client: IpAddr) -> Duration {
        self.another_at(client, Instant::now())
    }

    fn another_at(&self, client: IpAddr, now: Instant) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&client) {
            known.retain(|_, (_, last)| now.duration_since(*last) < FORGOTTEN);
            // All of them are at it: they are remembered from the beginning again.
            if known.len() >= MOST {
                known.clear();
            }
        }
        let (count, last) = known.entry(client).or_insert((0, now));
        if now.duration_since(*last) >= FORGOTTEN {
            *count = 0;
        }
        (*count, *last) = (count.saturating_add(1), now);
        match count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(beyond) => FIRST_WAIT.saturating_mul(1 << beyond.min(10)).min(LONGEST_WAIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t68_failures_wait_longer_and_longer_and_are_forgotten() {
        let failures = Failures::default();
        let start = Instant::now();
        let here = IpAddr::from([10, 0, 0, 1]);
        let waits: Vec<u128> = (0..15).map(|_| failures.another_at(here, start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000]);
        assert_eq!(failures.another_at([10, 0, 0, 2].into(), start), Duration::ZERO);
        assert_eq!(failures.another_at(here, start + FORGOTTEN), Duration::ZERO);
        for n in 0..2 * MOST as u32 {
            failures.another_at(IpAddr::from(n.to_be_bytes()), start);
        }
        assert!(failures.0.lock().unwrap().len() <= MOST);
    }
}
