//! Where connections come in.

mod connection;
mod prefixed;
mod socket;
mod tunnel;

pub(crate) use connection::{Arrival, serve_h1, serve_h2};
pub(crate) use socket::{Bound, bind};
pub(crate) use tunnel::accept;
