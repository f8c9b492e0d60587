//! Why something was not sealed or opened. No variant carries key material or a value.

use std::io;

use crate::KeyId;

/// What is wrong with a keyring or an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The envelope was made with a key that is not here.
    #[error(
        "the keyring lacks the key {id}\nhint: add the line of {id} to the keyring, from a backup if need be"
    )]
    KeyMissing {
        /// The key that it takes.
        id: KeyId,
    },
    /// The right key does not open it.
    #[error(
        "what is stored in {place} does not open with the key {id}: it was altered, or belongs elsewhere\nhint: restore this row from a backup"
    )]
    DoesNotOpen {
        /// Where it was found.
        place: String,
        /// The key that it names.
        id: KeyId,
    },
    /// Not an envelope.
    #[error("what is stored in {place} is not a sealed value")]
    NotAnEnvelope {
        /// Where it was found.
        place: String,
    },
    /// A version that another release writes.
    #[error("what is stored in {place} is sealed in version {version}, which this release does not read")]
    UnknownVersion {
        /// Where it was found.
        place: String,
        /// The version.
        version: u8,
    },
    /// A keyring without a key.
    #[error("the keyring {origin} holds no key\nhint: make one with `keyferry keyring init`")]
    Empty {
        /// A file or a variable.
        origin: String,
    },
    /// A word that is no key.
    #[error(
        "the keyring {origin} is wrong at word {word}: a key is kfk1_ and 43 characters of base64url\nhint: copy the whole line; nothing was read from it"
    )]
    NotAKey {
        /// A file or a variable.
        origin: String,
        /// Which word, from 1; its text may be a key with a slip in it.
        word: usize,
    },
    /// The file can be used by others than its owner.
    #[error("the keyring {file} is open to others than its owner (mode {mode:04o})\nhint: chmod 600 {file}")]
    OpenToOthers {
        /// The path.
        file: String,
        /// Its permissions.
        mode: u32,
    },
    /// The file is there already.
    #[error("{file} exists, and is not overwritten\nhint: `keyferry keyring rotate` adds a key to it")]
    Exists {
        /// The path.
        file: String,
    },
    /// The file cannot be read or written.
    #[error("the keyring {file} cannot be {doing}: {kind}{}", hint(*kind))]
    File {
        /// The path.
        file: String,
        /// "read" or "written".
        doing: &'static str,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The file is not a text file of keyring size.
    #[error("{file} is not a keyring\nhint: make one with `keyferry keyring init`")]
    NotAKeyring {
        /// The path.
        file: String,
    },
    /// The system gave no randomness, or no memory.
    #[error("the system's cryptography failed")]
    Cryptography,
}

fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "\nhint: make one with `keyferry keyring init`",
        io::ErrorKind::PermissionDenied => "\nhint: run keyferry as the file's owner",
        _ => "",
    }
}
