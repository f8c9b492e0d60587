//! Where a secret's value comes from, and how long it is kept.
//!
//! [`Sources`] hands out one [`SecretHandle`] per distinct source, whoever asks, so that five entries with the same source
//! fetch once, and a reload of the policy finds the values that are already there. A handle's [`SecretHandle::current`] is
//! what a request calls: it reads an atomic pointer. [`SecretHandle::value`] waits for the first fetch.
//!
//! Values are [`SecretValue`]s: wiped from memory when dropped, and without a way into a log. Errors name the source, never
//! the value.

mod caching;
mod counts;
mod environment;
mod error;
mod fetch;
mod handle;
mod registry;
mod value;

pub use counts::FetchCounts;
pub use environment::Environment;
pub use error::SourceError;
pub use fetch::MAX_FILE_BYTES;
pub use handle::{FETCH_TIMEOUT, LIVE_AFTER_ROTATION, SecretHandle};
pub use registry::{Delivered, Sources};
pub use value::SecretValue;
