//! Where connections come in.

mod admission;
mod connection;
mod inside;
mod operators;
mod prefixed;
mod progress;
mod socket;
mod tunnel;
mod unix;

pub(crate) use admission::Admission;
use connection::{Arrival, serve_h1, serve_h2};
pub(crate) use operators::serve_operators;
pub(crate) use socket::{Bound, bind};
pub(crate) use tunnel::accept;
pub(crate) use unix::serve_sockets;
