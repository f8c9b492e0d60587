//! An address range as the file writes it.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::problem::ValueError;
use super::schema::text_schema;

/// A range, its host bits cleared as iron-proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr(pub(super) IpNet);

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.parse::<IpAddr>().is_ok() {
            return Err(ValueError {
                message: "an address range needs its length",
                hint: "a single address ends in /32 (IPv4) or /128 (IPv6)",
            });
        }
        match text.parse::<IpNet>() {
            Ok(range) => Ok(Self(range.trunc())),
            Err(_) => Err(ValueError {
                message: "not an address range",
                hint: "write an address and a length, such as 10.0.0.0/8 or fd00::/8",
            }),
        }
    }
}

text_schema!(Cidr, "cidr", { "type": "string", "description": "A range of addresses with its length, such as 10.0.0.0/8.", "pattern": "^[0-9a-fA-F.:]+/[0-9]+$" });
