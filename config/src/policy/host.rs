//! Who a request is for: one canonical form, made before any lookup (T07, T08, T09).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// A host in canonical form: a DNS name or an address, never text that could be read as either.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name.
    Name(DnsName),
    /// An address literal. IPv4-mapped IPv6 is stored as the IPv4 address inside it.
    Ip(IpAddr),
}

/// A DNS name: lower-case ASCII (IDNA applied), without a trailing dot, at most 253 bytes, labels of 1 to 63 bytes out of
/// `[a-z0-9_-]`. The last label is never a number, so the name cannot be taken for an IPv4 address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Arc<str>);

/// Why text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing before the port or the end.
    #[error("the host is empty")]
    Empty,
    /// A control byte, space, `%`, or anything else that no host name holds.
    #[error("the host contains a character that no host name may contain")]
    Character,
    /// Longer than 253 bytes, or a label is empty or longer than 63.
    #[error("the host name or one of its labels is empty or too long")]
    Length,
    /// An IPv4 address in octal, hexadecimal, short or overlong form, which readers disagree on.
    #[error("the host looks like an IPv4 address but is not four decimal numbers")]
    OddIpv4,
    /// Brackets that do not hold an IPv6 address, or one with a zone id.
    #[error("the brackets do not hold a plain IPv6 address")]
    Ipv6,
    /// IDNA (UTS 46) refuses the name.
    #[error("the host name is not a valid internationalised name")]
    Idna,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl Host {
    /// Reads `HOST` or `HOST:PORT` as it stands in a CONNECT target, a `Host` header or an `:authority` (RFC 9110 section 7.2).
    pub fn parse_authority(text: &str) -> Result<(Self, Option<u16>), HostError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or(HostError::Ipv6)?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':').ok_or(HostError::Ipv6)?),
                };
                (Self::bracketed(inside)?, port)
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host.parse()?, Some(port)),
                None => (text.parse()?, None),
            },
        };
        let port = port.map(parse_port).transpose()?;
        Ok((host, port))
    }

    fn bracketed(inside: &str) -> Result<Self, HostError> {
        // `Ipv6Addr` reads no zone id, which would name an interface of ours.
        inside.parse::<Ipv6Addr>().map(|ip| Self::from(IpAddr::V6(ip))).map_err(|_| HostError::Ipv6)
    }
}

/// The host alone: a name, an IPv4 address, or an IPv6 address with or without brackets.
impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Some(inside) = text.strip_prefix('[') {
            return Self::bracketed(inside.strip_suffix(']').ok_or(HostError::Ipv6)?);
        }
        if text.contains(':') {
            return Self::bracketed(text);
        }
        if is_canonical_name(text) {
            return Ok(Self::Name(DnsName(text.into())));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(IpAddr::V4(ip)));
        }
        // `%` is refused, not decoded: a name that needs decoding is a name that two readers decode differently.
        if text.bytes().any(|b| {
            b.is_ascii() && !matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.')
        }) {
            return Err(HostError::Character);
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY)
            .map_err(|_| HostError::Idna)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        // Fullwidth digits and dots may only now spell an address.
        if let Ok(ip) = name.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(IpAddr::V4(ip)));
        }
        DnsName::checked(name).map(Self::Name)
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}

/// As it stands in a URL: IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl DnsName {
    /// The name, for example `api.example`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn checked(name: &str) -> Result<Self, HostError> {
        if is_canonical_name(name) {
            return Ok(Self(name.into()));
        }
        Err(match name {
            "" => HostError::Empty,
            _ if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) => {
                HostError::Length
            }
            _ if name.rsplit('.').next().is_some_and(is_number) => HostError::OddIpv4,
            _ => HostError::Character,
        })
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse_port(text: &str) -> Result<u16, HostError> {
    // `u16::from_str` would read "+443".
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    text.parse().ok().filter(|&port| port != 0).ok_or(HostError::Port)
}

fn is_canonical_name(name: &str) -> bool {
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'.' if label > 0 => label = 0,
            _ => return false,
        }
        if label > 63 {
            return false;
        }
    }
    // An `xn--` label goes through IDNA, which refuses the ones that decode to nothing sensible.
    label > 0
        && name.len() <= 253
        && !name.contains("xn--")
        && !name.rsplit('.').next().is_some_and(is_number)
        || label > 0 && name.len() <= 253 && name.contains("xn--") && is_round_trip(name)
}

