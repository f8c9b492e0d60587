//! Names that operators choose: namespaces and foreign ids.

use std::fmt;

use crate::id::IdOf;

/// Where a resource belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(String);

impl Namespace {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        check(text).map(|()| Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operator calls a resource; one of each kind in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ForeignId(String);

impl ForeignId {
    /// Reads one. It cannot be mistaken for an id of its own kind.
    pub fn parse(text: &str, of: IdOf) -> Result<Self, String> {
        check(text)?;
        if of.is_claimed_by(text) {
            return Err(format!("may not begin with {}_", of.prefix()));
        }
        Ok(Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Letters that stand in a URL as they are.
fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("can't be blank");
    }
    if text.len() > 255 {
        return Err("is too long (at most 255 characters)");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if text.bytes().all(plain) { Ok(()) } else { Err("may hold only letters, digits and - . _ ~") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_id_is_url_safe_and_no_id() {
        let parse = |text: &str| ForeignId::parse(text, IdOf::StaticSecret).map(|id| id.0);
        for good in ["github-token", "a", "A.b_c~d", "gas_x", "ssrx"] {
            assert_eq!(parse(good), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a/b", "é", "a\0", "<b>", "' OR 1=1", "%41", "ssr_x", &"a".repeat(256)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
