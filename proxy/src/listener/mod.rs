//! Where connections come in.

mod connection;
mod inside;
mod operators;
mod prefixed;
mod progress;
mod socket;
mod tunnel;

use connection::{Arrival, serve_h1, serve_h2};
pub(crate) use operators::serve_operators;
pub(crate) use socket::{Bound, bind};
pub(crate) use tunnel::accept;
