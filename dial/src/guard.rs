//! Which addresses may be dialled (T12).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which addresses may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Tenant { allow: Vec<IpNet>, deny: Vec<IpNet>, classes: bool },
    Operator,
}

impl Guard {
    /// The guard for what a sandbox asks for, and for every URL that came in through an API.
    ///
    /// Addresses of every [`AddressClass`] are refused, except those that `allow` names. `deny` adds ranges that are refused
    /// even if `allow` names them; an explicitly empty `deny` switches the classes off.
    ///
    /// An entry *names* an address if it contains it and is no wider than the range that puts the address into its class:
    /// `10.0.0.0/8` opens 10.0.0.1, `169.254.0.0/16` opens link-local addresses but not the metadata service among them, and
    /// `0.0.0.0/0` opens nothing. So a rule that lets any address literal through does not open the cloud's credentials.
    pub fn tenant(allow: Vec<IpNet>, deny: Option<Vec<IpNet>>) -> Self {
        let classes = deny.as_ref().is_none_or(|deny| !deny.is_empty());
        let canonical = |nets: Vec<IpNet>| nets.into_iter().map(canonical_net).collect();
        Self(Kind::Tenant { allow: canonical(allow), deny: canonical(deny.unwrap_or_default()), classes })
    }

    /// The guard for addresses out of the operator's own file or environment: every address may be dialled.
    pub fn operator() -> Self {
        Self(Kind::Operator)
    }

    /// Whether `address` may be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressDenied> {
        self.check_with(address, &[])
    }

    /// Whether `address` may be dialled, where `exempt` counts like the guard's own allow list: the `cidr` of the rule that
    /// let the request through.
    pub fn check_with(&self, address: IpAddr, exempt: &[IpNet]) -> Result<(), AddressDenied> {
        let Kind::Tenant { allow, deny, classes } = &self.0 else { return Ok(()) };
        let address = address.to_canonical();
        let denied = |class| Err(AddressDenied { address, class });

        let inside = Embedded::all(address);
        let faces = || std::iter::once(address).chain(inside.iter().flatten().map(|e| IpAddr::V4(e.address)));
        if faces().any(|face| deny.iter().any(|net| net.contains(&face))) {
            return denied(AddressClass::Denied);
        }
        if !classes {
            return Ok(());
        }
        let named = |at_least: u8| {
            let names = |net: &IpNet| net.contains(&address) && net.prefix_len() >= at_least;
            allow.iter().any(names) || exempt.iter().map(|net| canonical_net(*net)).any(|net| names(&net))
        };
        let own = match address {
            IpAddr::V4(v4) => class_of_v4(v4),
            IpAddr::V6(v6) => class_of_v6(v6),
        };
        if let Some((class, prefix_len)) = own
            && !named(prefix_len)
        {
            return denied(class);
        }
        for embedded in inside.iter().flatten() {
            if let Some((class, prefix_len)) = class_of_v4(embedded.address)
                && !named(embedded.offset + prefix_len)
            {
                return denied(class);
            }
        }
        Ok(())
    }
}

/// An address that may not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {}\nhint: {}", class.description(), class.hint())]
pub struct AddressDenied {
    /// The address in canonical form: IPv4-mapped IPv6 is the IPv4 address.
    pub address: IpAddr,
    /// Why. Where the address only wraps an IPv4 address, the class of that one.
    pub class: AddressClass,
}

