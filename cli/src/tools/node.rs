//! TOML with places: every complaint names its file and line.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ToolError;

/// A file that is read.
pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl File<'_> {
    pub(super) fn fault(&self, offset: usize, message: impl Into<String>) -> ToolError {
        ToolError::Manifest { path: self.path.to_owned(), line: self.line(offset), message: message.into() }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// A table, and the keys of it that were asked for.
pub(super) struct Table<'a> {
    file: &'a File<'a>,
    /// Where it begins.
    offset: usize,
    /// What it is, for complaints: `secret "GITHUB_TOKEN"`.
    what: String,
    entries: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(file: &'a File<'a>, what: impl Into<String>, value: &'a Spanned<DeTable<'a>>) -> Self {
        let (offset, entries) = (value.span().start, value.get_ref());
        Self { file, offset, what: what.into(), entries, asked: RefCell::default() }
    }

    /// The value as a table.
    pub(super) fn of(
        file: &'a File<'a>,
        what: impl Into<String>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Self, ToolError> {
        let (offset, what) = (value.span().start, what.into());
        match value.get_ref() {
            DeValue::Table(entries) => Ok(Self { file, offset, what, entries, asked: RefCell::default() }),
            other => Err(file.fault(offset, format!("{what} must be a table, not a {}", other.type_str()))),
        }
    }

    pub(super) fn named(mut self, what: String) -> Self {
        self.what = what;
        self
    }

    pub(super) fn fault(&self, message: &str) -> ToolError {
        self.file.fault(self.offset, format!("{}: {message}", self.what))
    }

    pub(super) fn fault_at(&self, key: &str, message: &str) -> ToolError {
        let offset = self.entries.get(key).map_or(self.offset, |value| value.span().start);
        self.file.fault(offset, format!("{}: {key} {message}", self.what))
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.entries.get(key)
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>, ToolError> {
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(text)) if !text.is_empty() => Ok(Some(text.clone().into_owned())),
            Some(_) => Err(self.fault_at(key, "must be a text that is not empty")),
        }
    }

    pub(super) fn required(&self, key: &'static str) -> Result<String, ToolError> {
        self.text(key)?.ok_or_else(|| self.fault(&format!("{key} is missing")))
    }

    /// One of some words.
    pub(super) fn word(&self, key: &'static str, words: &[&str]) -> Result<String, ToolError> {
        let word = self.required(key)?;
        if words.contains(&word.as_str()) {
            return Ok(word);
        }
        Err(self.fault_at(key, &format!("must be one of {}, not {word:?}", words.join(", "))))
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, ToolError> {
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(false),
            Some(DeValue::Boolean(flag)) => Ok(*flag),
            Some(_) => Err(self.fault_at(key, "must be true or false")),
        }
    }

    /// A list of texts, none of them empty; an absent one is empty.
    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<String>, ToolError> {
        let text = |value: &Spanned<DeValue<'a>>| match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Some(text.clone().into_owned()),
            _ => None,
        };
        let texts = match self.value(key).map(Spanned::get_ref) {
            None => Some(Vec::new()),
            Some(DeValue::Array(values)) => values.iter().map(text).collect(),
            Some(_) => None,
        };
        texts.ok_or_else(|| self.fault_at(key, "must be a list of texts that are not empty"))
    }

    pub(super) fn list(&self, key: &'static str) -> Result<&'a [Spanned<DeValue<'a>>], ToolError> {
        match self.value(key).map(Spanned::get_ref) {
            None => Ok(&[]),
            Some(DeValue::Array(values)) => Ok(values),
            Some(_) => Err(self.fault_at(key, "must be a list")),
        }
    }

    pub(super) fn table(&self, key: &'static str) -> Result<Option<Self>, ToolError> {
        let what = format!("{}: {key}", self.what);
        self.value(key).map(|value| Self::of(self.file, what, value)).transpose()
    }

    /// Every entry, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(&'a str, &'a Spanned<DeValue<'a>>)> {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| (key.span().start, key.get_ref().as_ref(), value))
            .collect();
        entries.sort_by_key(|(offset, ..)| *offset);
        entries.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    /// The keys that nobody asked for, each as a warning.
    pub(super) fn strangers(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let strangers = self.entries.iter().filter(|(key, _)| !asked.contains(key.get_ref().as_ref()));
        strangers
            .map(|(key, _)| {
                let (path, line) = (self.file.path.display(), self.file.line(key.span().start));
                format!("{path}:{line}: {}: {} is not known and is ignored", self.what, key.get_ref())
            })
            .collect()
    }
}
