//! Statements, transactions and their errors.

use keyferry_store::{Dialect, Reader, StoreError, on_both_databases, sql};

use super::{SCHEMA, add_owner, add_secret, texts};

on_both_databases! {
    async fn what_is_committed_is_read_with_its_types(database) {
        let store = database.open(&[SCHEMA]).await;
        let mut transaction = store.begin().await.expect("begins");
        let owner = sql("INSERT INTO owners (id, name) VALUES ($1, $2)").bind("o1").bind("Ann");
        assert_eq!(transaction.execute(owner).await, Ok(1));
        let insert = sql(
            "INSERT INTO secrets (id, owner, name, priority, enabled, ratio, value) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
        );
        let insert = insert.bind("s1").bind("o1").bind("token").bind(i64::MAX).bind(false).bind(0.25);
        let inserted = transaction.fetch_one(insert.bind(&b"\0\xff"[..])).await.expect("inserts");
        assert_eq!(inserted.get::<String>("id"), Ok("s1".to_owned()));
        assert_eq!(texts(&store, sql("SELECT name FROM secrets")).await, [""; 0], "not before the commit");
        transaction.commit().await.expect("commits");

        let row = store.fetch_one(sql("SELECT * FROM secrets WHERE id = $1").bind("s1")).await.expect("reads");
        assert_eq!(row.get::<i64>("priority"), Ok(i64::MAX));
        assert_eq!(row.get::<bool>("enabled"), Ok(false));
        assert_eq!(row.get::<Option<f64>>("ratio"), Ok(Some(0.25)));
        assert_eq!(row.get::<Option<Vec<u8>>>("value"), Ok(Some(b"\0\xff".to_vec())));
        assert!(matches!(row.get::<i64>("name"), Err(StoreError::Column { column, .. }) if column == "name"));
        assert!(matches!(row.get::<i64>("nothing"), Err(StoreError::Column { .. })));
        let nobody = store.fetch_one(sql("SELECT id FROM secrets WHERE id = $1").bind("s2")).await;
        assert_eq!(nobody.map(drop), Err(StoreError::NoRow));
    }

    async fn null_is_none_of_any_type(database) {
        let store = database.open(&[SCHEMA]).await;
        add_owner(&store, "o1", "Ann").await.expect("inserts");
        let insert = sql("INSERT INTO secrets (id, owner, name, ratio, value) VALUES ('s1', 'o1', 'a', $1, $2)");
        store.execute(insert.bind(None::<f64>).bind(None::<Vec<u8>>)).await.expect("inserts");
        let row = store.fetch_one(sql("SELECT ratio, value FROM secrets")).await.expect("reads");
        assert_eq!(row.get::<Option<f64>>("ratio"), Ok(None));
        assert_eq!(row.get::<Option<Vec<u8>>>("value"), Ok(None));
        assert!(row.sealed_if_any("value").expect("reads").is_none());
        assert!(row.get::<f64>("ratio").is_err());
    }

    async fn what_is_dropped_has_not_happened(database) {
        let store = database.open(&[SCHEMA]).await;
        let mut transaction = store.begin().await.expect("begins");
        transaction.execute(sql("INSERT INTO owners (id, name) VALUES ('o1', 'Ann')")).await.expect("inserts");
        drop(transaction);
        let mut transaction = store.begin().await.expect("begins");
        transaction.execute(sql("INSERT INTO owners (id, name) VALUES ('o2', 'Bob')")).await.expect("inserts");
        transaction.roll_back().await.expect("rolls back");
        assert_eq!(texts(&store, sql("SELECT name FROM owners")).await, [""; 0]);
    }

    async fn errors_tell_what_to_do_apart(database) {
        let store = database.open(&[SCHEMA]).await;
        add_owner(&store, "o1", "Ann").await.expect("inserts");
        add_secret(&store, "s1", "o1", "a").await.expect("inserts");
        let duplicate = |constraint: &str| Err(StoreError::Duplicate { constraint: constraint.to_owned() });
        assert_eq!(add_owner(&store, "o1", "Bob").await, duplicate("owners_pkey"));
        assert_eq!(add_owner(&store, "o2", "Ann").await, duplicate("owners_name_key"));
        assert_eq!(add_secret(&store, "s2", "o1", "a").await, duplicate("secrets_owner_name_key"));
        add_secret(&store, "s3", "o1", "A").await.expect("inserts");
        let prefer = store.execute(sql("UPDATE secrets SET priority = 1")).await;
        assert_eq!(prefer, duplicate("secrets_lower_name_key"));
        assert_eq!(add_secret(&store, "s2", "nobody", "a").await, Err(StoreError::Reference));
        assert!(matches!(add_secret(&store, "s2", "o1", "").await, Err(StoreError::Refused { .. })));
        let nonsense = store.execute(sql("DELETE FROM nothing")).await;
        assert!(matches!(nonsense, Err(StoreError::Failed { .. })), "{nonsense:?}");
    }

    async fn an_error_never_shows_a_bound_value(database) {
        let store = database.open(&[SCHEMA]).await;
        add_owner(&store, "o1", "canary-7f3").await.expect("inserts");
        let errors = [
            add_owner(&store, "o2", "canary-7f3").await,
            add_secret(&store, "s1", "canary-7f3", "a").await,
            store.execute(sql("INSERT INTO owners (id, name) VALUES ($1, NULL)").bind("canary-7f3")).await,
            store.execute(sql("INSERT INTO nothing (id) VALUES ($1)").bind("canary-7f3")).await,
        ];
        for error in errors {
            let error = error.expect_err("each is wrong");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }

    async fn text_is_data_whatever_it_looks_like(database) {
        let store = database.open(&[SCHEMA]).await;
        for (index, name) in ["'; DROP TABLE owners; --", "\u{202e}\"$1\"", "= ANY($1)", "<b>&amp;"].iter().enumerate() {
            add_owner(&store, &format!("o{index}"), name).await.expect("inserts");
            let found = texts(&store, sql("SELECT name FROM owners WHERE name = $1").bind(*name)).await;
            assert_eq!(found, [*name]);
        }
    }

    async fn a_list_is_one_parameter(database) {
        let store = database.open(&[SCHEMA]).await;
        for (id, name) in [("o1", "Ann"), ("o2", "Bo\"b"), ("o3", "Cyd")] {
            add_owner(&store, id, name).await.expect("inserts");
        }
        let of = |ids: Vec<String>| {
            sql("SELECT name FROM owners WHERE id = ANY($1) AND name <> $2 ORDER BY name").bind(ids).bind("Cyd")
        };
        let both = vec!["o1".to_owned(), "o2".to_owned(), "o3".to_owned(), "o9".to_owned()];
        assert_eq!(texts(&store, of(both)).await, ["Ann", "Bo\"b"]);
        assert_eq!(texts(&store, of(Vec::new())).await, [""; 0]);
        let many = (0..50_000).map(|number| format!("o{number}")).collect();
        assert_eq!(texts(&store, of(many)).await, ["Ann", "Bo\"b"], "more than either database has parameters");
        let lengths = sql("SELECT name FROM owners WHERE length(name) = ANY($1) ORDER BY name").bind(vec![4_i64, 5]);
        assert_eq!(texts(&store, lengths).await, ["Bo\"b"]);
    }

    async fn an_upsert_is_written_once(database) {
        let store = database.open(&[SCHEMA]).await;
        for name in ["Ann", "Anna"] {
            let upsert = sql(
                "INSERT INTO owners (id, name) VALUES ($1, $2) \
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING name",
            );
            let mut transaction = store.begin().await.expect("begins");
            let row = transaction.fetch_one(upsert.bind("o1").bind(name)).await.expect("upserts");
            assert_eq!(row.get::<String>("name"), Ok(name.to_owned()));
            transaction.commit().await.expect("commits");
        }
        assert_eq!(texts(&store, sql("SELECT name FROM owners")).await, ["Anna"]);
    }

    async fn a_lock_makes_read_and_write_one_step(database) {
        let store = database.open(&[SCHEMA]).await;
        add_owner(&store, "o1", "Ann").await.expect("inserts");
        add_secret(&store, "s1", "o1", "counter").await.expect("inserts");
        let workers = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let mut transaction = store.begin().await.expect("begins");
                    transaction.lock("counter").await.expect("is locked");
                    let row = transaction.fetch_one(sql("SELECT priority FROM secrets")).await.expect("reads");
                    let next = row.get::<i64>("priority").expect("a number") + 1;
                    transaction.execute(sql("UPDATE secrets SET priority = $1").bind(next)).await.expect("writes");
                    transaction.commit().await.expect("commits");
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.expect("ends well");
        }
        let row = store.fetch_one(sql("SELECT priority FROM secrets")).await.expect("reads");
        assert_eq!(row.get::<i64>("priority"), Ok(80));
    }

    async fn of_two_that_cannot_both_have_run_alone_one_gives_way(database) {
        // Each may disable a secret only while the other one is enabled.
        let store = database.open(&[SCHEMA]).await;
        add_owner(&store, "o1", "Ann").await.expect("inserts");
        for id in ["s1", "s2"] {
            add_secret(&store, id, "o1", id).await.expect("inserts");
        }
        let disable = |id: &'static str| {
            let store = store.clone();
            async move {
                loop {
                    let attempt = async {
                        let mut transaction = store.begin_serializable().await?;
                        let enabled = transaction.fetch_all(sql("SELECT id FROM secrets WHERE enabled")).await?.len();
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        if enabled == 2 {
                            let update = sql("UPDATE secrets SET enabled = FALSE WHERE id = $1");
                            transaction.execute(update.bind(id)).await?;
                        }
                        transaction.commit().await
                    };
                    match attempt.await {
                        Err(StoreError::Conflict) => continue,
                        outcome => return outcome,
                    }
                }
            }
        };
        let (first, second) = tokio::join!(disable("s1"), disable("s2"));
        assert_eq!((first, second), (Ok(()), Ok(())));
        assert_eq!(texts(&store, sql("SELECT name FROM secrets WHERE enabled")).await.len(), 1);
    }

    async fn a_snapshot_sees_one_moment(database) {
        let store = database.open(&[SCHEMA]).await;
        add_owner(&store, "o1", "Ann").await.expect("inserts");
        let mut snapshot = store.snapshot().await.expect("begins");
        let count = || sql("SELECT id FROM owners");
        assert_eq!(snapshot.fetch_all(count()).await.expect("reads").len(), 1);
        add_owner(&store, "o2", "Bob").await.expect("inserts");
        assert_eq!(snapshot.fetch_all(count()).await.expect("reads").len(), 1);
        let write = snapshot.fetch_all(sql("DELETE FROM owners RETURNING id")).await;
        assert!(write.is_err(), "a snapshot reads");
        drop(snapshot);
        assert_eq!(store.fetch_all(count()).await.expect("reads").len(), 2);
    }

    async fn every_statement_is_counted(database) {
        let store = database.open(&[SCHEMA]).await;
        let before = store.queries();
        add_owner(&store, "o1", "Ann").await.expect("inserts");
        let mut transaction = store.begin().await.expect("begins");
        transaction.execute(sql("DELETE FROM owners")).await.expect("deletes");
        transaction.fetch_all(sql("SELECT id FROM owners")).await.expect("reads");
        transaction.commit().await.expect("commits");
        store.fetch_all(sql("SELECT id FROM owners")).await.expect("reads");
        assert_eq!(store.queries() - before, 4);
    }

    async fn many_readers_and_writers_do_not_fail_each_other(database) {
        let store = database.open(&[SCHEMA]).await;
        let workers = (0..24).map(|worker| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let name = format!("{worker}-{round}");
                    add_owner(&store, &name, &name).await.expect("inserts");
                    store.fetch_all(sql("SELECT id FROM owners")).await.expect("reads");
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.expect("ends well");
        }
        assert_eq!(store.fetch_all(sql("SELECT id FROM owners")).await.expect("reads").len(), 240);
    }
}

#[tokio::test]
async fn on_sqlite_what_only_reads_cannot_write() {
    let database = keyferry_store::testing::TestDatabase::sqlite();
    let store = database.open(&[SCHEMA]).await;
    assert_eq!(store.dialect(), Dialect::Sqlite);
    let insert = sql("INSERT INTO owners (id, name) VALUES ('o1', 'Ann') RETURNING id");
    assert!(store.fetch_one(insert).await.is_err());
    assert_eq!(texts(&store, sql("SELECT name FROM owners")).await, [""; 0]);
}
