//! What others hear of a commit.

use std::time::Duration;

use keyferry_store::testing::TestDatabase;
use keyferry_store::{
    Change, Changes, Dialect, Heard, MAX_PAYLOAD_BYTES, Store, StoreError, on_both_databases,
};
use tokio::time::timeout;

use super::SCHEMA;

async fn announce(store: &Store, channel: &'static str, payload: &str) {
    let mut transaction = store.begin().await.expect("begins");
    transaction.announce(channel, payload).await.expect("announces");
    transaction.commit().await.expect("commits");
}

async fn next(changes: &mut Changes) -> Heard {
    timeout(Duration::from_secs(20), changes.next()).await.expect("hears something")
}

fn heard(channel: &str, payload: &str) -> Heard {
    Heard::Change(Change { channel: channel.to_owned(), payload: payload.to_owned() })
}

on_both_databases! {
    async fn what_is_committed_is_heard_and_nothing_else(database) {
        let store = database.open(&[SCHEMA]).await;
        // Another replica; SQLite has one process, so there it is the same one.
        let other = match database.dialect() {
            Dialect::Sqlite => store.clone(),
            Dialect::Postgres => database.open(&[SCHEMA]).await,
        };
        let mut here = store.changes(&["grants"]).await.expect("listens");
        let mut there = other.changes(&["grants", "rules"]).await.expect("listens");

        let mut undone = store.begin().await.expect("begins");
        undone.announce("grants", "undone").await.expect("announces");
        undone.roll_back().await.expect("rolls back");
        announce(&store, "other", "x").await;
        announce(&store, "rules", "a\nb").await;
        announce(&store, "grants", "").await;

        assert_eq!(next(&mut here).await, heard("grants", ""));
        assert_eq!(next(&mut there).await, heard("rules", "a\nb"));
        assert_eq!(next(&mut there).await, heard("grants", ""));
    }

    async fn a_listener_that_is_slow_is_told_so(database) {
        let store = database.open(&[SCHEMA]).await;
        let mut changes = store.changes(&["grants"]).await.expect("listens");
        let mut transaction = store.begin().await.expect("begins");
        for number in 0..5_000 {
            transaction.announce("grants", &number.to_string()).await.expect("announces");
        }
        transaction.commit().await.expect("commits");
        // Where they come over a connection, they need a moment.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(next(&mut changes).await, Heard::Missed);
    }

    async fn a_payload_has_a_limit_on_both(database) {
        let store = database.open(&[SCHEMA]).await;
        let mut changes = store.changes(&["grants"]).await.expect("listens");
        announce(&store, "grants", &"x".repeat(MAX_PAYLOAD_BYTES)).await;
        assert_eq!(next(&mut changes).await, heard("grants", &"x".repeat(MAX_PAYLOAD_BYTES)));
        let mut transaction = store.begin().await.expect("begins");
        let too_long = transaction.announce("grants", &"x".repeat(MAX_PAYLOAD_BYTES + 1)).await;
        assert_eq!(too_long, Err(StoreError::ChangeTooLong { channel: "grants" }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_whose_connection_was_lost_is_told_so_and_hears_again() {
    let database = TestDatabase::postgres_alone();
    let store = database.open(&[SCHEMA]).await;
    let mut changes = store.changes(&["grants"]).await.expect("listens");
    let cluster = database.cluster().expect("PostgreSQL");
    cluster.stop();
    cluster.resume();
    assert_eq!(next(&mut changes).await, Heard::Missed);
    announce(&store, "grants", "after").await;
    assert_eq!(next(&mut changes).await, heard("grants", "after"));
}
