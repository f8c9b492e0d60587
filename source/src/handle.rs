//! One secret: its value, kept as fresh as its source asks for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::caching::{Caching, Expiry};
use crate::counts::FetchCounts;
use crate::error::SourceError;
use crate::fetch::Fetch;
use crate::value::SecretValue;

/// How long one fetch may take: 30 seconds (T57).
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a value that was rotated away still counts as one that must not be shown: ten minutes.
pub const LIVE_AFTER_ROTATION: Duration = Duration::from_secs(600);

/// How far apart fetches are that follow a refusal: a sandbox can have itself refused as often as it likes.
const REFUSAL_SPACING: Duration = Duration::from_secs(5);

/// A secret, shared by everything that uses its source.
///
/// What its source's `ttl` means: none or zero, a value is kept for ever; negative, it is never served again (and kept only for [`SecretHandle::live`]); otherwise, once it is
/// that old, it is fetched again in the background while the old value is served, for as long as fetching fails, up to an age
/// of ten TTLs or ten minutes, whichever is longer. Then there is no value. A failure counts for `failure_ttl` (one minute;
/// zero: not at all) where there is no value to serve.
///
/// At most one fetch runs at a time, also where nothing is kept, and who asks meanwhile gets its outcome. It belongs to the handle, not to who asked first: a caller that goes away interrupts
/// nobody.
pub struct SecretHandle {
    name: String,
    fetch: Box<dyn Fetch>,
    caching: Caching,
    versions: Arc<AtomicU64>,
    counts: Arc<FetchCounts>,
    kept: ArcSwapOption<Kept>,
    progress: Mutex<Progress>,
    live: Mutex<Vec<Live>>,
    /// The version of the newest of them.
    latest: AtomicU64,
    me: Weak<Self>,
}

/// A value that may still be in use somewhere.
struct Live {
    value: Arc<SecretValue>,
    /// Another has taken its place.
    replaced: Option<Instant>,
}

struct Kept {
    value: Arc<SecretValue>,
    expiry: Option<Expiry>,
}

/// What concerns fetching; never touched where a fresh value is at hand.
#[derive(Default)]
struct Progress {
    flight: Option<Flight>,
    failed: Option<(SourceError, Instant)>,
    /// When a refusal last led to a fetch.
    refused: Option<Instant>,
}

/// `None` while the fetch is in the air. Where the fetch panicked, the sender is gone without an outcome.
type Flight = watch::Receiver<Option<Outcome>>;
type Outcome = Result<Arc<SecretValue>, SourceError>;

