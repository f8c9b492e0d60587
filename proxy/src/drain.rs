//! The end of the proxy: what is idle closes at once, what is busy gets a while, and then nothing is left.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::signal::Broadcast;

/// Tells connections when to end, and waits for them.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    begun: Broadcast,
    over: Arc<Broadcast>,
    tasks: TaskTracker,
}

impl Drain {
    /// Runs `task` to its end, or until the draining time is over.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let over = Arc::clone(&self.over);
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = over.raised() => {}
                () = task => {}
            }
        });
    }

    /// Runs a task that ends with another one; draining waits for it.
    pub(crate) fn spawn_dependent(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Completes when draining begins: whatever is idle should end.
    pub(crate) async fn begun(&self) {
        self.begun.raised().await;
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_raised()
    }

    /// Drains: all tasks are told, waited for at most `limit`, then dropped.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.begun.raise();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                open = self.tasks.len(),
                "connections are still open after the drain timeout and are closed"
            );
            self.over.raise();
            self.tasks.wait().await;
        }
    }
}
