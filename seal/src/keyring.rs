//! Several keys, one of which is current.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::envelope::{self, Place, key_id_of};
use crate::key::Key;
use crate::{KeyId, SealError};

/// The keys that open sealed values. The first one seals new values.
#[derive(Clone)]
pub struct Keyring {
    /// Never empty.
    keys: Vec<Key>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids().collect::<Vec<_>>()).finish()
    }
}

impl Keyring {
    /// A keyring of one new key.
    ///
    /// # Errors
    ///
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self { keys: vec![Key::generate()?] })
    }

    /// Reads the words of `text`, each a key; the first one is current. From `#` to the end of a line is a comment.
    ///
    /// # Errors
    ///
    /// No key, or a word that is none. `origin` is the file or variable that the error names.
    pub fn parse(text: &SecretString, origin: &str) -> Result<Self, SealError> {
        let words = text
            .expose_secret()
            .lines()
            .flat_map(|line| line.split('#').next().unwrap_or_default().split_ascii_whitespace());
        let mut keys: Vec<Key> = Vec::new();
        for (index, word) in words.enumerate() {
            let key = Key::parse(word)
                .ok_or_else(|| SealError::NotAKey { origin: origin.to_owned(), word: index + 1 })?;
            if keys.iter().all(|known| known.id() != key.id()) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err(SealError::Empty { origin: origin.to_owned() });
        }
        Ok(Self { keys })
    }

    /// The same keys behind a new one, which is current.
    ///
    /// # Errors
    ///
    /// The system gives no randomness.
    pub fn with_new_key(&self) -> Result<Self, SealError> {
        let mut keys = vec![Key::generate()?];
        keys.extend(self.keys.iter().cloned());
        Ok(Self { keys })
    }

    /// What [`Keyring::parse`] reads, a key a line.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let mut text = Zeroizing::new(String::with_capacity(80 * self.keys.len()));
        for key in &self.keys {
            text.push_str(key.to_text().expose_secret());
            text.push_str("  # ");
            text.push_str(&key.id().to_string());
            text.push('\n');
        }
        SecretString::from(text.as_str())
    }

    /// The key that seals new values.
    #[must_use]
    pub fn current(&self) -> KeyId {
        self.current_key().id()
    }

    /// All keys, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.iter().map(Key::id)
    }

    /// Whether it opens what was sealed with this key.
    #[must_use]
    pub fn contains(&self, id: KeyId) -> bool {
        self.ids().any(|known| known == id)
    }

    /// Encrypts a value for one place.
    ///
    /// # Errors
    ///
    /// The system gives no randomness.
    pub fn seal(&self, place: &Place<'_>, value: &[u8]) -> Result<Vec<u8>, SealError> {
        envelope::seal(self.current_key(), place, value)
    }

    /// Decrypts what was sealed for this very place.
    ///
    /// # Errors
    ///
    /// The key is missing; it was altered; it comes from elsewhere.
    pub fn open(&self, place: &Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        envelope::open(self.key_of(place, envelope)?, place, envelope)
    }

    /// The same value under the current key; `None` where that is its key already.
    ///
    /// # Errors
    ///
    /// As [`Keyring::open`].
    pub fn rewrap(&self, place: &Place<'_>, envelope: &[u8]) -> Result<Option<Vec<u8>>, SealError> {
        let from = self.key_of(place, envelope)?;
        if from.id() == self.current() {
            return Ok(None);
        }
        envelope::rewrap(from, self.current_key(), place, envelope).map(Some)
    }

    fn key_of(&self, place: &Place<'_>, envelope: &[u8]) -> Result<&Key, SealError> {
        let id = key_id_of(place, envelope)?;
        self.keys.iter().find(|key| key.id() == id).ok_or(SealError::KeyMissing { id })
    }

    fn current_key(&self) -> &Key {
        self.keys.first().expect("a keyring is never empty")
    }
}
