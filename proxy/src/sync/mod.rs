//! Managed mode: the policy comes from a control service, for one principal or for many (invariant 11).
//!
//! `client` hears what control tells, `compile` makes policies of it, `enforce` puts a whole state in force, `keep` keeps it for a
//! start without control, `standing` says how all that is going.

mod address;
mod client;
mod compile;
mod connect;
mod enforce;
mod events;
mod keep;
mod standing;

use std::path::PathBuf;
use std::sync::Arc;

use keyferry_config::document::ControlPlane;
use rustls::ClientConfig;
use secrecy::SecretString;
use tokio::task::JoinSet;

pub use address::{ControlUrl, ControlUrlError};
pub(crate) use enforce::{Enforcer, FileSide};
pub use keep::Kept;
pub(crate) use standing::{ManagedStatus, Standing};

use client::Client;
use connect::Requests;
use keep::Keeper;

/// How a proxy gets its policy from a control service.
#[derive(Clone, Debug)]
pub struct ManagedOptions {
    /// Where it is.
    pub control: ControlUrl,
    /// The proxy's own token, `iprx_…`.
    pub token: SecretString,
    /// Where the last policy is kept for a start without control; nowhere, if absent.
    pub kept: Option<Kept>,
    /// Where sandboxes reach this proxy, `HOST:PORT`; its first listener, if absent and not a wildcard.
    pub address: Option<String>,
    /// Where sockets of sandboxes are made, each in a directory of its own; without it, only those with a token are served.
    pub sandbox_sockets: Option<PathBuf>,
}

/// Puts in force what is kept, and then what control tells, until the result is dropped.
pub(crate) fn start(
    options: ManagedOptions,
    tls: Arc<ClientConfig>,
    control_plane: &ControlPlane,
    standing: &Arc<Standing>,
) -> JoinSet<()> {
    let ManagedOptions { control, token, kept, address, .. } = options;
    tracing::info!(%control, "the policy comes from a control service");
    let mut tasks = JoinSet::new();
    match kept {
        Some(kept) => {
            let keeper = Arc::new(Keeper::new(kept, &token));
            // Its writer listens before there is anything to write.
            tasks.spawn(Arc::clone(&keeper).keep(Arc::clone(standing)));
            keeper.restore(standing);
        }
        None => tracing::warn!(
            "no keyring is named, so the policy is not kept on disk, and a start without the control service refuses everything"
        ),
    }
    let requests = Arc::new(Requests::new(control, token, tls));
    let poll_interval = control_plane.poll_interval;
    tasks.spawn(client::report(Arc::clone(&requests), Arc::clone(standing)));
    tasks.spawn(client::watch_the_clock(Arc::clone(standing)));
    tasks.spawn(Client { requests, standing: Arc::clone(standing), poll_interval, address }.run());
    tasks
}