/// Why an address may not be dialled. [`AddressClass::as_str`] is stable: audit records and metrics carry it.
///
/// The ranges are those of the IANA special-purpose address registries (RFC 6890), the multicast and private ranges, and the
/// metadata services of the clouds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// One of our own listeners (T19).
    OwnListener,
    /// Named by the operator's deny list.
    Denied,
    /// 127.0.0.0/8, `::1` (RFC 1122 section 3.2.1.3, RFC 4291).
    Loopback,
    /// 0.0.0.0/8, `::` (RFC 1122 section 3.2.1.3): Linux connects to this machine.
    Unspecified,
    /// A service that hands out credentials to whoever reaches it from this machine.
    Metadata,
    /// 169.254.0.0/16, fe80::/10 (RFC 3927, RFC 4291).
    LinkLocal,
    /// 224.0.0.0/4, ff00::/8 (RFC 5771, RFC 4291).
    Multicast,
    /// 255.255.255.255 (RFC 919).
    Broadcast,
    /// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918).
    Private,
    /// fc00::/7 (RFC 4193).
    UniqueLocal,
    /// fec0::/10 (RFC 3879, deprecated).
    SiteLocal,
    /// 100.64.0.0/10 (RFC 6598).
    SharedAddressSpace,
    /// 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32, 3fff::/20 (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// 198.18.0.0/15, 2001:2::/48 (RFC 2544, RFC 5180).
    Benchmarking,
    /// 64:ff9b:1::/48 (RFC 8215): leads to an IPv4 address that cannot be told, as each network lays it out its own way.
    LocalTranslation,
    /// Everything else that no host on the Internet has.
    Reserved,
}

