//! The control service: principals, roles, secrets, grants and proxies, and what each proxy must enforce.

mod attributes;
mod details;
pub mod effective;
mod id;
mod name;
pub mod principal;
pub mod secret;
mod token;

pub use details::Details;
pub use id::IdOf;