fn is_round_trip(name: &str) -> bool {
    idna::domain_to_ascii_cow(name.as_bytes(), idna::AsciiDenyList::EMPTY).is_ok_and(|ascii| ascii == name)
        && !name.rsplit('.').next().is_some_and(is_number)
}

/// Decimal, octal or hexadecimal, as `inet_aton` and browsers read the last part of an address (WHATWG URL, "ends in a number").
fn is_number(label: &str) -> bool {
    let digits = label.bytes().all(|b| b.is_ascii_digit());
    let hex = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    digits || hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> Result<String, HostError> {
        text.parse::<Host>().map(|host| host.to_string())
    }

    #[test]
    fn t07_every_spelling_of_a_name_has_one_form() {
        for (text, form) in [
            ("api.example", "api.example"),
            ("API.Example", "api.example"),
            ("api.example.", "api.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example.", "xn--bcher-kva.example"),
            ("api。example", "api.example"),
            ("api．example", "api.example"),
            ("ａｐｉ.example", "api.example"),
            ("_dmarc.example", "_dmarc.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn t08_addresses_are_read_strictly_or_refused() {
        for (text, form) in [
            ("127.0.0.1", Ok("127.0.0.1")),
            ("[::1]", Ok("[::1]")),
            ("::1", Ok("[::1]")),
            ("[::ffff:127.0.0.1]", Ok("127.0.0.1")),
            ("[0:0::1]", Ok("[::1]")),
            ("１２７.0.0.1", Ok("127.0.0.1")),
            ("0x7f.1", Err(HostError::OddIpv4)),
            ("127.1", Err(HostError::OddIpv4)),
            ("2130706433", Err(HostError::OddIpv4)),
            ("0177.0.0.1", Err(HostError::OddIpv4)),
            ("0x7f000001", Err(HostError::OddIpv4)),
            ("127.0.0.1.", Ok("127.0.0.1")),
            ("1.2.3.4.5", Err(HostError::OddIpv4)),
            ("[::1%eth0]", Err(HostError::Ipv6)),
            ("[127.0.0.1]", Err(HostError::Ipv6)),
            ("[::1", Err(HostError::Ipv6)),
            ("fe80::1%25eth0", Err(HostError::Ipv6)),
        ] {
            assert_eq!(canonical(text).as_deref().map_err(|e| *e), form, "{text}");
        }
    }

    #[test]
    fn t09_bytes_that_no_name_holds_are_refused() {
        for text in [
            "a b.example",
            "a\0.example",
            "a\r\n.example",
            "a%2e.example",
            "a/b.example",
            "a@b.example",
            "*.example",
        ] {
            assert_eq!(canonical(text), Err(HostError::Character), "{text:?}");
        }
        for text in ["a..example", ".example", &format!("{}.example", "a".repeat(64)), &"a.".repeat(130)] {
            assert!(matches!(canonical(text), Err(HostError::Length | HostError::Idna)), "{text:?}");
        }
        assert_eq!(canonical(""), Err(HostError::Empty));
        assert!(canonical("xn--a\u{200d}.example").is_err());
    }

    #[test]
    fn an_authority_has_a_host_and_maybe_a_port() {
        let parse = |text| Host::parse_authority(text).map(|(host, port)| (host.to_string(), port));
        assert_eq!(parse("api.example:443"), Ok(("api.example".into(), Some(443))));
        assert_eq!(parse("api.example"), Ok(("api.example".into(), None)));
        assert_eq!(parse("[::1]:8443"), Ok(("[::1]".into(), Some(8443))));
        assert_eq!(parse("[::1]"), Ok(("[::1]".into(), None)));
        for text in
            ["api.example:", "api.example:0", "api.example:65536", "api.example:+443", "api.example: 443"]
        {
            assert_eq!(parse(text), Err(HostError::Port), "{text}");
        }
        assert_eq!(parse("[::1]443"), Err(HostError::Ipv6));
        assert_eq!(parse(":443"), Err(HostError::Empty));
        assert_eq!(parse("user@api.example:443"), Err(HostError::Character));
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_stable(text in "\\PC{0,40}") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert_eq!(host.to_string().parse::<Host>(), Ok(host));
            }
        }

        #[test]
        fn case_and_a_trailing_dot_change_nothing(name in "[a-z][a-z0-9-]{0,10}(\\.[a-z][a-z0-9]{0,8}){1,3}") {
            let upper = format!("{}.", name.to_ascii_uppercase());
            prop_assert_eq!(upper.parse::<Host>(), name.parse::<Host>());
        }
    }
}
