//! A database that is not there, or not now.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use keyferry_store::testing::TestDatabase;
use keyferry_store::{DatabaseUrl, Store, StoreError, sql};
use secrecy::SecretString;

use super::{SCHEMA, add_owner, texts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_and_comes_back_is_used_again() {
    let database = TestDatabase::postgres_alone();
    let cluster = database.cluster().expect("PostgreSQL");
    let store = database.open(&[SCHEMA]).await;
    add_owner(&store, "o1", "Ann").await.expect("inserts");
    let mut open = store.begin().await.expect("begins");
    open.execute(sql("INSERT INTO owners (id, name) VALUES ('o2', 'Bob')")).await.expect("inserts");

    cluster.stop();
    let commit = open.commit().await;
    assert!(matches!(commit, Err(StoreError::Unavailable { .. })), "{commit:?}");
    for _ in 0..2 {
        let read = store.fetch_all(sql("SELECT name FROM owners")).await.map(drop);
        assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    }
    let opened = Store::open(&database.url(), database.keys().clone(), &[SCHEMA]).await.map(drop);
    assert!(matches!(opened, Err(StoreError::Unavailable { .. })), "{opened:?}");

    cluster.resume();
    assert_eq!(texts(&store, sql("SELECT name FROM owners")).await, ["Ann"]);
    add_owner(&store, "o3", "Cyd").await.expect("inserts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_another_process_writes_to_is_a_conflict_after_a_while() {
    let database = TestDatabase::sqlite();
    let store = database.open(&[SCHEMA]).await;
    // Connections of their own, as another process has.
    let other = database.open(&[SCHEMA]).await;
    let held = other.begin().await.expect("begins");
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { add_owner(&store, "o1", "Ann").await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.commit().await.expect("commits");
    assert_eq!(waiting.await.expect("ends well"), Ok(1), "it waits its turn");

    let _held = other.begin().await.expect("begins");
    assert_eq!(add_owner(&store, "o2", "Bob").await, Err(StoreError::Conflict));
    assert_eq!(texts(&store, sql("SELECT name FROM owners")).await, ["Ann"], "reading does not wait");
}

#[tokio::test]
async fn a_database_file_is_its_owners_alone() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("keyferry.db");
    let keys = TestDatabase::sqlite().keys().clone();
    let store = Store::open(&DatabaseUrl::sqlite(&file), keys.clone(), &[SCHEMA]).await.expect("opens");
    add_owner(&store, "o1", "Ann").await.expect("inserts");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let entry = entry.expect("a file");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o7777;
        seen.push((entry.file_name().into_string().expect("text"), mode));
    }
    seen.sort();
    let expected = ["keyferry.db", "keyferry.db-shm", "keyferry.db-wal"].map(|name| (name.to_owned(), 0o600));
    assert_eq!(seen, expected);

    let missing = folder.path().join("nowhere/keyferry.db");
    let opened = Store::open(&DatabaseUrl::sqlite(&missing), keys.clone(), &[]).await.map(drop);
    assert!(matches!(opened, Err(StoreError::File { .. })), "{opened:?}");
    std::fs::write(
        folder.path().join("other.db"),
        "this is no database, but long enough to look at".repeat(100),
    )
    .expect("writes");
    let opened = Store::open(&DatabaseUrl::sqlite(folder.path().join("other.db")), keys, &[]).await.map(drop);
    assert!(matches!(opened, Err(StoreError::Failed { .. })), "{opened:?}");
}

#[test]
fn a_url_is_one_of_two_and_shows_no_password() {
    let parse = |text: &str| DatabaseUrl::parse(&SecretString::from(text));
    let postgres = parse("postgres://ann:sesame@db.example:6432/keyferry").expect("a URL");
    assert_eq!(format!("{postgres} {postgres:?}").matches("sesame").count(), 0);
    assert_eq!(postgres.to_string(), "postgres://db.example:6432/keyferry");
    assert_eq!(
        parse("sqlite:///var/lib/keyferry.db").expect("a URL").to_string(),
        "sqlite:/var/lib/keyferry.db"
    );
    for wrong in
        ["", "sqlite:", "sqlite::memory:", "sqlite:a?mode=ro", "mysql://sesame", "postgres://ann:sesame@[x/y"]
    {
        let error = parse(wrong).expect_err(wrong);
        assert!(matches!(error, StoreError::Url { .. }) && !error.to_string().contains("sesame"), "{error}");
    }
}
