//! Secrets at rest: what of them survives a process that is killed, and what their keys are.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use keyferry_store::seal::{Keys, read_file};
use keyferry_store::testing::TestDatabase;
use keyferry_store::{Dialect, Store, on_both_databases, sql};
use keyferry_tests::sealed_rows::{SCHEMA, read_pairs, write_pairs};
use keyferry_tests::within;
use tempfile::TempDir;

/// `keyferry keyring VERB` on a database, with a keyring of its own.
struct Operator<'a> {
    folder: TempDir,
    database: &'a TestDatabase,
}

impl<'a> Operator<'a> {
    fn new(database: &'a TestDatabase) -> Self {
        let operator = Self { folder: TempDir::new().expect("a temporary folder"), database };
        let made = operator.command("init").output().expect("keyferry runs");
        assert!(made.status.success(), "{made:?}");
        operator
    }

    fn keyring(&self) -> PathBuf {
        self.folder.path().join("keyring")
    }

    async fn open(&self) -> Store {
        Store::open(&self.database.url(), Keys::from_file(&self.keyring()).expect("a keyring"), &[SCHEMA])
            .await
            .expect("the database opens")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry-under-test"));
        command.env_clear().args(["keyring", verb, "--keyring"]).arg(self.keyring());
        if verb != "init" {
            command.env("KEYFERRY_DATABASE_URL", self.database.url_text());
        }
        command
    }

    fn run(&self, verb: &str) -> String {
        let Output { status, stdout, stderr } = self.command(verb).output().expect("keyferry runs");
        assert!(status.success(), "{verb}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text")
    }

    /// Key, state and values, as `status` says them.
    fn status(&self) -> Vec<(String, String, u64)> {
        let table = self.run("status");
        let rows = table.lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0].to_owned(), words[1].to_owned(), words[2].parse().expect("a number"))
        });
        rows.collect()
    }
}

/// How many values are no longer under the key `old`.
async fn wrapped_anew(store: &Store, old: &str) -> u64 {
    let census = store.census().await.expect("counts");
    census.iter().filter(|count| count.key.to_string() != old).map(|count| count.values).sum()
}

/// SIGKILL: it cannot do anything about it.
fn kill(mut child: Child) {
    child.kill().expect("is killed");
    child.wait().expect("has ended");
}

fn writer(database: &TestDatabase, keyring: &Path, first: i64) -> Child {
    Command::new(env!("CARGO_BIN_EXE_store-writer"))
        .env_clear()
        .arg(database.url_text())
        .arg(keyring)
        .arg(first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts")
}

on_both_databases! {
    async fn t84_a_rotation_that_is_killed_goes_on_where_it_was(database) {
        let operator = Operator::new(database);
        let store = operator.open().await;
        let pairs = 3_000;
        write_pairs(&store, 0..pairs).await.expect("writes");
        let old = read_file(&operator.keyring()).expect("a keyring").current().to_string();
        assert_eq!(operator.status(), [(old.clone(), "current".to_owned(), 6_000)]);

        // When rotations are killed as soon as they have wrapped something
        let mut wrapped = 0;
        for _ in 0..3 {
            let rotation = operator.command("rotate").stderr(Stdio::null()).spawn().expect("starts");
            let begun = async {
                while wrapped_anew(&store, &old).await == wrapped {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            within("the rotation wraps something", begun).await;
            kill(rotation);
            wrapped = wrapped_anew(&store, &old).await;
            assert!(wrapped < 6_000, "it was not killed in the middle");
            let status = operator.status();
            assert_eq!(status.iter().map(|(_, state, values)| (state.as_str(), *values)).collect::<Vec<_>>(),
                [("current", wrapped), ("older", 6_000 - wrapped)]);
            // Then a service that runs meanwhile reads everything
            assert_eq!(read_pairs(&store).await.len(), 3_000);
        }

        // When one runs to its end, then all is under one new key
        operator.run("rotate");
        let keyring = read_file(&operator.keyring()).expect("a keyring");
        let new = keyring.current().to_string();
        let expected = [(new, "current".to_owned(), 6_000), (old.clone(), "older".to_owned(), 0)];
        assert_eq!(operator.status(), expected, "no more than one key was added");
        assert_eq!(read_pairs(&operator.open().await).await.len(), 3_000);

        // And the old one can be taken out of the file
        let text = std::fs::read_to_string(operator.keyring()).expect("a keyring");
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains(&old)).collect();
        std::fs::write(operator.keyring(), kept.join("\n")).expect("writes");
        assert_eq!(operator.status().len(), 1);
        assert_eq!(read_pairs(&operator.open().await).await.len(), 3_000);
    }

    async fn a_writer_that_is_killed_loses_nothing_committed_and_leaves_nothing_half(database) {
        let operator = Operator::new(database);
        let mut first = 0;
        for round in 0..5 {
            let mut child = writer(database, &operator.keyring(), first);
            let stdout = child.stdout.take().expect("a pipe");
            let (send, committed) = std::sync::mpsc::channel();
            let reading = std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let _ = send.send(line.expect("a line").parse::<i64>().expect("a number"));
                }
            });
            let mut last = committed.recv_timeout(Duration::from_secs(60)).expect("it writes");
            tokio::time::sleep(Duration::from_millis(20 + 17 * round)).await;
            kill(child);
            reading.join().expect("ends");
            last = committed.try_iter().last().unwrap_or(last);

            let numbers = read_pairs(&operator.open().await).await;
            // One more may have been committed than was said.
            let expected: Vec<i64> = (0..numbers.len() as i64).collect();
            assert_eq!(numbers, expected);
            assert!((last + 1..=last + 2).contains(&(numbers.len() as i64)), "{last} was said, {} are there", numbers.len());
            first = numbers.len() as i64;
        }
    }

    async fn t84_nothing_in_the_database_shows_a_value(database) {
        let operator = Operator::new(database);
        let store = operator.open().await;
        write_pairs(&store, 0..3).await.expect("writes");
        let rows = store.fetch_all(sql("SELECT value FROM pairs")).await.expect("reads");
        for row in rows {
            let stored: Vec<u8> = row.get("value").expect("a value");
            assert!(!stored.windows(8).any(|window| window == b"value of"));
        }
        if database.dialect() == Dialect::Sqlite {
            let file = database.url_text().strip_prefix("sqlite:").expect("a file");
            for suffix in ["", "-wal"] {
                let bytes = std::fs::read(format!("{file}{suffix}")).expect("a file");
                assert!(!bytes.windows(8).any(|window| window == b"value of"), "{suffix}");
            }
        }
    }

    async fn a_wrong_keyring_is_told_which_key_it_lacks(database) {
        let operator = Operator::new(database);
        let store = operator.open().await;
        write_pairs(&store, 0..3).await.expect("writes");
        let key = read_file(&operator.keyring()).expect("a keyring").current().to_string();
        std::fs::remove_file(operator.keyring()).expect("removes");
        operator.command("init").output().expect("keyferry runs");
        let before = std::fs::read(operator.keyring()).expect("reads");

        for verb in ["status", "rotate"] {
            let output = operator.command(verb).output().expect("keyferry runs");
            let said = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("{key} (6 values)")), "{said}");
        }
        assert_eq!(std::fs::read(operator.keyring()).expect("reads"), before, "nothing was rotated");
    }
}

