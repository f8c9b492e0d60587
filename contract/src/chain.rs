//! The hash chain of an audit log (T87): each record carries its number and a hash over itself and the hash before.
//!
//! `hash` is the SHA-256 of the hash before (32 bytes) and of the line's own bytes up to `,"hash":`. Nothing is parsed or put in another
//! order to check it. Without a secret in it, the chain shows what was changed inside a log, not that a whole log was written anew:
//! for that, a hash of it must be kept elsewhere.

mod verify;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::audit::hex;

pub use verify::{Broken, Fault, LogLine, Options, Place, Report, VerifyError, verify};

/// A SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

/// The last record of a chain: what the next one is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 where there is none yet.
    pub seq: u64,
    /// Its hash; zeros where there is none yet.
    pub hash: Hash,
}

impl Head {
    /// Makes the object at the end of `out`, from `start`, the next record: appends its number and its hash.
    pub fn seal(&mut self, out: &mut Vec<u8>, start: usize) {
        debug_assert_eq!(out.last(), Some(&b'}'), "a record is an object");
        out.pop();
        self.seq += 1;
        out.extend_from_slice(SEQ);
        out.extend_from_slice(itoa::Buffer::new().format(self.seq).as_bytes());
        self.hash = Hash::chained(self.hash, &out[start..]);
        out.extend_from_slice(HASH);
        self.hash.write(out);
        out.extend_from_slice(END);
    }
}

/// A line that carries a number and a hash; whether it is the right one is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// What it says its number and its hash are.
    pub head: Head,
    hashed: &'a [u8],
}

const SEQ: &[u8] = br#","seq":"#;
const HASH: &[u8] = br#","hash":""#;
const END: &[u8] = br#""}"#;

impl<'a> Sealed<'a> {
    /// Reads the end of a line, which is without its line break.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (rest, hash) = line.strip_suffix(END)?.split_last_chunk::<64>()?;
        let hashed = rest.strip_suffix(HASH)?;
        let digits = hashed.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (rest, seq) = hashed.split_at(hashed.len() - digits);
        rest.strip_suffix(SEQ)?;
        let (seq, hash) = (str::from_utf8(seq).ok()?, str::from_utf8(hash).ok()?);
        Some(Self { head: Head { seq: seq.parse().ok()?, hash: hash.parse().ok()? }, hashed })
    }

    /// Whether it was written after the record that has this hash.
    pub fn follows(&self, before: Hash) -> bool {
        self.head.hash == Hash::chained(before, self.hashed)
    }
}

impl Hash {
    /// Of these bytes alone.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(digest(&SHA256, bytes).as_ref())
    }

    fn chained(before: Self, bytes: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&before.0);
        context.update(bytes);
        Self::from_digest(context.finish().as_ref())
    }

    fn from_digest(digest: &[u8]) -> Self {
        Self(digest.try_into().expect("a SHA-256 has 32 bytes"))
    }

    fn write(self, out: &mut Vec<u8>) {
        for byte in self.0 {
            out.extend_from_slice(&hex(byte));
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    /// 64 lower-case digits, so that one hash has one text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ERROR: &str = "a hash is 64 hexadecimal digits, in lower case";
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ERROR);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let value = |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
            *byte = value(pair[0]) << 4 | value(pair[1]);
        }
        Ok(Self(hash))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
