//! serde over the tree: the document's blocks are plain `#[derive(Deserialize)]` structs, and yet every unknown key and every
//! wrong type of a file is reported, not only the first.
//!
//! A problem is put into [`Findings`](super::place::Findings) where it is met, so [`field`](super::field) may then swallow
//! the error and let the neighbours be read: the file has failed in any case.

use std::fmt;
use std::str::FromStr;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::field::{Field, text};
use super::misplaced;
use super::nearest;
use super::node::{Entry, Kind, Node, Scalar, Value};
use super::place::{At, shortened};

impl At<'_> {
    /// The block here, its default where nothing stands; `None` if it could not be read, which has been reported.
    pub(super) fn decode<T: for<'de> Deserialize<'de> + Default>(&self) -> Option<T> {
        match self.node() {
            Some(_) => T::deserialize(self).ok(),
            None => Some(T::default()),
        }
    }

    /// The block here, where it says anything; an empty one is how iron-proxy's users write "off".
    pub(super) fn block<T: for<'de> Deserialize<'de> + Default>(&self) -> Option<T> {
        if self.node().is_none_or(says_nothing) { None } else { self.decode() }
    }

    /// A text that cannot be left out.
    pub(super) fn required_text(&self, field: Field<String>, key: &str, what: &str) -> Option<String> {
        let field = field.not_empty();
        if field.is_absent() {
            self.key(key).error("required", format!("say {what}"));
        }
        field.get()
    }

    /// The elements of the list here; none where nothing stands.
    pub(super) fn each(&self) -> Vec<Self> {
        match self.node().map(|node| &node.value) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Seq(items)) => (0..items.len()).map(|index| self.index(index)).collect(),
            Some(Value::Scalar(_) | Value::Map(_)) => {
                self.wrong_type("a list");
                Vec::new()
            }
        }
    }

    /// The text here as a `T`; `None` where nothing stands or the text is empty, which iron-proxy takes for the same.
    pub(super) fn parse<T: FromStr<Err: fmt::Display>>(&self) -> Field<T> {
        match self.node() {
            Some(_) => text(self).unwrap_or(Field::Invalid),
            None => Field::Absent,
        }
    }

    /// What stands here, as an error may show it: never what came from the environment.
    pub(super) fn shown(&self) -> String {
        match self.node().map(|node| &node.value) {
            None | Some(Value::Null) => "nothing".to_owned(),
            Some(Value::Seq(_)) => "a list".to_owned(),
            Some(Value::Map(_)) => "a block of keys".to_owned(),
            Some(Value::Scalar(Scalar { text, kind })) => match kind {
                Kind::Bool(_) | Kind::Number(_) => shortened(text).into_owned(),
                Kind::Text => format!("{:?}", shortened(text)),
                Kind::Substituted { written } => format!("{:?}", shortened(written)),
            },
        }
    }

    /// The hint for a word that is none of `valid`. It must not tell what a text from the environment looks like.
    pub(super) fn guess(&self, word: &str, valid: &[&str]) -> Option<String> {
        match self.node().map(|node| &node.value) {
            Some(Value::Scalar(Scalar { kind: Kind::Substituted { .. }, .. })) => {
                Some(format!("valid here: {}", valid.join(", ")))
            }
            _ => nearest::hint(word, valid),
        }
    }

    fn wrong_type(&self, expected: &str) -> Fault {
        let scalar = match self.node().map(|node| &node.value) {
            Some(Value::Scalar(scalar)) => Some(scalar),
            Some(Value::Null | Value::Seq(_) | Value::Map(_)) | None => None,
        };
        let hint = match (expected, scalar) {
            ("a list", Some(_)) => Some(format!("put it into brackets: [{}]", self.shown())),
            ("true or false", Some(Scalar { text, kind: Kind::Text })) => match text.as_str() {
                "yes" | "on" | "y" | "Yes" | "On" | "YES" | "ON" => Some("write true".to_owned()),
                "no" | "off" | "n" | "No" | "Off" | "NO" | "OFF" => Some("write false".to_owned()),
                "true" | "false" => Some("leave out the quotes".to_owned()),
                _ => None,
            },
            (_, Some(Scalar { text, kind: Kind::Text }))
                if expected.starts_with("a whole number") && text.parse::<i64>().is_ok() =>
            {
                Some("leave out the quotes and leading zeros".to_owned())
            }
            _ => None,
        };
        self.place_of_value().error(format!("expected {expected}, found {}", self.shown()), hint);
        Fault::Reported
    }

    /// Says what a visitor found wrong with the value here.
    fn settle<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| {
            if let Fault::Said(said) = fault {
                let (message, hint) = match said.split_once("\nhint: ") {
                    Some((message, hint)) => (message, Some(hint.to_owned())),
                    None => (said.as_str(), None),
                };
                self.place_of_value().error(format!("{message}: {}", self.shown()), hint);
            }
            Fault::Reported
        })
    }

    fn place_of_value(&self) -> super::place::Place<'_> {
        self.node().map_or_else(|| self.place().clone(), |node| self.place().at(node.origin))
    }

    fn report_unknown_keys(&self, entries: &[Entry], known: &'static [&'static str]) {
        let shape = self.place().shape();
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let place = self.place().key(&entry.key, entry.key_origin);
            let hint = misplaced::hint(&shape, &entry.key).map(str::to_owned);
            place.unknown_key(hint.or_else(|| nearest::hint(&entry.key, known)));
        }
    }
}

