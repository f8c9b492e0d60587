//! What proxies are told, kept ready: policies rendered once and until they change, and whom a change concerns.

mod feed;
mod hub;

pub(crate) use feed::Feed;
pub(crate) use hub::{Hub, Subject};
