//! Free TCP ports for programs that must be told theirs.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback port that nobody listens on at this moment.
///
/// Taken from below the range that the kernel hands to outgoing connections, so that no client
/// of a test running beside us can take it before the program under test binds it.
///
/// # Panics
/// When none of some hundred candidates is free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes start far from each other: nextest runs each test in one of its own.
    let start = std::process::id().wrapping_mul(7_919);
    (0..500)
        .map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000)
        .map(|offset| 10_000 + u16::try_from(offset).expect("below 20,000"))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port between 10,000 and 30,000")
}
