use std::collections::VecDeque;

use jiff::SignedDuration;
use keyferry_config::document::{Source, SourceKind};
use tokio::time::{advance, sleep};

use super::*;
use crate::fetch::Fetching;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A source that takes a second and then says what the test wrote down for this turn; the last line is repeated.
struct Script {
    turns: Mutex<VecDeque<Turn>>,
    fetches: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum Turn {
    Gives(&'static str),
    Fails,
    Hangs,
    Panics,
}

use Turn::{Fails, Gives, Hangs, Panics};

impl Fetch for Script {
    fn fetch(&self) -> Fetching<'_> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let mut turns = self.turns.lock().unwrap();
        let turn = if turns.len() > 1 { turns.pop_front().unwrap() } else { turns[0] };
        Box::pin(async move {
            sleep(SECOND).await;
            match turn {
                Gives(text) => Ok(SecretString::from(text)),
                Fails => Err(failure()),
                Hangs => std::future::pending().await,
                Panics => panic!("a fetch that panics"),
            }
        })
    }
}

fn failure() -> SourceError {
    SourceError::EmptyFile { file: "scripted".into() }
}

struct Secret {
    handle: Arc<SecretHandle>,
    fetches: Arc<AtomicU64>,
}

impl Secret {
    /// `ttl` and `failure_ttl` in seconds.
    fn new(ttl: Option<i64>, failure_ttl: Option<u64>, turns: &[Turn]) -> Self {
        let fetches = Arc::new(AtomicU64::new(0));
        let script = Script { turns: Mutex::new(turns.iter().copied().collect()), fetches: fetches.clone() };
        let source = Source {
            kind: SourceKind::File { path: "scripted".into() },
            json_key: None,
            ttl: ttl.map(SignedDuration::from_secs),
            failure_ttl: failure_ttl.map(Duration::from_secs),
        };
        let (versions, counts) = (Arc::default(), Arc::default());
        Self {
            handle: SecretHandle::new(
                "scripted".into(),
                Box::new(script),
                Caching::of(&source),
                versions,
                counts,
            ),
            fetches,
        }
    }

    fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    fn current(&self) -> Option<String> {
        self.handle.current().map(|value| value.expose().to_owned())
    }

    async fn value(&self) -> Result<String, SourceError> {
        self.handle.value().await.map(|value| value.expose().to_owned())
    }

