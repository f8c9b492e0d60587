//! Tokens that were not good, by where they came from: the answer to each next one takes longer (T68). A good token never waits,
//! whoever shares its address with a bad one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many mistakes cost nothing.
const FREE: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// After so long without another one, they are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
const MOST_ADDRESSES: usize = 10_000;

#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<IpAddr, Failures>>);

struct Failures {
    count: u32,
    last: Instant,
}

impl Attempts {
    /// Notes one more; how long its answer waits.
    pub(crate) fn failed(&self, from: IpAddr, now: Instant) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_ADDRESSES {
            known.retain(|_, failures| now - failures.last < FORGOTTEN_AFTER);
            if known.len() >= MOST_ADDRESSES {
                known.clear();
            }
        }
        let failures = known.entry(network(from)).or_insert(Failures { count: 0, last: now });
        if now - failures.last >= FORGOTTEN_AFTER {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        match failures.count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(beyond) => FIRST_WAIT.saturating_mul(1 << beyond.min(16)).min(LONGEST_WAIT),
        }
    }
}

/// One host has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t68_each_mistake_beyond_the_fifth_waits_longer_until_a_minute_passes() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let (one, other) =
            ("192.0.2.1".parse().expect("an address"), "192.0.2.2".parse().expect("an address"));
        let waits: Vec<_> = (0..12).map(|_| attempts.failed(one, now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(attempts.failed(other, now), Duration::ZERO, "another address is another caller");
        assert_eq!(attempts.failed(one, now + FORGOTTEN_AFTER), Duration::ZERO);
        // The addresses of one IPv6 network are one caller's.
        let within = |host: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        assert_eq!((0..6).map(|host| attempts.failed(within(host), now).as_millis()).max(), Some(100));
        // However many there are, they are bounded.
        for n in 0..30_000_u32 {
            attempts.failed(IpAddr::V4(n.into()), now);
        }
        assert!(attempts.0.lock().expect("nobody panicked").len() <= MOST_ADDRESSES);
    }
}
