//! Envelopes and keyrings, from outside.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use keyferry_seal::{
    KeyId, Keyring, Keys, OVERHEAD, Place, SealError, create_file, key_id_of, promote_new_key, read_file,
};
use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

const PLACE: Place<'_> = Place { table: "secrets", column: "value", row: "sec_1" };

/// Made by another implementation (Python's cryptography), from the table in `envelope.rs`.
const KEY: &str = "kfk1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const KEY_ID: &str = "af195d1107103217";
const ENVELOPE: &str = "01af195d1107103217c8c9cacbcccdcecfd0d1d2d3751d07bceea5914b185171d16e77996794f29adf7c12d25f91d4459e5a\
10296a8dc25122ecf7f652747f41e8de577e23dcdddedfe0e1e2e3e4e5e6e7d363bccfc4c45532b64e373120d0da5c134a05223522be619ba0";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn parse(text: &str) -> Result<Keyring, SealError> {
    Keyring::parse(&SecretString::from(text), "here")
}

fn generate() -> Keyring {
    Keyring::generate().expect("randomness")
}

#[test]
fn what_another_implementation_sealed_opens() {
    let keyring = parse(KEY).expect("a keyring");
    assert_eq!(keyring.current().to_string(), KEY_ID);
    assert_eq!(KEY_ID.parse(), Ok(keyring.current()));
    assert_eq!(keyring.open(&PLACE, &bytes(ENVELOPE)).expect("opens").as_slice(), b"sk-example");
}

