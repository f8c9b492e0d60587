//! What no policy may allow: first in the bytes, then in the parsed request.

mod frames;
mod framing;
mod head;
pub(crate) mod request;
mod wire;

pub(crate) use frames::Frames;
pub(crate) use head::Fault;
#[cfg(feature = "fuzzing")]
pub(crate) use wire::STAND_IN;
pub(crate) use wire::{Answering, Control, Wire};
