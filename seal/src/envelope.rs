//! What a sealed value looks like.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, 1 |
//! | 1–8 | id of the wrapping key |
//! | 9–20 | nonce of the wrapped data key |
//! | 21–68 | the data key, encrypted with the wrapping key, and its tag |
//! | 69–80 | nonce of the value |
//! | 81– | the value, encrypted with the data key, and its tag of 16 bytes |
//!
//! Associated data of both ciphertexts: what it is ("data key" or "value"), then table, column and row, each behind its length.
//! A data key encrypts one value once. A wrapping key encrypts data keys with random nonces of 96 bits: after 2^32 writes the
//! chance that two are equal is still below 2^-32 (NIST SP 800-38D, section 8.3), and a rotation starts anew.

use std::fmt;

use aws_lc_rs::aead::{Aad, Nonce};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::key::{KEY_LENGTH, Key, cipher};
use crate::{KeyId, SealError};

/// The first byte of every envelope that this release writes.
pub const VERSION: u8 = 1;
/// Where the id of the wrapping key stands.
pub const KEY_ID_OFFSET: usize = 1;
/// How long it is.
pub const KEY_ID_LENGTH: usize = 8;
/// By how much an envelope is longer than its value, always.
pub const OVERHEAD: usize = VALUE + TAG_LENGTH;

const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;
const WRAP_NONCE: usize = KEY_ID_OFFSET + KEY_ID_LENGTH;
const WRAPPED: usize = WRAP_NONCE + NONCE_LENGTH;
const VALUE_NONCE: usize = WRAPPED + KEY_LENGTH + TAG_LENGTH;
const VALUE: usize = VALUE_NONCE + NONCE_LENGTH;

/// The identity of a sealed value. It opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The row's primary key.
    pub row: &'a str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} of {}", self.table, self.column, self.row)
    }
}

impl Place<'_> {
    fn associated_data(&self, of: &str) -> Aad<Vec<u8>> {
        let parts = [of, self.table, self.column, self.row];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            // Behind its length, so that ("ab", "c") and ("a", "bc") differ.
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Aad::from(bytes)
    }
}

/// The wrapping key that an envelope names.
///
/// # Errors
///
/// What is not an envelope of this version.
pub fn key_id_of(place: &Place<'_>, envelope: &[u8]) -> Result<KeyId, SealError> {
    match envelope.first() {
        Some(&VERSION) if envelope.len() >= OVERHEAD => {}
        Some(&VERSION) | None => return Err(SealError::NotAnEnvelope { place: place.to_string() }),
        Some(&version) => return Err(SealError::UnknownVersion { place: place.to_string(), version }),
    }
    let mut id = [0; KEY_ID_LENGTH];
    id.copy_from_slice(&envelope[KEY_ID_OFFSET..WRAP_NONCE]);
    Ok(KeyId::from_bytes(id))
}

pub(crate) fn seal(key: &Key, place: &Place<'_>, value: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut data_key = Zeroizing::new([0; KEY_LENGTH]);
    rand::fill(&mut *data_key).map_err(|_| SealError::Cryptography)?;
    let mut envelope = Vec::with_capacity(OVERHEAD + value.len());
    push_header(&mut envelope, key, place, &data_key)?;
    // Encrypted where it will stay: no second copy of the value is left behind.
    let mut body = Zeroizing::new(value.to_vec());
    let (nonce, tag) = cipher(&*data_key)?
        .seal_in_place_separate_tag(place.associated_data("value"), &mut body)
        .map_err(|_| SealError::Cryptography)?;
    envelope.extend_from_slice(nonce.as_ref());
    envelope.extend_from_slice(&body);
    envelope.extend_from_slice(tag.as_ref());
    Ok(envelope)
}

/// `key` is the one that the envelope names.
pub(crate) fn open(key: &Key, place: &Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let does_not_open = || SealError::DoesNotOpen { place: place.to_string(), id: key.id() };
    let data_key = unwrap(key, place, envelope)?;
    let mut value = Zeroizing::new(envelope[VALUE..].to_vec());
    let length = cipher(&*data_key)?
        .open_in_place(nonce(&envelope[VALUE_NONCE..VALUE]), place.associated_data("value"), &mut value)
        .map_err(|_| does_not_open())?
        .len();
    value.truncate(length);
    Ok(value)
}

/// The same value under another wrapping key.
pub(crate) fn rewrap(from: &Key, to: &Key, place: &Place<'_>, envelope: &[u8]) -> Result<Vec<u8>, SealError> {
    let data_key = unwrap(from, place, envelope)?;
    let mut rewrapped = Vec::with_capacity(envelope.len());
    push_header(&mut rewrapped, to, place, &data_key)?;
    rewrapped.extend_from_slice(&envelope[VALUE_NONCE..]);
    Ok(rewrapped)
}

fn push_header(
    envelope: &mut Vec<u8>,
    key: &Key,
    place: &Place<'_>,
    data_key: &[u8; KEY_LENGTH],
) -> Result<(), SealError> {
    let mut wrapped = Zeroizing::new(*data_key);
    let (nonce, tag) = key
        .cipher()?
        .seal_in_place_separate_tag(place.associated_data("data key"), &mut *wrapped)
        .map_err(|_| SealError::Cryptography)?;
    envelope.push(VERSION);
    envelope.extend_from_slice(key.id().as_bytes());
    envelope.extend_from_slice(nonce.as_ref());
    envelope.extend_from_slice(&*wrapped);
    envelope.extend_from_slice(tag.as_ref());
    Ok(())
}

fn unwrap(key: &Key, place: &Place<'_>, envelope: &[u8]) -> Result<Zeroizing<[u8; KEY_LENGTH]>, SealError> {
    let mut wrapped = Zeroizing::new([0; KEY_LENGTH + TAG_LENGTH]);
    wrapped.copy_from_slice(&envelope[WRAPPED..VALUE_NONCE]);
    key.cipher()?
        .open_in_place(
            nonce(&envelope[WRAP_NONCE..WRAPPED]),
            place.associated_data("data key"),
            &mut *wrapped,
        )
        .map_err(|_| SealError::DoesNotOpen { place: place.to_string(), id: key.id() })?;
    let mut data_key = Zeroizing::new([0; KEY_LENGTH]);
    data_key.copy_from_slice(&wrapped[..KEY_LENGTH]);
    Ok(data_key)
}

fn nonce(bytes: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(bytes).expect("a slice of NONCE_LENGTH bytes")
}
