//! What a running keyferry does for those who hold leases: it takes back what killed ones left, and one that was started for them ends
//! when nobody needs it any more.

use std::path::PathBuf;
use std::time::Duration;

use keyferry_sandbox::{Driver, Host, LocalDriver};
use tokio::time::{Instant, sleep};

use super::leases::{Holders, Leases};
use crate::control_client::{ControlClient, path};

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_millis(250);
/// How long a keyferry without use waits for the next command of a script.
const LINGER: Duration = Duration::from_secs(2);

/// Looks after the leases of a data directory.
pub(super) struct Attendance {
    pub(super) leases: Leases,
    pub(super) owner: ControlClient,
    /// Where the driver of sandboxes is, if there can be any.
    pub(super) host: Host,
    /// The owner's door.
    pub(super) socket: PathBuf,
}

impl Attendance {
    /// Takes back what is left, for ever.
    pub(super) async fn attend(self) {
        loop {
            self.look().await;
            sleep(LOOK).await;
        }
    }

    /// The same, until nobody has held a lease for a while. The owner's door is closed then: whoever comes opens another.
    pub(super) async fn until_unused(self) {
        let mut last_used = Instant::now();
        loop {
            // Removed with its data directory: nobody can come any more.
            if self.leases.are_gone() {
                return;
            }
            if self.look().await > 0 {
                last_used = Instant::now();
            } else if last_used.elapsed() >= LINGER {
                let close = || drop(std::fs::remove_file(&self.socket));
                if self.leases.unless_held(close).unwrap_or(false) {
                    return;
                }
            }
            sleep(LOOK).await;
        }
    }

    /// How many hold leases.
    async fn look(&self) -> usize {
        match self.leases.holders() {
            Ok(Holders { living, gone }) => {
                for name in gone {
                    self.take_back(&name).await;
                }
                living
            }
            Err(error) => {
                tracing::warn!(%error, "it cannot be seen who uses this keyferry");
                // Nobody is sent away on a guess.
                1
            }
        }
    }

    /// The sandboxes of a holder that was killed, with what they left on this machine.
    async fn take_back(&self, name: &str) {
        let mut complete = true;
        match self.owner.list(&path(["sandboxes"])).await {
            Ok(sandboxes) => {
                for sandbox in sandboxes.iter().filter(|sandbox| sandbox.text("name") == Some(name)) {
                    let id = sandbox.id();
                    let deleted = self.owner.delete(&path(["sandboxes", id])).await;
                    complete &= deleted.is_ok();
                    tracing::info!(sandbox = id, "the owner of a sandbox was killed, and its identity ended");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "sandboxes whose owner was killed cannot be listed");
                complete = false;
            }
        }
        // Without bubblewrap there was none.
        if let Ok(driver) = LocalDriver::new(self.host.clone()) {
            for id in driver.leftovers().await.unwrap_or_default() {
                if let Err(error) = driver.reap(&id).await {
                    tracing::warn!(%error, sandbox = id.as_str(), "a sandbox left something behind");
                    complete = false;
                }
            }
        }
        if complete {
            self.leases.forget(name);
        }
    }
}