/// Whether a value leaves iron-proxy's default in place; such a key asks for nothing.
fn says_nothing(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar(scalar) => scalar.text.is_empty(),
        Value::Seq(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}

/// Why a value could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    Reported,
    /// In a visitor's words, not yet with a place; a line `hint: …` may follow. Never holds the value.
    Said(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported => f.write_str("already reported"),
            Self::Said(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Said(message.to_string())
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty, $expected:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = self.whole_number().and_then(|number| <$type>::try_from(number).ok());
            match number {
                Some(number) => self.settle(visitor.$visit(number)),
                None => Err(self.wrong_type($expected)),
            }
        })*
    };
}

impl At<'_> {
    fn whole_number(&self) -> Option<i128> {
        match &self.node()?.value {
            Value::Scalar(Scalar { kind: Kind::Number(number), .. }) => *number,
            Value::Scalar(Scalar { text, kind: Kind::Substituted { .. } }) => text.trim().parse().ok(),
            Value::Scalar(_) | Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }
}

impl<'de> Deserializer<'de> for &At<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node().map(|node| &node.value) {
            None | Some(Value::Null) => self.settle(visitor.visit_unit()),
            Some(Value::Scalar(scalar)) => self.settle(match &scalar.kind {
                Kind::Bool(value) => visitor.visit_bool(*value),
                Kind::Number(Some(number)) => match i64::try_from(*number) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => visitor.visit_str(&scalar.text),
                },
                Kind::Number(None) => match scalar.text.parse() {
                    Ok(number) => visitor.visit_f64(number),
                    Err(_) => visitor.visit_str(&scalar.text),
                },
                Kind::Text | Kind::Substituted { .. } => visitor.visit_str(&scalar.text),
            }),
            Some(Value::Seq(_)) => self.deserialize_seq(visitor),
            Some(Value::Map(_)) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = match self.node().map(|node| &node.value) {
            Some(Value::Scalar(Scalar { kind: Kind::Bool(value), .. })) => Some(*value),
            Some(Value::Scalar(Scalar { text, kind: Kind::Substituted { .. } })) => text.trim().parse().ok(),
            Some(Value::Scalar(_) | Value::Null | Value::Seq(_) | Value::Map(_)) | None => None,
        };
        match value {
            Some(value) => self.settle(visitor.visit_bool(value)),
            None => Err(self.wrong_type("true or false")),
        }
    }

    whole_numbers! {
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number, not negative";
        deserialize_i64 visit_i64 i64, "a whole number";
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node().map(|node| &node.value) {
            // iron-proxy's reader also takes a number or a boolean for a text, as it was written.
            Some(Value::Scalar(scalar)) => self.settle(visitor.visit_str(&scalar.text)),
            Some(Value::Null | Value::Seq(_) | Value::Map(_)) | None => Err(self.wrong_type("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node().map(|node| &node.value) {
            None | Some(Value::Null) => visitor.visit_none(),
            Some(Value::Scalar(_) | Value::Seq(_) | Value::Map(_)) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node().map(|node| &node.value) {
            Some(Value::Seq(items)) => {
                self.settle(visitor.visit_seq(Elements { list: self, next: 0, length: items.len() }))
            }
            Some(Value::Null | Value::Scalar(_) | Value::Map(_)) | None => Err(self.wrong_type("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node().map(|node| &node.value) {
            Some(Value::Map(entries)) => self.settle(visitor.visit_map(Entries {
                block: self,
                rest: entries.iter(),
                known: None,
                current: None,
            })),
            Some(Value::Null | Value::Scalar(_) | Value::Seq(_)) | None => {
                Err(self.wrong_type("a block of keys"))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.node().map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                self.report_unknown_keys(entries, fields);
                let known = Some(fields);
                self.settle(visitor.visit_map(Entries {
                    block: self,
                    rest: entries.iter(),
                    known,
                    current: None,
                }))
            }
            Some(Value::Null | Value::Scalar(_) | Value::Seq(_)) | None => {
                Err(self.wrong_type("a block of keys"))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Some(Value::Scalar(Scalar { text, .. })) = self.node().map(|node| &node.value) else {
            return Err(self.wrong_type("a text"));
        };
        if variants.contains(&text.as_str()) {
            let variant: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
            return self.settle(visitor.visit_enum(variant));
        }
        let hint = self.guess(text, variants);
        self.error(format!("unknown {name}: {}", self.shown()), hint);
        Err(Fault::Reported)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    // No key of the language has one of these types; `any` gives a visitor that wants one its own words of refusal.
    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Elements<'b, 'a> {
    list: &'b At<'a>,
    next: usize,
    length: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.next == self.length {
            return Ok(None);
        }
        let element = self.list.index(self.next);
        self.next += 1;
        seed.deserialize(&element).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.length - self.next)
    }
}

struct Entries<'b, 'a> {
    block: &'b At<'a>,
    rest: std::slice::Iter<'a, Entry>,
    /// A struct's keys: the others have been reported and are passed over, and so is a key with a null.
    known: Option<&'static [&'static str]>,
    current: Option<&'a str>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        for entry in self.rest.by_ref() {
            let skipped = self.known.is_some_and(|known| {
                matches!(entry.value.value, Value::Null) || !known.contains(&entry.key.as_str())
            });
            if !skipped {
                self.current = Some(&entry.key);
                let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
                return seed.deserialize(key).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let key = self.current.take().unwrap_or_default();
        seed.deserialize(&self.block.key(key))
    }
}
