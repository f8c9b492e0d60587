//! One key of a keyring, and the id by which envelopes name it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::{Zeroize, Zeroizing};

use crate::SealError;
use crate::envelope::KEY_ID_LENGTH;

/// Names a key without giving it away: the first 64 bits of a hash of it.
///
/// Because the id follows from the key, a keyring cannot hold the wrong key under the right id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_LENGTH]);

impl KeyId {
    /// The id as it stands in an envelope.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_ID_LENGTH]) -> Self {
        Self(bytes)
    }

    /// As it stands in an envelope.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_ID_LENGTH] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 2 * KEY_ID_LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        let value = u64::from_str_radix(text, 16).map_err(|_| ())?;
        Ok(Self(value.to_be_bytes()))
    }
}

pub(crate) const KEY_LENGTH: usize = 32;
const PREFIX: &str = "kfk1_";

/// A key that wraps the keys of values.
#[derive(Clone)]
pub(crate) struct Key {
    id: KeyId,
    bytes: SecretBox<KeyBytes>,
}

/// An array that may be cloned inside a `SecretBox`: each clone is wiped as well.
#[derive(Clone)]
pub(crate) struct KeyBytes([u8; KEY_LENGTH]);

impl Zeroize for KeyBytes {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl secrecy::CloneableSecret for KeyBytes {}

impl Key {
    pub(crate) fn generate() -> Result<Self, SealError> {
        let mut bytes = Box::new(KeyBytes([0; KEY_LENGTH]));
        rand::fill(&mut bytes.0).map_err(|_| SealError::Cryptography)?;
        Ok(Self::new(bytes))
    }

    /// `None` for anything but `kfk1_` and 32 bytes in base64url.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let encoded = word.strip_prefix(PREFIX)?;
        let decoded = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?);
        let mut bytes = Box::new(KeyBytes([0; KEY_LENGTH]));
        if decoded.len() != KEY_LENGTH {
            return None;
        }
        bytes.0.copy_from_slice(&decoded);
        Some(Self::new(bytes))
    }

    fn new(bytes: Box<KeyBytes>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"keyferry key id\0");
        hash.update(&bytes.0);
        let hash = hash.finish();
        let mut id = [0; KEY_ID_LENGTH];
        id.copy_from_slice(&hash.as_ref()[..KEY_ID_LENGTH]);
        Self { id: KeyId(id), bytes: SecretBox::new(bytes) }
    }

    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn to_text(&self) -> SecretString {
        let mut text = String::with_capacity(PREFIX.len() + 43);
        text.push_str(PREFIX);
        BASE64_URL_SAFE_NO_PAD.encode_string(self.bytes.expose_secret().0, &mut text);
        text.into()
    }

    pub(crate) fn cipher(&self) -> Result<RandomizedNonceKey, SealError> {
        cipher(&self.bytes.expose_secret().0)
    }
}

/// AES-256-GCM that draws a random nonce for each message by itself, so that no caller can use one twice.
pub(crate) fn cipher(key: &[u8]) -> Result<RandomizedNonceKey, SealError> {
    RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Cryptography)
}
