//! Sealed columns and the rotation of their keys.

use std::ops::ControlFlow;

use keyferry_store::seal::{Keyring, Keys, SealError};
use keyferry_store::{Census, Rewrapped, SealedColumn, Store, StoreError, on_both_databases, sql};
use secrecy::{ExposeSecret, SecretString};

use super::{SCHEMA, VALUE, add_owner, add_secret};

async fn put(store: &Store, id: &str, value: &str) {
    let sealed = store.seal(&VALUE, id, &SecretString::from(value)).expect("seals");
    let update = sql("UPDATE secrets SET value = $1 WHERE id = $2").bind(sealed).bind(id);
    assert_eq!(store.execute(update).await, Ok(1));
}

async fn get(store: &Store, id: &str) -> Result<String, StoreError> {
    let row = store.fetch_one(sql("SELECT value FROM secrets WHERE id = $1").bind(id)).await?;
    Ok(store.unseal(&VALUE, id, &row.sealed("value")?)?.expose_secret().to_owned())
}

async fn with_values(store: &Store, count: usize) {
    add_owner(store, "o1", "Ann").await.expect("inserts");
    for number in 0..count {
        let id = format!("s{number:04}");
        add_secret(store, &id, "o1", &id).await.expect("inserts");
        put(store, &id, &format!("value of {id}")).await;
    }
}

/// The same keyring behind a new key.
fn rotated(keys: &Keys) -> Keys {
    Keys::fixed(keys.current().with_new_key().expect("randomness"))
}

on_both_databases! {
    async fn a_value_opens_in_its_row_and_nowhere_else(database) {
        let store = database.open(&[SCHEMA]).await;
        with_values(&store, 2).await;
        assert_eq!(get(&store, "s0000").await, Ok("value of s0000".to_owned()));
        store
            .execute(sql("UPDATE secrets SET value = (SELECT value FROM secrets WHERE id = 's0000') WHERE id = 's0001'"))
            .await
            .expect("moves it");
        let id = database.keys().current().current();
        let place = "secrets.value of s0001".to_owned();
        assert_eq!(get(&store, "s0001").await, Err(StoreError::Seal(SealError::DoesNotOpen { place, id })));
    }

    async fn only_declared_columns_are_sealed(database) {
        let store = database.open(&[SCHEMA]).await;
        let other = SealedColumn { table: "secrets", column: "name", id: "id" };
        let sealed = store.seal(&other, "s1", &SecretString::from("x"));
        assert_eq!(sealed, Err(StoreError::NotDeclared { table: "secrets", column: "name" }));
    }

    async fn without_the_right_keyring_it_does_not_open(database) {
        let store = database.open(&[SCHEMA]).await;
        with_values(&store, 3).await;
        let wrong = Keys::fixed(Keyring::generate().expect("randomness"));
        let opened = Store::open(&database.url(), wrong, &[SCHEMA]).await.map(drop);
        let missing = database.keys().current().current();
        assert_eq!(opened, Err(StoreError::KeysMissing { missing: vec![(missing, 3)] }));
        let message = opened.expect_err("refused").to_string();
        assert!(message.contains(&missing.to_string()), "{message}");
    }

    async fn a_rotation_goes_on_where_it_was(database) {
        let store = database.open(&[SCHEMA]).await;
        with_values(&store, 250).await;
        let old = database.keys().current().current();
        let keys = rotated(database.keys());
        let new = keys.current().current();
        let rotating = Store::open(&database.url(), keys, &[]).await.expect("opens without any schema");

        // Given a rotation that ends in the middle
        let count = |key, values| Census { table: "secrets".into(), column: "value".into(), key, values };
        let interrupted = rotating.rewrap(|_| ControlFlow::Break(())).await;
        assert_eq!(interrupted, Ok(Rewrapped { values: 100 }));
        let mut expected = vec![count(old, 150), count(new, 100)];
        expected.sort_by_key(|count| count.key);
        assert_eq!(rotating.census().await, Ok(expected));
        for id in ["s0000", "s0249"] {
            assert_eq!(get(&rotating, id).await.map(|value| value.len()), Ok(14));
        }

        // When it is run again
        assert_eq!(rotating.rewrap(|_| ControlFlow::Continue(())).await, Ok(Rewrapped { values: 150 }));

        // Then all of it is under the new key, and a keyring without the old one opens it
        assert_eq!(rotating.census().await, Ok(vec![count(new, 250)]));
        assert_eq!(rotating.rewrap(|_| ControlFlow::Continue(())).await, Ok(Rewrapped { values: 0 }));
        assert_eq!(get(&rotating, "s0123").await, Ok("value of s0123".to_owned()));
        let opened = Store::open(&database.url(), database.keys().clone(), &[SCHEMA]).await.map(drop);
        assert_eq!(opened, Err(StoreError::KeysMissing { missing: vec![(new, 250)] }));
    }

    async fn what_is_written_during_a_rotation_is_kept(database) {
        let store = database.open(&[SCHEMA]).await;
        with_values(&store, 150).await;
        let rotating = Store::open(&database.url(), rotated(database.keys()), &[SCHEMA]).await.expect("opens");
        let writing = async {
            for number in 0..150 {
                put(&store, &format!("s{number:04}"), &format!("new {number}")).await;
            }
        };
        let (rewrapped, ()) = tokio::join!(rotating.rewrap(|_| ControlFlow::Continue(())), writing);
        rewrapped.expect("rotates");
        for number in 0..150 {
            assert_eq!(get(&rotating, &format!("s{number:04}")).await, Ok(format!("new {number}")));
        }
    }

    async fn a_running_process_reads_the_keyring_again_when_it_rotates(database) {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("keyring");
        keyferry_store::seal::create_file(&file, &Keyring::generate().expect("randomness")).expect("writes");
        let running = Store::open(&database.url(), Keys::from_file(&file).expect("reads"), &[SCHEMA]).await.expect("opens");
        with_values(&running, 2).await;

        let new = keyferry_store::seal::promote_new_key(&file).expect("writes").current();
        let rotating = Store::open(&database.url(), Keys::from_file(&file).expect("reads"), &[]).await.expect("opens");
        assert_eq!(rotating.rewrap(|_| ControlFlow::Continue(())).await, Ok(Rewrapped { values: 2 }));

        assert_eq!(get(&running, "s0000").await, Ok("value of s0000".to_owned()));
        put(&running, "s0001", "written after it").await;
        let census = rotating.census().await.expect("counts");
        assert_eq!(census, [Census { table: "secrets".into(), column: "value".into(), key: new, values: 2 }]);
    }

    async fn a_damaged_registry_is_not_executed(database) {
        let store = database.open(&[SCHEMA]).await;
        let poisoned = sql("INSERT INTO store_sealed_columns VALUES ('owners; DROP TABLE secrets', 'value', 'id')");
        store.execute(poisoned).await.expect("inserts");
        assert!(matches!(store.census().await, Err(StoreError::Failed { .. })));
        assert!(matches!(store.rewrap(|_| ControlFlow::Continue(())).await, Err(StoreError::Failed { .. })));
    }
}
