//! What no policy may allow.

pub(crate) mod request;
