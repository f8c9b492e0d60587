//! From one release to the next.

use keyferry_store::{Migration, Schema, Sql, Store, StoreError, on_both_databases, sql};

use super::{SCHEMA, add_owner, texts};

const fn schema(migrations: &'static [Migration]) -> Schema {
    Schema { name: "example", migrations, sealed: &[] }
}

const OTHER: Schema = Schema { name: "other", ..SCHEMA };

const FIRST: Migration = Migration { name: "first", sql: Sql::Both("CREATE TABLE a (name TEXT)") };
const SECOND: Migration =
    Migration { name: "second", sql: Sql::Both("CREATE TABLE b (name TEXT); INSERT INTO b VALUES ('x')") };

on_both_databases! {
    async fn what_is_missing_is_applied_once(database) {
        database.open(&[schema(&[FIRST])]).await.close().await;
        database.open(&[schema(&[FIRST, SECOND]), OTHER]).await.close().await;
        let store = database.open(&[schema(&[FIRST, SECOND])]).await;
        assert_eq!(texts(&store, sql("SELECT name FROM b")).await, ["x"]);
    }

    async fn what_was_applied_and_has_changed_since_is_refused(database) {
        database.open(&[schema(&[FIRST])]).await.close().await;
        const CHANGED: Migration =
            Migration { name: "first", sql: Sql::Both("CREATE TABLE a (name TEXT NOT NULL)") };
        let opened = Store::open(&database.url(), database.keys().clone(), &[schema(&[CHANGED])]).await;
        let error = StoreError::Migration {
            schema: "example".to_owned(),
            position: 1,
            name: "first".to_owned(),
            difference: "was applied in another form",
        };
        assert_eq!(opened.map(drop), Err(error));
    }

    async fn a_database_of_a_newer_release_is_refused(database) {
        database.open(&[schema(&[FIRST, SECOND])]).await.close().await;
        let opened = Store::open(&database.url(), database.keys().clone(), &[schema(&[FIRST])]).await;
        let error = StoreError::Migration {
            schema: "example".to_owned(),
            position: 2,
            name: "second".to_owned(),
            difference: "is of a newer release",
        };
        assert_eq!(opened.map(drop), Err(error));
    }

    async fn one_that_fails_leaves_nothing_of_all_of_them(database) {
        const BROKEN: Migration = Migration {
            name: "broken",
            sql: Sql::Both("CREATE TABLE c (name TEXT); INSERT INTO nothing VALUES (1)"),
        };
        let opened = Store::open(&database.url(), database.keys().clone(), &[schema(&[FIRST, SECOND, BROKEN])]).await;
        assert!(
            matches!(opened, Err(StoreError::MigrationFailed { schema: "example", name: "broken", .. })),
            "{opened:?}"
        );
        // None of the tables is there: creating them does not fail.
        let store = database.open(&[schema(&[FIRST, SECOND])]).await;
        assert_eq!(texts(&store, sql("SELECT name FROM b")).await, ["x"]);
    }

    async fn started_at_once_they_find_it_done(database) {
        let starts = (0..6).map(|_| {
            let (url, keys) = (database.url(), database.keys().clone());
            tokio::spawn(async move { Store::open(&url, keys, &[schema(&[FIRST, SECOND]), OTHER]).await.map(drop) })
        });
        for start in starts.collect::<Vec<_>>() {
            assert_eq!(start.await.expect("ends well"), Ok(()));
        }
        let store = database.open(&[schema(&[FIRST, SECOND]), OTHER]).await;
        assert_eq!(texts(&store, sql("SELECT name FROM b")).await, ["x"]);
        add_owner(&store, "o1", "Ann").await.expect("inserts");
    }
}
