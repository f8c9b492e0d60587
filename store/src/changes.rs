//! Telling others what was committed: between replicas by PostgreSQL's LISTEN and NOTIFY, within the process on SQLite.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{OnceCell, broadcast};
use tokio::task::AbortHandle;

use crate::{Store, StoreError};

/// One change, as [`crate::Transaction::announce`] told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind of thing changed.
    pub channel: String,
    /// Which one; the channel's own words.
    pub payload: String,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A change.
    Change(Change),
    /// Changes may have been missed, because the connection was lost or the listener is slow: read everything again.
    Missed,
}

/// The longest payload. PostgreSQL carries 7,999 bytes, of which the channel's name takes some.
pub const MAX_PAYLOAD_BYTES: usize = 7_000;

/// PostgreSQL's channel for all of ours, so that one connection listens to everything.
pub(crate) const CHANNEL: &str = "keyferry";

/// How many changes a listener may be behind before it is told that it missed some.
const BACKLOG: usize = 1024;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);

/// Listens to some channels.
pub struct Changes {
    receiver: broadcast::Receiver<Heard>,
    channels: &'static [&'static str],
}

impl Changes {
    /// The next one. Never ends before the store is dropped; then it waits for ever.
    pub async fn next(&mut self) -> Heard {
        loop {
            match self.receiver.recv().await {
                Ok(Heard::Change(change)) if !self.channels.contains(&change.channel.as_str()) => {}
                Ok(heard) => return heard,
                Err(broadcast::error::RecvError::Lagged(_)) => return Heard::Missed,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Store {
    /// Listens to channels: every change that is committed from now on is heard. So listen first, then read.
    ///
    /// # Errors
    ///
    /// The database is unavailable.
    pub async fn changes(&self, channels: &'static [&'static str]) -> Result<Changes, StoreError> {
        Ok(Changes { receiver: self.0.hub.subscribe().await?, channels })
    }
}

impl Change {
    pub(crate) fn encode(&self) -> String {
        format!("{}\n{}", self.channel, self.payload)
    }

    fn decode(text: &str) -> Option<Self> {
        let (channel, payload) = text.split_once('\n')?;
        Some(Self { channel: channel.to_owned(), payload: payload.to_owned() })
    }
}

/// Where changes of this process arrive.
pub(crate) struct Hub {
    sender: broadcast::Sender<Heard>,
    /// Started with the first listener.
    relay: Option<(Box<PgConnectOptions>, OnceCell<Relay>)>,
}

struct Relay(AbortHandle);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Hub {
    pub(crate) fn within_process() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, relay: None }
    }

    pub(crate) fn between_processes(options: PgConnectOptions) -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, relay: Some((Box::new(options), OnceCell::new())) }
    }

    pub(crate) fn tell(&self, change: Change) {
        // Nobody listens: nobody needs to know.
        let _ = self.sender.send(Heard::Change(change));
    }

    async fn subscribe(&self) -> Result<broadcast::Receiver<Heard>, StoreError> {
        if let Some((options, relay)) = &self.relay {
            relay
                .get_or_try_init(|| async {
                    let listener = listen(options).await?;
                    let task = tokio::spawn(relay_all(listener, options.clone(), self.sender.clone()));
                    Ok::<_, StoreError>(Relay(task.abort_handle()))
                })
                .await?;
        }
        Ok(self.sender.subscribe())
    }
}

/// A connection of its own, so that listening takes none from those who ask.
async fn listen(options: &PgConnectOptions) -> Result<PgListener, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

async fn relay_all(
    mut listener: PgListener,
    options: Box<PgConnectOptions>,
    sender: broadcast::Sender<Heard>,
) {
    loop {
        while let Ok(Some(notification)) = listener.try_recv().await {
            // Anybody who may connect can notify: what is not ours is nothing.
            if let Some(change) = Change::decode(notification.payload()) {
                let _ = sender.send(Heard::Change(change));
            }
        }
        tracing::warn!("the connection that hears of changes was lost");
        listener = loop {
            match listen(&options).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(BETWEEN_ATTEMPTS).await,
            }
        };
        // Only now: whoever reads everything again must not miss what comes after.
        let _ = sender.send(Heard::Missed);
    }
}
