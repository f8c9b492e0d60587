//! Replacing texts in a body of any size while it streams (invariant 8), without I/O.

mod patterns;
mod replace;

pub(crate) use patterns::Patterns;
pub(crate) use replace::{Caps, Decision, Pieces, ReplaceError, Replacer};
