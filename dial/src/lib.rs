//! The one door out: resolve a name, check every address, connect to exactly what was checked.
//!
//! A [`Dialer`] holds three things: a [`Guard`] that knows which addresses may be dialled, the addresses that we listen on
//! ourselves ([`OwnListeners`]: never dialled, whatever the guard says), and a [`Resolver`]. A name is resolved once per
//! [`Dialer::connect`], and only the addresses out of that one answer are connected to: between the check and the dial no
//! second lookup can slip in (T13), and the fallback from one address to the next stays inside the checked set (T14).
//!
//! Resolving is already dialling: a query carries the name to whoever runs the zone (T15). So call this only when the policy
//! has allowed the destination. Nothing here follows a redirect; a client that does, dials each hop through here (T18).

mod connect;
mod error;
mod guard;
mod own_listeners;
mod resolver;
mod service;
mod system_files;

pub use connect::{Connected, DEFAULT_CONNECT_TIMEOUT, Dialer};
pub use error::{DialError, DnsFailure};
pub use guard::{AddressClass, AddressDenied, Guard};
pub use own_listeners::OwnListeners;
pub use resolver::{DEFAULT_RESOLVE_TIMEOUT, Resolver, ResolverOptions};
pub use service::{ServiceError, ServiceStream, ServiceUrl, ServiceUrlError};
