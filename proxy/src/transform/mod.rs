//! What is done to a request that may leave, one file each.

pub(crate) mod misdirection;
pub(crate) mod secrets;
pub(crate) mod swap;
