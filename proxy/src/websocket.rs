//! WebSockets (RFC 6455): a tunnel only after a `101` that is the right answer to the very handshake (invariant 9, T27), then messages
//! that are checked frame by frame, swapped and redacted (T38). Over HTTP/2 a client asks by extended CONNECT (RFC 8441, T39);
//! upstreams are always asked over HTTP/1.1.
//!
//! Crates for WebSockets hand out whole messages, and tungstenite 0.30 has no permessage-deflate; here a message of any size must be
//! rewritten while it streams. So the frames are read and written by code of our own.

mod deflate;
mod direction;
mod extension;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handshake;
mod relay;
mod search;
mod socket;
mod utf8;

pub(crate) use handshake::{Handshake, Performed, Switch, extended_connect};
