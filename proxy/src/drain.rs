//! The end of the proxy: what is idle closes at once, what is busy gets a while, and then nothing is left.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells connections when to end, and waits for them.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    begun: CancellationToken,
    over: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Runs `task` to its end, or until the draining time is over.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        self.tasks.spawn(async move {
            over.run_until_cancelled(task).await;
        });
    }

    /// Completes when draining begins: whatever is idle should end.
    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Drains: all tasks are told, waited for at most `limit`, then dropped.
    pub(crate) async fn drain(&self, limit: Duration) {
        self.begun.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                open = self.tasks.len(),
                "connections are still open after the drain timeout and are closed"
            );
            self.over.cancel();
            self.tasks.wait().await;
        }
    }
}
