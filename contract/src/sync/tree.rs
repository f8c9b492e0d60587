//! JSON whose live values cannot be shown by accident.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Number, Value};
use zeroize::Zeroizing;

/// What stands where a live value was.
pub const REDACTED: &str = "[redacted]";

/// A JSON value. Keys are sorted, so equal trees are equal bytes.
#[derive(Clone, Default)]
pub enum Tree {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text that may be shown.
    Text(String),
    /// A live value.
    Secret(SecretString),
    /// An array.
    List(Vec<Tree>),
    /// An object.
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    /// An object.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, tree)| (key.into(), tree)).collect())
    }

    /// An array.
    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// A text that may be shown.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The member `key` of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.get(key),
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Secret(_)
            | Self::List(_) => None,
        }
    }

    /// The text of a leaf that may be shown.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Secret(_) | Self::List(_) | Self::Map(_) => {
                None
            }
        }
    }

    /// Sets a member of an object; nothing happens to anything else.
    pub fn set(&mut self, key: &str, tree: Self) {
        if let Self::Map(entries) = self {
            entries.insert(key.to_owned(), tree);
        }
    }

    /// Takes a member out of an object.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Map(entries) => entries.remove(key),
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Secret(_)
            | Self::List(_) => None,
        }
    }

    /// The JSON text, live values included: for the answer to a proxy that proved who it is, and for what compiles it.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.length()));
        self.write(&mut text);
        text
    }

    /// No less than the revealed text has bytes, so that the buffer never grows and leaves a copy of a value behind.
    fn length(&self) -> usize {
        // A byte becomes six at most, `\u0000`.
        let quoted = |text: &str| text.len() * 6 + 2;
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Number(number) => number.to_string().len(),
            Self::Text(text) => quoted(text),
            Self::Secret(value) => quoted(value.expose_secret()),
            Self::List(items) => 2 + items.iter().map(|item| item.length() + 1).sum::<usize>(),
            Self::Map(entries) => {
                2 + entries.iter().map(|(key, tree)| quoted(key) + tree.length() + 2).sum::<usize>()
            }
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Null => text.push_str("null"),
            Self::Bool(true) => text.push_str("true"),
            Self::Bool(false) => text.push_str("false"),
            Self::Number(number) => text.push_str(&number.to_string()),
            Self::Text(plain) => quote(plain, text),
            Self::Secret(value) => quote(value.expose_secret(), text),
            Self::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    item.write(text);
                }
                text.push(']');
            }
            Self::Map(entries) => {
                text.push('{');
                for (index, (key, tree)) in entries.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    quote(key, text);
                    text.push(':');
                    tree.write(text);
                }
                text.push('}');
            }
        }
    }
}

/// serde_json would write through a buffer of its own; what it leaves there is not wiped.
fn quote(plain: &str, text: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    text.push('"');
    for character in plain.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                let code = usize::try_from(u32::from(control)).unwrap_or(0);
                text.push_str("\\u00");
                text.push(HEX[code >> 4]);
                text.push(HEX[code & 15]);
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(entries) => {
                Self::Map(entries.into_iter().map(|(key, value)| (key, Self::from(value))).collect())
            }
        }
    }
}

/// Redacted: this is what logs, `effective_config` and tests see.
impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Secret(_) => serializer.serialize_str(REDACTED),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, tree)| map.serialize_entry(key, tree))?;
                map.end()
            }
        }
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// By what stands in them, live values included.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.reveal() == other.reveal()
    }
}

impl Eq for Tree {}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Tree, E> {
        Number::from_f64(number).map(Tree::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, tree)) = map.next_entry::<String, Tree>()? {
            if entries.insert(key, tree).is_some() {
                return Err(de::Error::custom("an object names a key twice"));
            }
        }
        // The shape of a delivered value, wherever a source may stand.
        if entries.get("type").and_then(Tree::as_text) == Some("control_plane")
            && let Some(Tree::Text(value)) = entries.get_mut("value")
        {
            let value = std::mem::take(value);
            entries.insert("value".to_owned(), Tree::Secret(value.into()));
        }
        Ok(Tree::Map(entries))
    }
}
