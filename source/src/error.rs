//! Why a secret has no value. No variant can carry the value or a part of it (T46), so none wraps a parser's error.

use std::io;
use std::time::Duration;

/// Why a source gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// This version has nothing that reads a source of this type.
    #[error("this version does not read the source `{kind}`\nhint: give the value by env or file")]
    NotRead {
        /// The type, as the configuration says it.
        kind: &'static str,
    },
    /// The variable is not set, or is empty.
    #[error(
        "the environment variable {var} is not set or is empty\nhint: set {var} where keyferry is started, then restart it"
    )]
    NotSet {
        /// The variable.
        var: String,
    },
    /// The file cannot be read.
    #[error("the secret file {file} cannot be read: {kind}\nhint: {}", read_hint(*kind))]
    Unreadable {
        /// The path.
        file: String,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The path leads to a folder, a pipe or a device, which has no content to read again.
    #[error("{file} is not a regular file\nhint: put the secret into a file and name that")]
    NotAFile {
        /// The path.
        file: String,
    },
    /// The file is empty.
    #[error("the secret file {file} is empty\nhint: write the secret into it, without a newline at its end")]
    EmptyFile {
        /// The path.
        file: String,
    },
    /// The file is larger than a secret can be.
    #[error(
        "the secret file {file} is larger than {limit} bytes\nhint: check that the path names the secret"
    )]
    TooLarge {
        /// The path.
        file: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The file is not UTF-8.
    #[error(
        "the secret file {file} is not UTF-8 text\nhint: store a binary secret as text, for example in base64"
    )]
    NotText {
        /// The path.
        file: String,
    },
    /// There is a `json_key`, but the value is not a JSON object.
    #[error(
        "{name} is not a JSON object\nhint: take json_key: {key} away, or store an object that has this key"
    )]
    NotAnObject {
        /// The source.
        name: String,
        /// The key that was to be read.
        key: String,
    },
    /// The JSON object lacks the key.
    #[error(
        "the JSON object in {name} has no key {key}\nhint: check json_key; it names a key at the top level"
    )]
    NoSuchKey {
        /// The source.
        name: String,
        /// The key that was to be read.
        key: String,
    },
    /// The key's value is not a string, or is an empty one.
    #[error(
        "{key} of the JSON object in {name} is not a string with something in it\nhint: json_key names a string at the top level"
    )]
    NotAString {
        /// The source.
        name: String,
        /// The key that was to be read.
        key: String,
    },
    /// The source did not answer in time (T57).
    #[error("{name} gave no value within {} seconds\nhint: check that the source can be reached and is not overloaded", limit.as_secs())]
    Timeout {
        /// The source.
        name: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The fetch ended without an outcome: the process is shutting down, or the fetch panicked.
    #[error("fetching {name} was interrupted\nhint: ask again")]
    Interrupted {
        /// The source.
        name: String,
    },
}

fn read_hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "create the file, or correct the path",
        io::ErrorKind::PermissionDenied => "let the user that keyferry runs as read it",
        _ => "check the file system that it is on",
    }
}