impl AddressClass {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnListener => "self",
            Self::Denied => "denied",
            Self::Loopback => "loopback",
            Self::Unspecified => "unspecified",
            Self::Metadata => "metadata",
            Self::LinkLocal => "link_local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Private => "private",
            Self::UniqueLocal => "unique_local",
            Self::SiteLocal => "site_local",
            Self::SharedAddressSpace => "cgnat",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::LocalTranslation => "local_translation",
            Self::Reserved => "reserved",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::OwnListener => "an address that keyferry itself listens on",
            Self::Denied => "in a range of the operator's deny list",
            Self::Loopback => "a loopback address",
            Self::Unspecified => "an unspecified address",
            Self::Metadata => "a cloud metadata service",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Private => "a private address (RFC 1918)",
            Self::UniqueLocal => "a unique local address (RFC 4193)",
            Self::SiteLocal => "a site-local address (RFC 3879)",
            Self::SharedAddressSpace => "an address of a carrier's network (RFC 6598)",
            Self::Documentation => "an address for documentation",
            Self::Benchmarking => "an address for benchmarks",
            Self::LocalTranslation => "an address of a local IPv4 translator (RFC 8215)",
            Self::Reserved => "a reserved address",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::OwnListener => "ask for the service that you want by its own address",
            Self::Denied => "to reach it, take its range out of `upstream_deny_cidrs`",
            Self::Metadata => {
                "to reach it all the same, name this very address in `upstream_allow_cidrs` or in a rule's `cidr`"
            }
            _ => {
                "to reach it, name its network in `upstream_allow_cidrs` or in a rule's `cidr`, no wider than the special range it lies in"
            }
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An IPv4 address inside an IPv6 one, to which a gateway or this machine itself would send the packets.
#[derive(Clone, Copy)]
struct Embedded {
    address: Ipv4Addr,
    /// How many bits stand before it.
    offset: u8,
}

impl Embedded {
    /// At most two: Teredo has a server's and a client's.
    fn all(address: IpAddr) -> [Option<Self>; 2] {
        let IpAddr::V6(v6) = address else { return [None, None] };
        let bits = v6.to_bits();
        let at = |offset: u8| Self { address: Ipv4Addr::from_bits((bits >> (96 - offset)) as u32), offset };
        match v6.segments() {
            // `::` and `::1` are themselves; the rest are IPv4-compatible (RFC 4291 section 2.5.5.1).
            [0, 0, 0, 0, 0, 0, ..] if bits > 1 => [Some(at(96)), None],
            // IPv4-translated (RFC 2765 section 2.1), and the well-known prefix of NAT64 (RFC 6052 section 2.1).
            [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => [Some(at(96)), None],
            // 6to4 (RFC 3056 section 2).
            [0x2002, ..] => [Some(at(16)), None],
            // Teredo (RFC 4380 section 4): the client's address is stored inverted.
            [0x2001, 0, ..] => {
                let client = at(96);
                [
                    Some(at(32)),
                    Some(Self { address: Ipv4Addr::from_bits(!client.address.to_bits()), ..client }),
                ]
            }
            _ => [None, None],
        }
    }
}

/// The class of an address and the length of the prefix that puts it there; `None` for an ordinary public address.
fn class_of_v4(address: Ipv4Addr) -> Option<(AddressClass, u8)> {
    V4_CLASSES.iter().find(|(net, _)| net.contains(&address)).map(|(net, class)| (*class, net.prefix_len()))
}

fn class_of_v6(address: Ipv6Addr) -> Option<(AddressClass, u8)> {
    // What only wraps an IPv4 address is judged by that one.
    if Embedded::all(address.into())[0].is_some() {
        return None;
    }
    if let Some((net, class)) = V6_CLASSES.iter().find(|(net, _)| net.contains(&address)) {
        return Some((*class, net.prefix_len()));
    }
    // Only 2000::/3 is handed out to hosts (RFC 4291 section 2.4).
    let global = address.segments()[0] & 0xe000 == 0x2000;
    (!global).then_some((AddressClass::Reserved, 3))
}

/// The first match counts, so what is special inside a range stands before the range.
const V4_CLASSES: &[(Ipv4Net, AddressClass)] = &[
    // AWS, Azure, Google, Oracle, DigitalOcean, Hetzner and others.
    (v4([169, 254, 169, 254], 32), AddressClass::Metadata),
    // AWS: credentials of ECS tasks and of EKS pods.
    (v4([169, 254, 170, 2], 32), AddressClass::Metadata),
    (v4([169, 254, 170, 23], 32), AddressClass::Metadata),
    // Alibaba.
    (v4([100, 100, 100, 200], 32), AddressClass::Metadata),
    // Azure's host agent: a public address that every virtual machine there reaches its host by.
    (v4([168, 63, 129, 16], 32), AddressClass::Metadata),
    // Oracle, older instances.
    (v4([192, 0, 0, 192], 32), AddressClass::Metadata),
    (v4([0, 0, 0, 0], 8), AddressClass::Unspecified),
    (v4([10, 0, 0, 0], 8), AddressClass::Private),
    (v4([100, 64, 0, 0], 10), AddressClass::SharedAddressSpace),
    (v4([127, 0, 0, 0], 8), AddressClass::Loopback),
    (v4([169, 254, 0, 0], 16), AddressClass::LinkLocal),
    (v4([172, 16, 0, 0], 12), AddressClass::Private),
    // IETF protocol assignments (RFC 6890).
    (v4([192, 0, 0, 0], 24), AddressClass::Reserved),
    (v4([192, 0, 2, 0], 24), AddressClass::Documentation),
    // Relays of 6to4 (RFC 7526, deprecated).
    (v4([192, 88, 99, 0], 24), AddressClass::Reserved),
    (v4([192, 168, 0, 0], 16), AddressClass::Private),
    (v4([198, 18, 0, 0], 15), AddressClass::Benchmarking),
    (v4([198, 51, 100, 0], 24), AddressClass::Documentation),
    (v4([203, 0, 113, 0], 24), AddressClass::Documentation),
    (v4([224, 0, 0, 0], 4), AddressClass::Multicast),
    (v4([255, 255, 255, 255], 32), AddressClass::Broadcast),
    (v4([240, 0, 0, 0], 4), AddressClass::Reserved),
];

const V6_CLASSES: &[(Ipv6Net, AddressClass)] = &[
    // AWS: instances, EKS pods.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), AddressClass::Metadata),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), AddressClass::Metadata),
    // Google.
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), AddressClass::Metadata),
    // Scaleway.
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), AddressClass::Metadata),
    // OpenStack.
    (v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), AddressClass::Metadata),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), AddressClass::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), AddressClass::Loopback),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), AddressClass::LocalTranslation),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), AddressClass::Benchmarking),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), AddressClass::Documentation),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), AddressClass::Documentation),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), AddressClass::UniqueLocal),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), AddressClass::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), AddressClass::SiteLocal),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), AddressClass::Multicast),
    // IETF protocol assignments (RFC 2928).
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), AddressClass::Reserved),
];

const fn v4([a, b, c, d]: [u8; 4], prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix_len: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix_len)
}

/// A range of IPv4-mapped addresses is the range of the IPv4 addresses inside it, as addresses are compared canonically.
pub(crate) fn canonical_net(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(v4);
    }
    net
}

#[cfg(test)]
mod tests;