#[test]
fn a_keyring_that_exists_is_not_overwritten() {
    let database = TestDatabase::sqlite();
    let operator = Operator::new(&database);
    let before = std::fs::read(operator.keyring()).expect("a keyring");
    let again = operator.command("init").output().expect("keyferry runs");
    let said = String::from_utf8(again.stderr).expect("text");
    let file = operator.keyring();
    let file = file.display();
    let expected = format!(
        "error: {file} exists, and is not overwritten\nhint: `keyferry keyring rotate` adds a key to it\n"
    );
    assert_eq!((again.status.code(), said), (Some(2), expected));
    assert_eq!(std::fs::read(operator.keyring()).expect("a keyring"), before);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_not_made_by_counting_in_it() {
    let database = TestDatabase::sqlite();
    let operator = Operator::new(&database);
    let output = operator.command("status").output().expect("keyferry runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!Path::new(database.url_text().strip_prefix("sqlite:").expect("a file")).exists());
}

#[tokio::test]
async fn the_keys_may_come_from_a_variable() {
    let database = TestDatabase::sqlite();
    let operator = Operator::new(&database);
    write_pairs(&operator.open().await, 0..3).await.expect("writes");
    let run = |keys: &str, verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry-under-test"));
        command
            .env_clear()
            .args(["keyring", verb, "--database", database.url_text()])
            .env("KEYFERRY_KEYRING", keys);
        command.output().expect("keyferry runs")
    };
    let key = std::fs::read_to_string(operator.keyring()).expect("a keyring");
    let key = key.split_whitespace().find(|word| word.starts_with("kfk1_")).expect("a key");
    assert!(run(key, "status").status.success());
    // The first one is current: this is a rotation to it.
    let two = format!("kfk1_{} {key}", "A".repeat(43));
    let output = run(&two, "rotate");
    assert!(String::from_utf8_lossy(&output.stderr).contains("6 values were wrapped"), "{output:?}");
    let store = operator.database.url();
    let keys = keyferry_store::seal::Keyring::parse(&two.into(), "here").expect("a keyring");
    assert_eq!(
        read_pairs(&Store::open(&store, Keys::fixed(keys), &[SCHEMA]).await.expect("the database opens"))
            .await,
        [0, 1, 2]
    );

    let wrong = run("sesame", "status");
    let said = String::from_utf8(wrong.stderr).expect("text");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said.contains("KEYFERRY_KEYRING") && !said.contains("sesame"), "{said}");
}