impl SecretHandle {
    pub(crate) fn new(
        name: String,
        fetch: Box<dyn Fetch>,
        caching: Caching,
        versions: Arc<AtomicU64>,
        counts: Arc<FetchCounts>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            name,
            fetch,
            caching,
            versions,
            counts,
            kept: ArcSwapOption::empty(),
            progress: Mutex::default(),
            live: Mutex::default(),
            latest: AtomicU64::new(0),
            me: me.clone(),
        })
    }

    /// What the source is called in messages: the variable's name or the file's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, if there is one that may be used now. Does not wait, takes no lock, and asks no clock unless the value can
    /// expire; a value that is due is refreshed in the background by this call.
    ///
    /// `None` before the first fetch, after the age limit, and always where nothing is kept: then [`Self::value`] knows more.
    pub fn current(&self) -> Option<Arc<SecretValue>> {
        let kept = self.kept.load();
        let kept = kept.as_ref()?;
        if let Some(expiry) = &kept.expiry {
            let now = Instant::now();
            if expiry.unusable_at.is_some_and(|at| at <= now) {
                return None;
            }
            if expiry.refresh_at <= now {
                self.refresh_in_background(now);
            }
        }
        Some(kept.value.clone())
    }

    /// The newest value and those that it has replaced within [`LIVE_AFTER_ROTATION`]: whatever an upstream may still know.
    pub fn live(&self) -> Vec<Arc<SecretValue>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.iter().map(|live| live.value.clone()).collect()
    }

    /// The version of the newest value, 0 before there is one: [`Self::live`] says the same for as long as this does.
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    fn enter(&self, value: &Arc<SecretValue>) {
        let now = Instant::now();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|live| live.replaced.is_none_or(|at| now.duration_since(at) < LIVE_AFTER_ROTATION));
        live.iter_mut().for_each(|live| {
            live.replaced.get_or_insert(now);
        });
        live.push(Live { value: value.clone(), replaced: None });
        self.latest.store(value.version(), Ordering::Release);
    }

    /// The value, fetched if there is none that may be used now.
    pub async fn value(&self) -> Result<Arc<SecretValue>, SourceError> {
        if let Some(value) = self.current() {
            return Ok(value);
        }
        let flight = {
            let mut progress = self.progress();
            match progress.flying() {
                Some(flight) => flight,
                None => {
                    // A fetch may have landed since the look above.
                    if let Some(value) = self.usable() {
                        return Ok(value);
                    }
                    let failed = progress.failed.as_ref();
                    if let Some((error, _)) =
                        failed.filter(|(_, at)| at.elapsed() < self.caching.failure_ttl())
                    {
                        return Err(error.clone());
                    }
                    self.take_off(&mut progress)
                }
            }
        };
        self.landing(flight).await
    }

    /// Fetches again, whatever is kept: for when the value was refused where it was used (T58). Callers at the same time
    /// share one fetch. A failure leaves the value that is kept in place.
    pub async fn refresh(&self) -> Result<Arc<SecretValue>, SourceError> {
        let flight = {
            let mut progress = self.progress();
            progress.flying().unwrap_or_else(|| self.take_off(&mut progress))
        };
        self.landing(flight).await
    }

    /// Whether the source may ever give another value.
    pub fn may_change(&self) -> bool {
        self.fetch.may_change()
    }

    /// The value of this version was refused where it was used (T58): whether there is another by now. Asks the source, though not for
    /// every refusal, and shares what others ask.
    pub async fn is_outdated(&self, version: u64) -> bool {
        if self.latest() != version {
            return true;
        }
        let flight = {
            let mut progress = self.progress();
            match progress.flying() {
                Some(flight) => flight,
                None => {
                    let now = Instant::now();
                    if progress.refused.is_some_and(|at| now.duration_since(at) < REFUSAL_SPACING) {
                        return false;
                    }
                    progress.refused = Some(now);
                    self.take_off(&mut progress)
                }
            }
        };
        self.landing(flight).await.is_ok_and(|value| value.version() != version)
    }

    /// Takes a value that was brought, as if it had just been fetched.
    pub(crate) fn bring(&self, value: Result<SecretString, SourceError>) {
        // What it says of a failure, it says again to whoever asks.
        let _ = self.settle(Instant::now(), value);
    }

    fn refresh_in_background(&self, now: Instant) {
        let mut progress = self.progress();
        let waiting = progress
            .failed
            .as_ref()
            .is_some_and(|(_, at)| now.duration_since(*at) < self.caching.retry_after());
        // Without a runtime there is nobody to fetch; the next caller has one.
        if !waiting && progress.flying().is_none() && Runtime::try_current().is_ok() {
            self.take_off(&mut progress);
        }
    }

    fn take_off(&self, progress: &mut Progress) -> Flight {
        let (sender, flight) = watch::channel(None);
        progress.flight = Some(flight.clone());
        let me = self.me.upgrade().expect("handles exist only inside their Arc");
        tokio::spawn(async move {
            let started = Instant::now();
            let timed_out = |_| Err(SourceError::Timeout { name: me.name.clone(), limit: FETCH_TIMEOUT });
            let fetched = timeout(FETCH_TIMEOUT, me.fetch.fetch()).await.unwrap_or_else(timed_out);
            let outcome = me.settle(started, fetched);
            sender.send_replace(Some(outcome));
        });
        flight
    }

    /// Keeps what was fetched, and only then ends the flight: who finds none finds the value.
    fn settle(&self, started: Instant, fetched: Result<SecretString, SourceError>) -> Outcome {
        self.counts.settled(fetched.is_ok());
        let outcome = fetched.map(|text| {
            // Also where nothing is kept for use: what is live is known for as long as it must not be shown.
            let before = self.live().pop();
            let value = match before.filter(|before| before.expose() == text.expose_secret()) {
                Some(unchanged) => unchanged,
                None => {
                    let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
                    let value = Arc::new(SecretValue::new(text, version));
                    self.enter(&value);
                    value
                }
            };
            if self.caching.keeps_values() {
                let expiry = self.caching.expiry(started);
                self.kept.store(Some(Arc::new(Kept { value: value.clone(), expiry })));
            }
            value
        });
        if let Err(error) = &outcome {
            tracing::warn!(source = %self.name, %error, "a secret could not be fetched");
        }
        let mut progress = self.progress();
        progress.failed = outcome.as_ref().err().map(|error| (error.clone(), Instant::now()));
        // The channel would hold on to a value that is not to be kept.
        progress.flight = None;
        outcome
    }

    async fn landing(&self, mut flight: Flight) -> Outcome {
        let interrupted = || Err(SourceError::Interrupted { name: self.name.clone() });
        match flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(interrupted),
            Err(_) => interrupted(),
        }
    }

    fn usable(&self) -> Option<Arc<SecretValue>> {
        let kept = self.kept.load_full()?;
        let over = kept.expiry.and_then(|expiry| expiry.unusable_at).is_some_and(|at| at <= Instant::now());
        (!over).then(|| kept.value.clone())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn flying(&self) -> Option<Flight> {
        self.flight.as_ref().filter(|flight| flight.has_changed().is_ok()).cloned()
    }
}

/// The source's name and the version that is kept (T46).
impl fmt::Debug for SecretHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.kept.load().as_ref().map(|kept| kept.value.version());
        f.debug_struct("SecretHandle")
            .field("name", &self.name)
            .field("version", &version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
