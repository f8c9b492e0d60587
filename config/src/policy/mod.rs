//! The meaning of the policy language: whether a request may leave, and with which credential.
//!
//! [`Policy::compile`] turns a document into something that decides fast. A [`Scope`] is what a policy says about one
//! [`Destination`]; a tunnel makes it once and asks it for each request. The answer is a [`Verdict`]: a [`Plan`] or a [`Refusal`]
//! whose [`Reason`] is the only source of codes, statuses and hints.

mod basic;
mod compile;
mod destination;
mod explain;
mod fixture;
mod foreign;
mod glob;
mod host;
mod host_index;
mod path;
mod placeholder;
mod reason;
mod rule;
mod scope;
mod secret;
mod tunnel;
mod unsupported;
mod verdict;

pub use basic::decode_basic;
pub use compile::{CompileError, Policy};
pub use destination::{Destination, Scheme, UrlError};
pub use explain::{Explanation, ForeignExplanation, SecretExplanation};
pub use fixture::{Difference, Tried};
pub use foreign::Foreign;
pub use glob::GlobError;
pub use host::{DnsName, Host, HostError};
pub use host_index::HostPatternError;
pub use placeholder::{Found, Placeholders, is_generated};
pub use reason::Reason;
pub use rule::RuleName;
pub use scope::Scope;
pub use secret::{Placement, Replace, SHORTEST_REDACTED, Secret, fits_a_header};
pub use verdict::{
    HeaderSwap, Hit, Location, Plan, Refusal, RequestHead, TargetPlace, TargetSwap, TunnelVerdict, Verdict,
};

#[cfg(test)]
mod tests;