#[test]
fn every_bit_of_an_envelope_counts() {
    let keyring = parse(KEY).expect("a keyring");
    let envelope = bytes(ENVELOPE);
    for bit in 0..envelope.len() * 8 {
        let mut altered = envelope.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(keyring.open(&PLACE, &altered).is_err(), "bit {bit}");
    }
    for length in 0..envelope.len() {
        assert!(keyring.open(&PLACE, &envelope[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn no_nonce_and_no_data_key_is_used_twice() {
    let keyring = generate();
    let envelopes: Vec<_> = (0..2_000).map(|_| keyring.seal(&PLACE, b"same").expect("seals")).collect();
    for range in [9..21, 21..69, 69..81, 81..101] {
        let distinct: BTreeSet<_> = envelopes.iter().map(|envelope| &envelope[range.clone()]).collect();
        assert_eq!(distinct.len(), envelopes.len(), "{range:?}");
    }
}

#[test]
fn a_key_that_is_missing_is_named() {
    let (keyring, other) = (generate(), generate());
    let envelope = keyring.seal(&PLACE, b"x").expect("seals");
    let error = other.open(&PLACE, &envelope).expect_err("another key");
    assert_eq!(error, SealError::KeyMissing { id: keyring.current() });
    assert!(error.to_string().contains(&keyring.current().to_string()));
    assert_eq!(other.rewrap(&PLACE, &envelope), Err(error));
}

#[test]
fn a_version_of_the_future_is_named() {
    let error = key_id_of(&PLACE, &[2; 200]).expect_err("unknown");
    assert_eq!(error, SealError::UnknownVersion { place: "secrets.value of sec_1".to_owned(), version: 2 });
}

#[test]
fn a_keyring_is_words_with_comments_and_its_first_key_is_current() {
    let keyring = generate().with_new_key().expect("randomness");
    let text = keyring.to_text();
    let read = parse(text.expose_secret()).expect("its own text");
    assert_eq!(read.ids().collect::<Vec<_>>(), keyring.ids().collect::<Vec<_>>());
    let other = generate();
    let one_line = format!("# all\n {KEY}\t{}", other.to_text().expose_secret());
    let read = parse(&one_line).expect("words");
    assert_eq!(read.ids().collect::<Vec<_>>(), [KEY_ID.parse::<KeyId>().expect("an id"), other.current()]);
}

#[test]
fn what_is_no_keyring_is_refused_without_a_word_of_it() {
    let empty = SealError::Empty { origin: "here".to_owned() };
    for text in ["", "  \n", "# kfk1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"] {
        assert_eq!(parse(text).map(drop), Err(empty.clone()), "{text:?}");
    }
    for slip in [&KEY[1..], &KEY[..47], &format!("{KEY}A"), &KEY.replace('f', "+"), &KEY.to_uppercase()] {
        let error = parse(&format!("{KEY}\n{slip}")).expect_err(slip);
        assert_eq!(error, SealError::NotAKey { origin: "here".to_owned(), word: 2 });
        assert!(!format!("{error}{error:?}").contains(&slip[10..30]));
    }
}

#[test]
fn nothing_that_can_be_printed_holds_a_key() {
    let keyring = parse(KEY).expect("a keyring");
    let printed = format!("{keyring:?} {:?}", Keys::fixed(keyring.clone()));
    assert!(!printed.contains(&KEY[5..]) && !printed.contains("0, 1, 2, 3"), "{printed}");
}

#[test]
fn a_keyring_file_is_its_owners_alone_and_never_overwritten() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("keyring");
    let name = file.display().to_string();
    assert!(matches!(read_file(&file), Err(SealError::File { .. })), "not there yet");

    let keyring = generate();
    create_file(&file, &keyring).expect("writes");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o600);
    assert_eq!(read_file(&file).expect("reads").current(), keyring.current());
    assert_eq!(create_file(&file, &generate()), Err(SealError::Exists { file: name.clone() }));
    assert_eq!(read_file(&file).expect("reads").current(), keyring.current());

    let promoted = promote_new_key(&file).expect("adds one");
    let expected = [promoted.current(), keyring.current()];
    assert_eq!(read_file(&file).expect("reads").ids().collect::<Vec<_>>(), expected);
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left behind");

    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
        let refused = SealError::OpenToOthers { file: name.clone(), mode };
        assert_eq!(read_file(&file).map(drop), Err(refused.clone()));
        assert_eq!(promote_new_key(&file).map(drop), Err(refused));
    }
}

#[test]
fn a_file_that_goes_wrong_changes_nothing_for_who_runs() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("keyring");
    create_file(&file, &generate()).expect("writes");
    let keys = Keys::from_file(&file).expect("reads");
    let envelope = keys.seal(&PLACE, b"x").expect("seals");
    let before = keys.current().current();
    fs::write(&file, "nonsense").expect("writes");
    assert_eq!(keys.current().current(), before);
    fs::remove_file(&file).expect("removes");
    assert_eq!(keys.open(&PLACE, &envelope).expect("opens").as_slice(), b"x");
    create_file(&file, &generate()).expect("writes");
    assert_ne!(keys.current().current(), before, "a file that is right again is read");
}

proptest! {
    #[test]
    fn what_is_sealed_opens_in_its_place_alone(
        value in proptest::collection::vec(any::<u8>(), 0..300),
        here in (".{0,12}", ".{0,12}", ".{0,12}"),
        there in (".{0,12}", ".{0,12}", ".{0,12}"),
    ) {
        let keyring = generate();
        let place = Place { table: &here.0, column: &here.1, row: &here.2 };
        let envelope = keyring.seal(&place, &value).expect("seals");
        prop_assert_eq!(envelope.len(), value.len() + OVERHEAD);
        prop_assert_eq!(key_id_of(&place, &envelope), Ok(keyring.current()));
        let opened = keyring.open(&place, &envelope).expect("opens");
        prop_assert_eq!(opened.as_slice(), value.as_slice());

        let elsewhere = Place { table: &there.0, column: &there.1, row: &there.2 };
        prop_assert_eq!(keyring.open(&elsewhere, &envelope).is_ok(), here == there);
        // The boundary between two names is part of the place.
        let joined = format!("{}{}", here.1, here.2);
        let shifted = Place { table: &here.0, column: &joined, row: "" };
        prop_assert_eq!(keyring.open(&shifted, &envelope).is_ok(), here.2.is_empty());
    }

    #[test]
    fn a_rewrapped_value_opens_with_the_new_key_alone(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        let old = generate();
        let both = old.with_new_key().expect("randomness");
        let envelope = old.seal(&PLACE, &value).expect("seals");
        let rewrapped = both.rewrap(&PLACE, &envelope).expect("rewraps").expect("was under the old key");
        prop_assert_eq!(rewrapped.len(), envelope.len());
        prop_assert_eq!(both.rewrap(&PLACE, &rewrapped), Ok(None));
        let opened = both.open(&PLACE, &rewrapped).expect("opens");
        prop_assert_eq!(opened.as_slice(), value.as_slice());
        prop_assert_eq!(old.open(&PLACE, &rewrapped), Err(SealError::KeyMissing { id: both.current() }));
        let elsewhere = Place { row: "sec_2", ..PLACE };
        prop_assert!(both.rewrap(&elsewhere, &envelope).is_err());
    }

    #[test]
    fn no_bytes_are_anything_but_an_error(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(generate().open(&PLACE, &noise).is_err());
    }
}
