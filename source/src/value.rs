//! A secret's value.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A secret's value as it was at one time. Wiped when the last holder drops it.
pub struct SecretValue {
    text: SecretString,
    version: u64,
}

impl SecretValue {
    pub(crate) fn new(text: SecretString, version: u64) -> Self {
        Self { text, version }
    }

    /// The value, for the one place where it is needed.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// Which value this is: no two values of one [`crate::Sources`] share a version, and a later value has a higher one. A
    /// fetch that finds what was there before makes no new version.
    pub fn version(&self) -> u64 {
        self.version
    }
}

/// The version alone (T46).
impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue").field("version", &self.version).finish_non_exhaustive()
    }
}
