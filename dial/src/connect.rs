//! From a host and a port to a connection.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use ipnet::IpNet;
use keyferry_config::policy::Host;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::error::DialError;
use crate::guard::{AddressClass, AddressDenied, Guard};
use crate::own_listeners::OwnListeners;
use crate::resolver::Resolver;

/// How long connecting may take, over all addresses: 30 seconds. Resolving has its own limit before it.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an attempt is alone before the next address is tried beside it: 250 milliseconds (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How many addresses of one answer are tried. An answer is the zone owner's to write: one request must not become a scan.
const MAX_ATTEMPTS: usize = 8;

/// Dead peers are noticed after 60 s idle and four probes, 15 s apart.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Connects to what a guard lets through. Clones are cheap and share the resolver and the list of our own listeners.
#[derive(Clone, Debug)]
pub struct Dialer {
    guard: Guard,
    resolver: Resolver,
    own_listeners: OwnListeners,
    connect_timeout: Duration,
}

/// A connection, and the address that it goes to.
#[derive(Debug)]
pub struct Connected {
    /// TCP, with `TCP_NODELAY` and keep-alive set.
    pub stream: TcpStream,
    /// Exactly the address that was checked, in canonical form. A pool keeps it beside the connection and asks
    /// [`Dialer::check`] again when the policy has changed (T14).
    pub address: SocketAddr,
    /// How long the name took; none where the host is an address.
    pub resolving: Option<Duration>,
    /// How long the connection took, over all attempts.
    pub connecting: Duration,
}

impl Dialer {
    /// A dialer with [`DEFAULT_CONNECT_TIMEOUT`].
    pub fn new(guard: Guard, resolver: Resolver, own_listeners: OwnListeners) -> Self {
        Self { guard, resolver, own_listeners, connect_timeout: DEFAULT_CONNECT_TIMEOUT }
    }

    /// With another limit on connecting, over all addresses.
    #[must_use]
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Connects to `host`, whose addresses the guard or `exempt` (the ranges of the rule that allowed this) must let through.
    ///
    /// Every address of the answer is checked. Where some may be dialled and others not, only those that may are tried; where
    /// none may, the error names the first. Attempts overlap, IPv6 and IPv4 in turn (RFC 8305), never outside the checked set.
    pub async fn connect(&self, host: &Host, port: u16, exempt: &[IpNet]) -> Result<Connected, DialError> {
        self.connect_watched(host, port, exempt, || {}).await
    }

    /// [`Self::connect`], which calls `resolved` when the addresses are known and allowed, and connecting begins.
    pub async fn connect_watched(
        &self,
        host: &Host,
        port: u16,
        exempt: &[IpNet],
        resolved: impl FnOnce(),
    ) -> Result<Connected, DialError> {
        let began = Instant::now();
        let addresses = match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => {
                let dns = |kind| DialError::Dns { name: name.clone(), kind };
                self.resolver.resolve(name).await.map_err(dns)?
            }
        };
        let mut checked = Vec::with_capacity(addresses.len());
        let mut denied = None;
        for ip in addresses {
            // Only the canonical form is dialled, so that what was checked and what is dialled are one thing.
            let address = SocketAddr::new(ip.to_canonical(), port);
            match self.check(address, exempt) {
                Ok(()) => checked.push(address),
                Err(refusal) => denied = denied.or(Some(refusal)),
            }
        }
        if checked.is_empty()
            && let Some(AddressDenied { address, class }) = denied
        {
            return Err(DialError::AddressDenied { host: host.clone(), address, class });
        }
        resolved();
        let connecting = Instant::now();
        let (stream, address) = timeout(self.connect_timeout, race(in_turn(checked)))
            .await
            .map_err(|_| DialError::Timeout { host: host.clone(), port, limit: self.connect_timeout })?
            .map_err(|(address, source)| DialError::Connect { host: host.clone(), address, source })?;
        let resolving = matches!(host, Host::Name(_)).then(|| connecting.duration_since(began));
        Ok(Connected { stream, address, resolving, connecting: connecting.elapsed() })
    }

    /// Whether `address` may be dialled: by the guard or `exempt`, and not one of our own listeners.
    pub fn check(&self, address: SocketAddr, exempt: &[IpNet]) -> Result<(), AddressDenied> {
        if self.own_listeners.contains(address) {
            return Err(AddressDenied {
                address: address.ip().to_canonical(),
                class: AddressClass::OwnListener,
            });
        }
        self.guard.check_with(address.ip(), exempt)
    }
}

/// One address of each family in turn, beginning with the family of the first (RFC 8305 section 4).
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    while ordered.len() < MAX_ATTEMPTS {
        let before = ordered.len();
        ordered.extend(first.next());
        ordered.extend(second.next());
        if ordered.len() == before {
            break;
        }
    }
    ordered
}

/// The first connection to stand wins; the others are dropped. If all fail, the first failure is returned.
///
/// Our own, as the crates for this resolve the name themselves, after our check.
async fn race(addresses: Vec<SocketAddr>) -> Result<(TcpStream, SocketAddr), (SocketAddr, io::Error)> {
    let mut failure: Option<(SocketAddr, io::Error)> = None;
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    loop {
        match waiting.next() {
            Some(address) => attempts.push(async move { (address, attempt(address).await) }),
            None if attempts.is_empty() => break,
            None => {}
        }
        // The next address gets its turn after the delay, or at once when there is nothing left to wait for.
        let more = waiting.len() > 0;
        tokio::select! {
            Some((address, result)) = attempts.next() => match result {
                Ok(stream) => return Ok((stream, address)),
                // No route to that family says less than what any other address has to say.
                Err(error) => match &failure {
                    Some((_, earlier)) if earlier.kind() != io::ErrorKind::NetworkUnreachable => {}
                    _ => failure = Some((address, error)),
                },
            },
            () = sleep(ATTEMPT_DELAY), if more => {}
        }
    }
    Err(failure.expect("a checked set has an address, and without a connection each attempt has failed"))
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443)).collect();
        in_turn(addresses).iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn families_take_turns() {
        let given = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"];
        assert_eq!(ordered(&given), ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]);
        assert_eq!(ordered(&["192.0.2.1", "2001:db8::1"]), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(ordered(&["192.0.2.1"]), ["192.0.2.1"]);
    }

    #[test]
    fn one_answer_is_no_scan() {
        let many: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(ordered(&many), many[..8]);
    }
}
