//! How long a value, and a failure, count.

use std::time::Duration;

use keyferry_config::document::Source;
use tokio::time::Instant;

/// How long a failure counts where the source does not say: one minute.
const DEFAULT_FAILURE_TTL: Duration = Duration::from_secs(60);

/// A value that cannot be refreshed is served for at least this long: ten minutes.
const MIN_STALE: Duration = Duration::from_secs(600);

/// A value that cannot be refreshed is served for this many TTLs.
const STALE_TTLS: u32 = 10;

/// A failing source is not asked again in the background sooner than this, whatever its TTLs: one second.
const MIN_RETRY: Duration = Duration::from_secs(1);

/// What a source's `ttl` and `failure_ttl` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caching {
    ttl: Ttl,
    failure_ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ttl {
    Forever,
    For(Duration),
    Never,
}

/// When a cached value gets old. Ages count from the start of the fetch: what a source said then, it may have changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// From here on the value is refreshed in the background, and served meanwhile.
    pub(crate) refresh_at: Instant,
    /// From here on it is not served any more. `None` where the clock cannot say so late a time.
    pub(crate) unusable_at: Option<Instant>,
}

impl Caching {
    pub(crate) fn of(source: &Source) -> Self {
        let ttl = match source.ttl {
            None => Ttl::Forever,
            Some(ttl) if ttl.is_zero() => Ttl::Forever,
            Some(ttl) => Duration::try_from(ttl).map_or(Ttl::Never, Ttl::For),
        };
        // Who asks for every use to be fetched does not want yesterday's failure either, unless they say so.
        let default = if ttl == Ttl::Never { Duration::ZERO } else { DEFAULT_FAILURE_TTL };
        Self { ttl, failure_ttl: source.failure_ttl.unwrap_or(default) }
    }

    pub(crate) fn keeps_values(self) -> bool {
        self.ttl != Ttl::Never
    }

    /// `None`: never.
    pub(crate) fn expiry(self, fetched: Instant) -> Option<Expiry> {
        let Ttl::For(ttl) = self.ttl else { return None };
        let refresh_at = fetched.checked_add(ttl)?;
        let max_stale = ttl.saturating_mul(STALE_TTLS).max(MIN_STALE);
        Some(Expiry { refresh_at, unusable_at: fetched.checked_add(max_stale) })
    }

    /// How long a failure is the answer where there is no value.
    pub(crate) fn failure_ttl(self) -> Duration {
        self.failure_ttl
    }

    /// How long after a failure the next refresh in the background waits, while the old value is served.
    pub(crate) fn retry_after(self) -> Duration {
        let half = match self.ttl {
            Ttl::For(ttl) => ttl / 2,
            Ttl::Forever | Ttl::Never => Duration::MAX,
        };
        half.min(self.failure_ttl).max(MIN_RETRY)
    }
}
