//! Commits pair after pair, and says each number once it is committed: `store-writer URL KEYRING FIRST`.

#![expect(clippy::print_stdout, reason = "the test reads what was committed")]
#![expect(clippy::expect_used, reason = "it has nothing to do but to write")]

use std::path::Path;

use keyferry_store::seal::Keys;
use keyferry_store::{DatabaseUrl, Store};
use keyferry_tests::sealed_rows::{SCHEMA, write_pairs};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, keyring, first] = &arguments[..] else { panic!("store-writer URL KEYRING FIRST") };
    let url = DatabaseUrl::parse(&url.as_str().into()).expect("a URL");
    let keys = Keys::from_file(Path::new(keyring)).expect("a keyring");
    let store = Store::open(&url, keys, &[SCHEMA]).await.expect("the database opens");
    for number in first.parse().expect("a number").. {
        write_pairs(&store, std::iter::once(number)).await.expect("writes");
        println!("{number}");
    }
}
