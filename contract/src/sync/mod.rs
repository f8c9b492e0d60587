//! What control tells a proxy: the policy of a principal, and which sandbox is whose.
//!
//! [`Request`] and [`Response`] are the poll that iron-proxy knows; [`Message`] is what a stream carries. Both hold a [`Policy`],
//! whose entries are [`Tree`]s: JSON in which a live value is a leaf of its own kind. Everything that prints or serialises a tree
//! writes `[redacted]` there; [`Tree::reveal`] is the one door through which values leave.

mod capability;
mod generation;
mod message;
mod policy;
mod poll;
mod tree;

pub use capability::Capability;
pub use generation::{Generation, GenerationError};
pub use message::{Applied, Message, PolicyOf, Reach, SandboxIdentity, Serves, Transport, sandbox_socket};
pub use policy::Policy;
pub use poll::{Payload, Request, Response, Status};
pub use tree::{REDACTED, Tree};

#[cfg(test)]
mod tests;
