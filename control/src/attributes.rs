//! The attributes of a write, taken one by one: every fault is told, and what nobody takes is a fault.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::details::Details;
use crate::id::IdOf;
use crate::name::{ForeignId, Namespace};

/// Labels: names and texts. Numbers and booleans are kept as their text.
pub type Labels = BTreeMap<String, Value>;

/// The `data` of a write.
#[derive(Debug)]
pub struct Attributes {
    entries: Map<String, Value>,
    /// What has been found so far.
    pub details: Details,
}

/// Whether a write names an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// It does not; what was stays.
    Not,
    /// It says `null`.
    Null,
    /// It says this.
    Is(T),
}

impl<T> Given<T> {
    /// The value, where there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Not | Self::Null => None,
        }
    }
}

impl Attributes {
    /// Of this object.
    pub fn new(entries: Map<String, Value>) -> Self {
        Self { entries, details: Details::default() }
    }

    /// Takes what stands under `key`.
    pub fn take(&mut self, key: &str) -> Given<Value> {
        match self.entries.remove(key) {
            None => Given::Not,
            Some(Value::Null) => Given::Null,
            Some(value) => Given::Is(value),
        }
    }

    /// A text of at most `longest` characters that databases and terminals can hold.
    pub fn text(&mut self, key: &str, longest: usize) -> Given<String> {
        match self.take(key) {
            Given::Not => Given::Not,
            Given::Null => Given::Null,
            Given::Is(Value::String(text)) => match check_text(&text, longest) {
                Ok(()) => Given::Is(text),
                Err(message) => self.refuse(key, message),
            },
            Given::Is(_) => self.refuse(key, "must be a text"),
        }
    }

    /// A name for people.
    pub fn name(&mut self) -> Given<String> {
        self.text("name", 255)
    }

    /// A name that cannot be left out.
    pub fn required_name(&mut self) -> Option<String> {
        let name = self.name();
        self.demand("name", name)
    }

    /// Says that an attribute is missing, if it is.
    pub fn demand(&mut self, key: &str, given: Given<String>) -> Option<String> {
        match given.value() {
            Some(text) if !text.trim().is_empty() => Some(text),
            _ if self.details.iter().any(|(field, _)| field == key) => None,
            _ => {
                self.details.add(key, "can't be blank");
                None
            }
        }
    }

    /// `namespace`, where it is given.
    pub fn namespace(&mut self) -> Option<Namespace> {
        let text = self.text("namespace", 255).value()?;
        Namespace::parse(&text).map_err(|message| self.details.add("namespace", message)).ok()
    }

    /// `foreign_id`, where it is given.
    pub fn foreign_id(&mut self, of: IdOf) -> Option<ForeignId> {
        let text = self.text("foreign_id", 255).value()?;
        ForeignId::parse(&text, of).map_err(|message| self.details.add("foreign_id", message)).ok()
    }

    /// `labels`, where they are given.
    pub fn labels(&mut self) -> Given<Labels> {
        match self.take("labels") {
            Given::Not => Given::Not,
            Given::Null => Given::Null,
            Given::Is(Value::Object(entries)) if entries.len() <= 64 => {
                for (key, value) in &entries {
                    if let Err(message) = check_label(key, value) {
                        self.details.add("labels", message);
                    }
                }
                Given::Is(entries.into_iter().collect())
            }
            Given::Is(Value::Object(_)) => self.refuse("labels", "at most 64 labels"),
            Given::Is(_) => self.refuse("labels", "must be an object"),
        }
    }

    /// A boolean.
    pub fn flag(&mut self, key: &str) -> Given<bool> {
        self.typed(key, "must be true or false")
    }

    /// Anything that serde reads from one value.
    pub fn typed<T: DeserializeOwned>(&mut self, key: &str, otherwise: &str) -> Given<T> {
        match self.take(key) {
            Given::Not => Given::Not,
            Given::Null => Given::Null,
            // serde's own words may hold the value.
            Given::Is(value) => match serde_json::from_value(value) {
                Ok(value) => Given::Is(value),
                Err(_) => self.refuse(key, otherwise),
            },
        }
    }

    /// A point in time that PostgreSQL and every client can hold.
    pub fn time(&mut self, key: &str) -> Given<Timestamp> {
        let given = self.typed::<Timestamp>(key, "must be a time such as 2026-06-01T10:00:00Z");
        if let Given::Is(time) = given {
            let year = time.to_zoned(jiff::tz::TimeZone::UTC).year();
            if !(2000..=9999).contains(&year) {
                return self.refuse(key, "must be between the years 2000 and 9999");
            }
        }
        given
    }

    /// The row of an id.
    pub fn id(&mut self, key: &str, of: IdOf) -> Given<Option<i64>> {
        match self.text(key, 255) {
            Given::Not => Given::Not,
            Given::Null => Given::Null,
            // One that names nothing is not found, which is another answer than a fault.
            Given::Is(id) => Given::Is(of.row(&id)),
        }
    }

    /// A list of address ranges.
    pub fn cidrs(&mut self, key: &str) -> Given<Vec<IpNet>> {
        self.typed(key, "must be a list of address ranges such as 10.0.0.0/8")
    }

    /// What is left, for a reader of its own.
    pub fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.entries)
    }

    /// The end: whatever nobody took is unknown.
    pub fn finish<T>(mut self, value: impl FnOnce() -> T) -> Result<T, Details> {
        for key in self.entries.keys() {
            let key: String = key.chars().take(64).collect();
            self.details.add(key, "is not an attribute of this resource");
        }
        self.details.unless(value)
    }

    fn refuse<T>(&mut self, key: &str, message: impl Into<String>) -> Given<T> {
        self.details.add(key, message);
        Given::Not
    }
}

/// PostgreSQL holds no NUL in a text.
pub(crate) fn check_text(text: &str, longest: usize) -> Result<(), String> {
    if text.contains('\0') {
        return Err("cannot hold a NUL character".to_owned());
    }
    if text.chars().count() > longest {
        return Err(format!("is too long (at most {longest} characters)"));
    }
    Ok(())
}

fn check_label(key: &str, value: &Value) -> Result<(), String> {
    if key.is_empty() {
        return Err("the name of a label cannot be empty".to_owned());
    }
    check_text(key, 128).map_err(|message| format!("the name of a label {message}"))?;
    match value {
        Value::String(text) => check_text(text, 1024).map_err(|message| format!("a label {message}")),
        Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err("a label is a text, a number or a boolean".to_owned())
        }
    }
}