    async fn refresh(&self) -> Result<String, SourceError> {
        self.handle.refresh().await.map(|value| value.expose().to_owned())
    }
}

fn ok(text: &str) -> Result<String, SourceError> {
    Ok(text.to_owned())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn without_a_ttl_a_value_is_fetched_once_and_kept_for_ever() {
    for ttl in [None, Some(0)] {
        let secret = Secret::new(ttl, None, &[Gives("one"), Gives("two")]);
        assert_eq!((secret.current(), secret.fetches()), (None, 0));
        assert_eq!(secret.value().await, ok("one"));
        advance(MINUTE * 60 * 24 * 3650).await;
        assert_eq!(secret.current(), some("one"));
        assert_eq!(secret.value().await, ok("one"));
        assert_eq!(secret.fetches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn after_its_ttl_the_old_value_is_served_while_one_refresh_runs() {
    let secret = Secret::new(Some(60), None, &[Gives("one"), Gives("two")]);
    assert_eq!(secret.value().await, ok("one"));
    advance(58 * SECOND).await;
    assert_eq!((secret.current(), secret.fetches()), (some("one"), 1));

    // 60 seconds after the first fetch began
    advance(SECOND).await;
    for _ in 0..100 {
        assert_eq!(secret.current(), some("one"));
        assert_eq!(secret.value().await, ok("one"), "never waits");
    }
    sleep(SECOND / 2).await;
    assert_eq!((secret.current(), secret.fetches()), (some("one"), 2));
    sleep(SECOND).await;
    assert_eq!((secret.current(), secret.fetches()), (some("two"), 2));

    // and the new value is fresh for as long again
    sleep(57 * SECOND).await;
    assert_eq!((secret.current(), secret.fetches()), (some("two"), 2));
    sleep(2 * SECOND).await;
    assert_eq!(secret.current(), some("two"));
    sleep(SECOND / 2).await;
    assert_eq!(secret.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_refreshed_is_served_up_to_the_age_limit() {
    // ten minutes, or ten times the ttl where that is more
    for (ttl, limit) in [(6, 10 * MINUTE), (60, 10 * MINUTE), (120, 20 * MINUTE), (3600, 600 * MINUTE)] {
        let secret = Secret::new(Some(ttl), None, &[Gives("one"), Fails]);
        assert_eq!(secret.value().await, ok("one"));
        let fetched = Instant::now() - SECOND;
        tokio::time::sleep_until(fetched + limit - SECOND / 10).await;
        assert_eq!(secret.current(), some("one"), "ttl {ttl}");
        tokio::time::sleep_until(fetched + limit).await;
        assert_eq!(secret.current(), None, "ttl {ttl}");
        assert_eq!(secret.value().await, Err(failure()), "ttl {ttl}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_tried_again_after_a_while_and_not_by_every_request() {
    // half the ttl, but no later than the failure counts
    for (ttl, failure_ttl, retries) in [(20, None, 6), (3600, None, 1), (3600, Some(20), 3)] {
        let secret = Secret::new(Some(ttl), failure_ttl, &[Gives("one"), Fails]);
        assert_eq!(secret.value().await, ok("one"));
        sleep(SECOND * u32::try_from(ttl).unwrap()).await;
        for _ in 0..600 {
            assert_eq!(secret.current(), some("one"));
            sleep(SECOND / 10).await;
        }
        assert_eq!(secret.fetches() - 1, retries, "ttl {ttl}, failure_ttl {failure_ttl:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_recovers_is_back_without_anyone_waiting() {
    let secret = Secret::new(Some(60), None, &[Gives("one"), Fails, Gives("two")]);
    assert_eq!(secret.value().await, ok("one"));
    sleep(MINUTE).await;
    assert_eq!(secret.current(), some("one"));
    sleep(32 * SECOND).await;
    assert_eq!(secret.current(), some("one"));
    sleep(2 * SECOND).await;
    assert_eq!(secret.current(), some("two"));
}

#[tokio::test(start_paused = true)]
async fn with_a_negative_ttl_nothing_is_kept() {
    let secret = Secret::new(Some(-1), None, &[Gives("one"), Gives("two"), Fails, Gives("three")]);
    assert_eq!((secret.value().await, secret.current()), (ok("one"), None));
    assert_eq!((secret.value().await, secret.current()), (ok("two"), None));
    assert_eq!((secret.value().await, secret.current()), (Err(failure()), None));
    assert_eq!((secret.value().await, secret.current()), (ok("three"), None));
    assert_eq!(secret.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn with_a_negative_ttl_an_unchanged_value_is_held_once_however_often_it_is_fetched() {
    let secret = Secret::new(Some(-1), None, &[Gives("one")]);
    for _ in 0..10 {
        secret.value().await.unwrap();
    }
    assert_eq!((secret.fetches(), secret.handle.live().len()), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_any_success_counts_for_its_ttl() {
    for (failure_ttl, lasts) in [(None, MINUTE), (Some(5), 5 * SECOND)] {
        let secret = Secret::new(None, failure_ttl, &[Fails, Gives("one")]);
        assert_eq!(secret.value().await, Err(failure()));
        sleep(lasts - SECOND / 10).await;
        assert_eq!((secret.value().await, secret.fetches()), (Err(failure()), 1));
        sleep(SECOND / 10).await;
        assert_eq!((secret.value().await, secret.fetches()), (ok("one"), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_ttl_of_zero_counts_no_failure() {
    let secret = Secret::new(None, Some(0), &[Fails, Fails, Gives("one")]);
    assert_eq!(secret.value().await, Err(failure()));
    assert_eq!(secret.value().await, Err(failure()));
    assert_eq!(secret.value().await, ok("one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_callers_share_one_fetch() {
    for ttl in [None, Some(3600), Some(-1)] {
        let secret = Secret::new(ttl, None, &[Gives("one"), Gives("two")]);
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let handle = secret.handle.clone();
                tokio::spawn(async move { handle.value().await.unwrap() })
            })
            .collect();
        let mut values = Vec::new();
        for caller in callers {
            values.push(caller.await.unwrap());
        }
        assert!(values.iter().all(|value| value.expose() == "one" && Arc::ptr_eq(value, &values[0])));
        assert_eq!(secret.fetches(), 1);
    }
}

#[test]
fn a_fetch_that_lands_while_a_caller_arrives_is_not_repeated() {
    let secret = Secret::new(None, None, &[Gives("two")]);
    // Given a caller that has found no value and is about to look for a fetch
    let held = secret.handle.progress();
    let caller = std::thread::spawn({
        let handle = secret.handle.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        move || runtime.block_on(handle.value()).map(|value| value.expose().to_owned())
    });
    std::thread::sleep(Duration::from_millis(100));
    // When somebody else's fetch lands at this moment
    let value = Arc::new(SecretValue::new(SecretString::from("one"), 1));
    secret.handle.kept.store(Some(Arc::new(Kept { value, expiry: None })));
    drop(held);
    // Then the caller takes that
    assert_eq!(caller.join().unwrap(), ok("one"));
    assert_eq!(secret.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_share_one_failure() {
    let secret = Secret::new(None, Some(0), &[Fails, Gives("one")]);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let handle = secret.handle.clone();
            tokio::spawn(async move { handle.value().await.unwrap_err() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), failure());
    }
    assert_eq!(secret.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_interrupts_nobody() {
    let secret = Secret::new(None, None, &[Gives("one"), Gives("two")]);
    let first = tokio::spawn({
        let handle = secret.handle.clone();
        async move { handle.value().await }
    });
    sleep(SECOND / 2).await;
    let second = tokio::spawn({
        let handle = secret.handle.clone();
        async move { handle.value().await }
    });
    tokio::task::yield_now().await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap().expose(), "one");
    assert_eq!(secret.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_everybody_has_left_still_brings_the_value() {
    let secret = Secret::new(None, None, &[Gives("one")]);
    assert!(timeout(SECOND / 10, secret.value()).await.is_err());
    assert_eq!(secret.current(), None);
    sleep(SECOND).await;
    assert_eq!((secret.current(), secret.fetches()), (some("one"), 1));
}

#[tokio::test(start_paused = true)]
async fn t57_a_source_that_hangs_is_given_up_on_after_thirty_seconds() {
    let secret = Secret::new(None, Some(0), &[Hangs, Gives("one")]);
    let started = Instant::now();
    let timed_out = SourceError::Timeout { name: "scripted".into(), limit: Duration::from_secs(30) };
    assert_eq!(secret.value().await, Err(timed_out));
    assert_eq!(started.elapsed().as_secs(), 30);
    assert_eq!(secret.value().await, ok("one"));
}

#[tokio::test(start_paused = true)]
async fn t57_a_hanging_refresh_holds_up_nobody() {
    let secret = Secret::new(Some(60), None, &[Gives("one"), Hangs]);
    assert_eq!(secret.value().await, ok("one"));
    sleep(MINUTE).await;
    let started = Instant::now();
    assert_eq!(secret.value().await, ok("one"));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_is_an_error_and_the_next_one_may_succeed() {
    let secret = Secret::new(None, None, &[Panics, Gives("one")]);
    assert_eq!(secret.value().await, Err(SourceError::Interrupted { name: "scripted".into() }));
    assert_eq!(secret.value().await, ok("one"));
}

#[tokio::test(start_paused = true)]
async fn t58_refresh_fetches_whatever_is_kept() {
    let secret = Secret::new(None, None, &[Gives("one"), Gives("two")]);
    assert_eq!(secret.value().await, ok("one"));
    let refreshing = tokio::spawn({
        let handle = secret.handle.clone();
        async move { handle.refresh().await.map(|value| value.expose().to_owned()) }
    });
    sleep(SECOND / 2).await;
    assert_eq!(secret.current(), some("one"), "meanwhile the old value is there");
    assert_eq!(refreshing.await.unwrap(), ok("two"));
    assert_eq!((secret.current(), secret.fetches()), (some("two"), 2));
}

#[tokio::test(start_paused = true)]
async fn t58_refreshes_at_the_same_time_share_one_fetch() {
    let secret = Secret::new(None, None, &[Gives("one"), Gives("two"), Gives("three")]);
    assert_eq!(secret.value().await, ok("one"));
    let (a, b, c) = tokio::join!(secret.refresh(), secret.refresh(), secret.refresh());
    assert_eq!([a, b, c], [ok("two"), ok("two"), ok("two")]);
    assert_eq!(secret.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn t58_a_failed_refresh_leaves_the_value_in_place() {
    let secret = Secret::new(None, None, &[Gives("one"), Fails]);
    assert_eq!(secret.value().await, ok("one"));
    assert_eq!(secret.refresh().await, Err(failure()));
    assert_eq!((secret.current(), secret.value().await), (some("one"), ok("one")));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_even_where_a_failure_still_counts() {
    let secret = Secret::new(None, None, &[Fails, Gives("one")]);
    assert_eq!(secret.value().await, Err(failure()));
    assert_eq!(secret.refresh().await, ok("one"));
}

#[tokio::test(start_paused = true)]
async fn t58_a_version_stands_for_one_value() {
    let secret = Secret::new(None, None, &[Gives("one"), Gives("one"), Gives("two"), Gives("one")]);
    let first = secret.handle.value().await.unwrap();
    let same = secret.handle.refresh().await.unwrap();
    let other = secret.handle.refresh().await.unwrap();
    let back = secret.handle.refresh().await.unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    assert_eq!(
        [&first, &other, &back].map(|value| (value.expose(), value.version())),
        [("one", 1), ("two", 2), ("one", 3)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_fresh_value_is_read_without_a_lock() {
    for ttl in [None, Some(60)] {
        let secret = Secret::new(ttl, None, &[Gives("one")]);
        assert_eq!(secret.value().await, ok("one"));
        let held = secret.handle.progress();
        assert_eq!(secret.current(), some("one"));
        drop(held);
    }
}

#[test]
fn a_value_that_is_due_can_be_read_where_no_runtime_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let secret = Secret::new(Some(1), None, &[Gives("one"), Gives("two")]);
    assert_eq!(runtime.block_on(secret.value()), ok("one"));
    drop(runtime);
    // The fetch took a second and its age counts from its start.
    assert_eq!((secret.current(), secret.fetches()), (some("one"), 1));
}

#[tokio::test(start_paused = true)]
async fn t46_nothing_that_can_be_printed_holds_the_value() {
    let secret = Secret::new(None, None, &[Gives("canary")]);
    let value = secret.handle.value().await.unwrap();
    assert_eq!(format!("{value:?}"), "SecretValue { version: 1, .. }");
    assert_eq!(format!("{:?}", secret.handle), "SecretHandle { name: \"scripted\", version: Some(1), .. }");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_replaced_stays_live_for_ten_minutes() {
    let secret = Secret::new(None, None, &[Gives("first"), Gives("first"), Gives("second"), Gives("third")]);
    let live = || secret.handle.live().iter().map(|value| value.expose().to_owned()).collect::<Vec<_>>();
    assert_eq!((live(), secret.handle.latest()), (vec![], 0));

    secret.value().await.unwrap();
    let first = secret.handle.latest();
    secret.refresh().await.unwrap();
    assert_eq!(
        (live(), secret.handle.latest()),
        (vec!["first".to_owned()], first),
        "an unchanged value is the same"
    );

    secret.refresh().await.unwrap();
    assert_eq!(live(), ["first", "second"]);
    assert!(secret.handle.latest() > first);

    advance(LIVE_AFTER_ROTATION).await;
    secret.refresh().await.unwrap();
    assert_eq!(live(), ["second", "third"]);
}

#[tokio::test(start_paused = true)]
async fn t58_a_refusal_asks_the_source_once_in_five_seconds_for_all_who_were_refused() {
    let secret = Secret::new(None, None, &[Gives("one"), Gives("one"), Gives("two")]);
    let first = secret.handle.value().await.unwrap().version();

    // What the source still says is no reason to try again, and asking it again at once is none either.
    assert!(!secret.handle.is_outdated(first).await);
    assert!(!secret.handle.is_outdated(first).await);
    assert_eq!(secret.fetches.load(Ordering::Relaxed), 2);

    advance(5 * SECOND).await;
    let [one, other] = [(); 2].map(|()| secret.handle.is_outdated(first));
    assert_eq!(tokio::join!(one, other), (true, true));
    assert_eq!(secret.fetches.load(Ordering::Relaxed), 3);
    assert_eq!(secret.handle.current().unwrap().expose(), "two");
    // Who was refused with the old value needs no fetch to know.
    assert!(secret.handle.is_outdated(first).await);
    assert_eq!(secret.fetches.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn t58_a_source_that_fails_after_a_refusal_leaves_the_value_in_place() {
    let secret = Secret::new(None, None, &[Gives("one"), Fails]);
    let first = secret.handle.value().await.unwrap().version();

    assert!(!secret.handle.is_outdated(first).await);
    assert_eq!(secret.handle.current().unwrap().expose(), "one");
}
