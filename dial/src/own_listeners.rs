//! What we listen on ourselves, so that nobody reaches us through us (T19, T20).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use arc_swap::ArcSwap;

/// The addresses that this process listens on. Clones share one list, so a listener that opens later is known to every
/// dialer at once.
#[derive(Clone, Debug, Default)]
pub struct OwnListeners(Arc<ArcSwap<Vec<SocketAddr>>>);

impl OwnListeners {
    /// The listeners as bound: with the real port where port 0 was asked for.
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(addresses)))
    }

    /// Puts another list in place of this one, for all clones.
    pub fn replace(&self, addresses: Vec<SocketAddr>) {
        self.0.store(Arc::new(addresses));
    }

    /// Whether connecting to `address` would reach one of the listeners.
    pub fn contains(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.0.load().iter().filter(|listener| listener.port() == address.port()).any(|listener| {
            let bound = listener.ip().to_canonical();
            // Linux connects 0.0.0.0 and `::` to this machine.
            bound == ip || ip.is_unspecified() || bound.is_unspecified() && is_of_this_machine(ip)
        })
    }
}

/// The routing table knows: the source address that the kernel picks towards an address of its own is that address. A
/// connected UDP socket shows it and sends no packet.
fn is_of_this_machine(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    let any = match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    match UdpSocket::bind((any, 0)) {
        // Without a route there is nothing to reach, ourselves included.
        Ok(socket) => {
            socket.connect((ip, 9)).and_then(|()| socket.local_addr()).is_ok_and(|local| local.ip() == ip)
        }
        // Out of descriptors, or of IPv6: nobody can tell, so the answer is the safe one.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(listeners: &[&str]) -> OwnListeners {
        OwnListeners::new(listeners.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn contains(listeners: &OwnListeners, addresses: &[&str]) -> Vec<bool> {
        addresses.iter().map(|text| listeners.contains(text.parse().unwrap())).collect()
    }

    #[test]
    fn t19_a_listener_on_one_address_is_known_in_every_spelling_of_it() {
        let listeners = own(&["127.0.0.1:3128", "[::1]:3128"]);
        let spellings =
            ["127.0.0.1:3128", "[::ffff:127.0.0.1]:3128", "[::1]:3128", "0.0.0.0:3128", "[::]:3128"];
        assert_eq!(contains(&listeners, &spellings), [true; 5]);
        assert_eq!(contains(&listeners, &["127.0.0.1:3129", "127.0.0.2:3128", "192.0.2.1:3128"]), [false; 3]);
    }

    #[test]
    fn t19_a_listener_on_all_addresses_is_known_by_each_address_of_this_machine() {
        for bound in ["0.0.0.0:3128", "[::]:3128"] {
            let listeners = own(&[bound]);
            let addresses =
                ["127.0.0.1:3128", "127.9.9.9:3128", "[::1]:3128", "0.0.0.0:3128", "[::ffff:127.0.0.1]:3128"];
            assert_eq!(contains(&listeners, &addresses), [true; 5], "{bound}");
            assert_eq!(contains(&listeners, &["127.0.0.1:443", "192.0.2.1:3128"]), [false; 2], "{bound}");
        }
    }

    #[test]
    fn t19_the_addresses_of_every_interface_are_of_this_machine() {
        // The kernel's own list: lines of `|-- ADDRESS` followed by `/32 host LOCAL`.
        let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        let lines: Vec<&str> = table.lines().map(str::trim).collect();
        let interfaces = lines.windows(2).filter(|pair| pair[1] == "/32 host LOCAL");
        let interfaces = interfaces.filter_map(|pair| pair[0].strip_prefix("|-- ")?.parse::<IpAddr>().ok());
        let strangers = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([8, 8, 8, 8])];
        // A machine that hides its table still has the route to a stranger, and the address that it would use.
        let towards =
            UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()));
        for ip in interfaces.chain(towards.map(|address| address.ip())) {
            assert!(is_of_this_machine(ip), "{ip}");
        }
        assert_eq!(strangers.map(is_of_this_machine), [false, false]);
    }

    #[test]
    fn a_new_list_counts_for_every_clone() {
        let listeners = own(&["127.0.0.1:3128"]);
        let clone = listeners.clone();
        listeners.replace(vec!["127.0.0.1:4000".parse().unwrap()]);
        assert_eq!(contains(&clone, &["127.0.0.1:3128", "127.0.0.1:4000"]), [false, true]);
    }
}
