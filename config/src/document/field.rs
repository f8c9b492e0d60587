//! How the keys of a block are read: each on its own, so that a bad one does not hide what is wrong with the others.
//!
//! These swallow errors, which only [`decode`](super::decode) makes up for by having reported them; no other deserializer
//! may drive them.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, Visitor};

/// The value of a key that is read on its own: a bad one is reported and does not stop its neighbours.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Invalid,
    Is(T),
}

impl<T> Field<T> {
    pub(super) fn get(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Invalid => Field::Invalid,
            Self::Is(value) => Field::Is(change(value)),
        }
    }
}

impl Field<String> {
    /// An empty text counts as none, as in iron-proxy.
    pub(super) fn not_empty(self) -> Self {
        match self {
            Self::Is(text) if text.is_empty() => Self::Absent,
            other => other,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(T::deserialize(deserializer).map_or(Self::Invalid, Self::Is))
    }
}

/// A key whose value is a block of its own, read through [`At::key`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Block;

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A list of scalars, each read on its own; an element keeps its index where another one is bad.
#[derive(Clone, Debug)]
pub(super) struct List<T>(Vec<Field<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> List<T> {
    pub(super) fn indexed(self) -> impl Iterator<Item = (usize, T)> {
        self.0.into_iter().enumerate().filter_map(|(index, field)| Some((index, field.get()?)))
    }

    pub(super) fn all(self) -> Vec<T> {
        self.indexed().map(|(_, value)| value).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

/// A list element that is read from its text.
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData)).map(Self)
    }
}

/// For `#[serde(deserialize_with)]`: a key that is read from its text, where an empty text counts as none.
pub(super) fn text<'de, D, T>(deserializer: D) -> Result<Field<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let read = deserializer.deserialize_str(NonEmptyVisitor(PhantomData));
    Ok(read.map_or(Field::Invalid, |value| value.map_or(Field::Absent, Field::Is)))
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

struct NonEmptyVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for NonEmptyVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<T>, E> {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(E::custom) }
    }
}
