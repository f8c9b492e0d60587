//! Free TCP ports for programs that must be told theirs, and the one of HTTPS for those that cannot be.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpListener as AsyncListener;

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

/// A listener at the port of HTTPS, on an address of loopback where nobody listens yet.
///
/// # Panics
/// When this user may not.
pub async fn listen_at_443() -> AsyncListener {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Within 127.64.0.0/10, far from what other programs use.
    let start = std::process::id().wrapping_mul(7);
    for _ in 0..500 {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (1 << 22);
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 1).to_bits() + offset);
        match AsyncListener::bind((address, 443)).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!(
                "{address}:443: {error}\nhint: run as root, or let everybody: sysctl net.ipv4.ip_unprivileged_port_start=443"
            ),
        }
    }
    panic!("443 is taken on 500 addresses of loopback")
}
