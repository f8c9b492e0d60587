//! Sandboxes whose only way out is the proxy.
//!
//! A [`Driver`] makes them, a [`Spec`] says what one is to be. [`LocalDriver`] makes them on this machine with bubblewrap: namespaces of
//! their own, no network but loopback, and one Unix socket, the proxy's. Every driver passes the suite in `testing`.
//!
//! What cannot be isolated is refused with an [`Error`] that names what is missing. Only limits on memory, processes and processor
//! time may be approximated, with a [`Warning`], and only where they are not required.

mod driver;
mod environment;
mod error;
pub mod inside;
mod layout;
mod local;
mod spec;
mod terminal;
#[cfg(feature = "testing")]
pub mod testing;
mod trust_store;

pub use driver::{Attach, Attached, Driver, Exit, Pipes, Sandbox, Signal, Size, Warning};
pub use environment::{Environment, Granted, Request, Shown};
pub use error::Error;
pub use inside::is_inside;
pub use layout::{CA_BUNDLE, HOME, PATH, PROXY_PORT, TRUST_STORE, USER};
pub use local::{Host, LocalDriver, LocalSandbox};
pub use spec::{Limits, SandboxId, Spec, Workspace};
pub use terminal::{Terminal, Window};
