//! What is wrong with a write, field by field.

use std::collections::BTreeMap;

use serde::Serialize;

/// Messages by field; `base` for what concerns several. Never empty when it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Details(BTreeMap<String, Vec<String>>);

impl Details {
    /// One message.
    pub fn one(field: &str, message: impl Into<String>) -> Self {
        let mut details = Self::default();
        details.add(field, message);
        details
    }

    /// Adds a message, once.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let (messages, message) = (self.0.entry(field.into()).or_default(), message.into());
        if !messages.contains(&message) {
            messages.push(message);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value`, or what is wrong.
    pub fn unless<T>(self, value: impl FnOnce() -> T) -> Result<T, Self> {
        if self.is_empty() { Ok(value()) } else { Err(self) }
    }

    /// The fields and their messages.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(field, messages)| (field.as_str(), messages.as_slice()))
    }
}
