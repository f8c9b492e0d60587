//! The registry, with real variables (handed in) and real files.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use keyferry_config::document::{Source, SourceKind};
use keyferry_source::{Environment, SecretHandle, SourceError, Sources};
use tokio::time::{Instant, sleep};

fn env(var: &str) -> Source {
    Source { kind: SourceKind::Env { var: var.into() }, json_key: None, ttl: None, failure_ttl: None }
}

fn file(path: &Path) -> Source {
    Source { kind: SourceKind::File { path: path.into() }, json_key: None, ttl: None, failure_ttl: None }
}

fn nothing() -> Environment {
    Environment::of::<&str, &str>([])
}

async fn value(handle: &SecretHandle) -> Result<String, SourceError> {
    handle.value().await.map(|value| value.expose().to_owned())
}

#[tokio::test]
async fn equal_sources_share_one_handle_and_one_fetch() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let sources = Sources::new(Environment::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Some("sk-1".into())
    }));
    let handles: Vec<_> = (0..5).map(|_| sources.get(&env("TOKEN"))).collect();
    for handle in &handles {
        assert!(Arc::ptr_eq(handle, &handles[0]));
        assert_eq!(value(handle).await, Ok("sk-1".into()));
    }
    assert_eq!(lookups.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn sources_that_differ_in_anything_do_not_share() {
    let sources = Sources::new(nothing());
    let plain = file(Path::new("/run/token"));
    let others = [
        file(Path::new("/run/other")),
        env("/run/token"),
        Source { json_key: Some("key".into()), ..plain.clone() },
        Source { ttl: Some(SignedDuration::from_secs(60)), ..plain.clone() },
        Source { failure_ttl: Some(Duration::from_secs(60)), ..plain.clone() },
    ];
    let handle = sources.get(&plain);
    for other in others {
        assert!(!Arc::ptr_eq(&handle, &sources.get(&other)), "{other:?}");
    }
    assert_eq!(handle.name(), "/run/token");
}

#[tokio::test]
async fn a_handle_is_kept_over_a_reload_and_dropped_when_nobody_uses_it() {
    let sources = Sources::new(Environment::of([("A", "a"), ("B", "b")]));
    let (a, b) = (sources.get(&env("A")), sources.get(&env("B")));
    assert_eq!((value(&a).await, value(&b).await), (Ok("a".into()), Ok("b".into())));

    // When a reload still uses A, and B no longer
    let (kept, dropped) = (sources.get(&env("A")), Arc::downgrade(&b));
    drop((a, b));
    sources.retain_used();

    // Then A's value is still there, and B's is gone from memory
    assert_eq!(kept.current().map(|value| value.expose().to_owned()), Some("a".into()));
    assert!(Arc::ptr_eq(&kept, &sources.get(&env("A"))));
    assert!(dropped.upgrade().is_none());
    assert!(sources.get(&env("B")).current().is_none());
}

#[tokio::test]
async fn t58_versions_are_never_used_twice_not_even_for_a_handle_made_anew() {
    let sources = Sources::new(Environment::of([("A", "a"), ("B", "b")]));
    let mut versions = Vec::new();
    for var in ["A", "B", "A"] {
        versions.push(sources.get(&env(var)).value().await.unwrap().version());
        sources.retain_used();
    }
    assert_eq!(versions, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_file_with_a_ttl_is_read_again_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let sources = Sources::new(nothing());
    let handle = sources.get(&Source { ttl: Some(SignedDuration::from_secs(30)), ..file(&path) });
    assert_eq!(value(&handle).await, Ok("one\n".into()));

    std::fs::write(&path, "two\n").unwrap();
    sleep(Duration::from_secs(29)).await;
    assert_eq!(value(&handle).await, Ok("one\n".into()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(value(&handle).await, Ok("one\n".into()));
    // Reading takes real time, which a paused clock does not wait for.
    let asked = Instant::now();
    while value(&handle).await != Ok("two\n".into()) {
        assert!(asked.elapsed() < Duration::from_secs(20), "never refreshed");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn t58_a_file_without_a_ttl_is_read_again_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one").unwrap();
    let sources = Sources::new(nothing());
    let handle = sources.get(&file(&path));
    assert_eq!(value(&handle).await, Ok("one".into()));

    std::fs::write(&path, "two").unwrap();
    assert_eq!(value(&handle).await, Ok("one".into()));
    assert_eq!(handle.refresh().await.unwrap().expose(), "two");
    assert_eq!(value(&handle).await, Ok("two".into()));
}

#[tokio::test]
async fn refreshing_all_brings_what_is_new_and_tells_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad] = ["good", "bad"].map(|name| folder.path().join(name));
    std::fs::write(&good, "one").unwrap();
    std::fs::write(&bad, "kept").unwrap();
    let sources = Sources::new(Environment::of([("TOKEN", "sk-1")]));
    let (of_good, of_bad, of_env) =
        (sources.get(&file(&good)), sources.get(&file(&bad)), sources.get(&env("TOKEN")));
    for handle in [&of_good, &of_bad, &of_env] {
        handle.value().await.unwrap();
    }

    std::fs::write(&good, "two").unwrap();
    std::fs::write(&bad, "").unwrap();
    let failures = sources.refresh_all().await;

    assert_eq!(failures, [SourceError::EmptyFile { file: bad.display().to_string() }]);
    assert_eq!(value(&of_good).await, Ok("two".into()));
    assert_eq!(value(&of_bad).await, Ok("kept".into()));
    assert_eq!(value(&of_env).await, Ok("sk-1".into()));
}

#[tokio::test]
async fn t46_debug_output_of_everything_is_free_of_values() {
    let environment = Environment::of([("TOKEN", "canary")]);
    let sources = Sources::new(environment.clone());
    sources.get(&env("TOKEN")).value().await.unwrap();
    let printed = format!("{sources:?} {environment:?}");
    assert!(printed.contains("TOKEN") && !printed.contains("canary"), "{printed}");
}
