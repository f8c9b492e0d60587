//! Tokens that callers show: made of 32 random bytes, shown once, kept as a hash.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

/// Whose token it is, which its first letters say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenOf {
    /// `iak_`: an operator.
    Operator,
    /// `iprx_`: a proxy.
    Proxy,
    /// `sbxt_`: a sandbox. It opens nothing here.
    Sandbox,
}

/// A token in the clear.
#[derive(Clone)]
pub(crate) struct Token(SecretString);

/// SHA-256 of a token, in hexadecimal digits. A token is random, so a plain hash keeps it (T68): there is no dictionary of them,
/// and whoever compares hashes learns nothing about the token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash(String);

/// There is no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

impl Token {
    /// A new one.
    pub(crate) fn generate(of: TokenOf) -> Result<Self, NoRandomness> {
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        SystemRandom::new().fill(bytes.as_mut()).map_err(|_| NoRandomness)?;
        Ok(Self(format!("{}{}", of.prefix(), hex(bytes.as_ref())).into()))
    }

    /// Reads one that a caller shows; `None` for anything that no token of this kind looks like.
    pub(crate) fn parse(text: &str, of: TokenOf) -> Option<Self> {
        let digits = text.strip_prefix(of.prefix())?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 64 && digits.bytes().all(lower_hex)).then(|| Self(text.to_owned().into()))
    }

    /// For the one answer that shows it.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash(hex(digest(&SHA256, self.expose().as_bytes()).as_ref()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

impl TokenHash {
    /// As it stands in the database.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

impl TokenOf {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Operator => "iak_",
            Self::Proxy => "iprx_",
            Self::Sandbox => "sbxt_",
        }
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t68_a_token_is_long_of_one_kind_and_never_printed() {
        let token = Token::generate(TokenOf::Proxy).expect("randomness");
        assert_eq!(token.expose().len(), 5 + 64);
        assert!(!format!("{token:?} {:?}", token.hash()).contains(&token.expose()[5..]));
        assert!(Token::parse(token.expose(), TokenOf::Proxy).is_some_and(|same| same.hash() == token.hash()));
        for of in [TokenOf::Operator, TokenOf::Sandbox] {
            assert!(Token::parse(token.expose(), of).is_none());
        }
        let upper = token.expose().to_uppercase();
        for text in ["", "iprx_", &upper, &token.expose()[..68], &format!("{}0", token.expose())] {
            assert!(Token::parse(text, TokenOf::Proxy).is_none(), "{text}");
        }
    }
}
