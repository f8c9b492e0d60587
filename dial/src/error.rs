//! Why there is no connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use keyferry_config::policy::{DnsName, Host};

use crate::guard::{AddressClass, AddressDenied};

/// Why [`crate::Dialer::connect`] did not connect.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address that we could learn.
    #[error("{name} {kind}\nhint: {}", kind.hint())]
    Dns {
        /// The name that was asked for.
        name: DnsName,
        /// What went wrong.
        kind: DnsFailure,
    },
    /// None of the host's addresses may be dialled; this is the first of them.
    #[error("{host} may not be dialled: {}", AddressDenied { address: *address, class: *class })]
    AddressDenied {
        /// The host that was asked for.
        host: Host,
        /// Its address, in canonical form.
        address: IpAddr,
        /// Why.
        class: AddressClass,
    },
    /// Every address that may be dialled failed; this is the first that did.
    #[error("{host} could not be reached at {address}: {source}")]
    Connect {
        /// The host that was asked for.
        host: Host,
        /// The address that failed first.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No address answered in time.
    #[error("{host} did not answer on port {port} within {} seconds", limit.as_secs())]
    Timeout {
        /// The host that was asked for.
        host: Host,
        /// The port.
        port: u16,
        /// How long was waited, over all addresses.
        limit: Duration,
    },
}

/// Why a name has no address that we could learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsFailure {
    /// There is no such name, or it has no address.
    NotFound,
    /// No name server answered in time.
    Timeout,
    /// The name server refused, failed, or sent something that is not an answer.
    Failure,
}

impl DnsFailure {
    /// A stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::NotFound => {
                "check the spelling; the name is looked up as it stands, without search domains"
            }
            Self::Timeout | Self::Failure => {
                "check the name servers in /etc/resolv.conf, or `dns.upstream_resolver` where it is set"
            }
        }
    }
}

impl fmt::Display for DnsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "has no address",
            Self::Timeout => "could not be resolved: no name server answered in time",
            Self::Failure => "could not be resolved: the name server failed",
        })
    }
}
