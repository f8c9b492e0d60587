//! A secret that stands in the document itself, as a control plane delivers it.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

/// A text that is wiped when it is dropped and never shown (T46).
#[derive(Clone, PartialEq, Eq)]
pub struct InlineSecret(Zeroizing<String>);

impl InlineSecret {
    /// The text, for the one who sends it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for InlineSecret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Hash for InlineSecret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl fmt::Debug for InlineSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(super::effective::REDACTED)
    }
}

impl Serialize for InlineSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(super::effective::REDACTED)
    }
}
