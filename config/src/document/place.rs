//! A key path and what it points at: how every check names the place of what it finds.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;

use super::node::{Node, Origin, Value};
use super::problem::{Location, Problem, Severity};

/// Where problems are put while a file is read.
pub(super) struct Findings {
    list: RefCell<Vec<Problem>>,
    /// Unknown keys inside a transform's `config` are warnings, as iron-proxy ignores them.
    lenient: bool,
}

impl Findings {
    pub(super) fn new(lenient: bool) -> Self {
        Self { list: RefCell::default(), lenient }
    }

    pub(super) fn into_list(self) -> Vec<Problem> {
        self.list.into_inner()
    }
}

/// A key path with a position, whether or not a value stands there.
#[derive(Clone)]
pub(super) struct Place<'a> {
    path: String,
    origin: Origin,
    findings: &'a Findings,
}

impl<'a> Place<'a> {
    pub(super) fn root(origin: Origin, findings: &'a Findings) -> Self {
        Self { path: String::new(), origin, findings }
    }

    /// The same key, at another position.
    pub(super) fn at(&self, origin: Origin) -> Self {
        Self { origin, ..self.clone() }
    }

    pub(super) fn key(&self, key: &str, origin: Origin) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'<');
        let key = match !key.is_empty() && key.bytes().all(plain) {
            true => Cow::Borrowed(key),
            false => Cow::Owned(format!("{:?}", shortened(key))),
        };
        let path = if self.path.is_empty() { key.into_owned() } else { format!("{}.{key}", self.path) };
        Self { path, origin, findings: self.findings }
    }

    pub(super) fn index(&self, index: usize, origin: Origin) -> Self {
        Self { path: format!("{}[{index}]", self.path), origin, findings: self.findings }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The path with every index left out: `transforms[].config`.
    pub(super) fn shape(&self) -> String {
        let mut shape = String::with_capacity(self.path.len());
        let mut inside = false;
        for character in self.path.chars() {
            inside = inside && character != ']';
            if !inside {
                shape.push(character);
            }
            inside = inside || character == '[';
        }
        shape
    }

    pub(super) fn error(&self, message: impl Into<String>, hint: impl Into<Hint>) {
        self.push(Severity::Error, message.into(), hint.into());
    }

    pub(super) fn warning(&self, message: impl Into<String>, hint: impl Into<Hint>) {
        self.push(Severity::Warning, message.into(), hint.into());
    }

    /// A key that nobody reads; see [`super::load::Options::lenient`].
    pub(super) fn unknown_key(&self, hint: impl Into<Hint>) {
        self.stray_key("unknown key".to_owned(), hint.into());
    }

    fn stray_key(&self, message: String, hint: Hint) {
        let forgiven = self.findings.lenient && self.shape().starts_with("transforms[].config.");
        let severity = if forgiven { Severity::Warning } else { Severity::Error };
        self.push(severity, message, hint);
    }

    fn push(&self, severity: Severity, message: String, hint: Hint) {
        let (location, path, message) = match self.origin {
            Origin::File(location) => (Some(location), self.path.clone(), message),
            Origin::Variable(name) if self.path.is_empty() => (None, name.to_owned(), message),
            Origin::Variable(name) => (None, name.to_owned(), format!("{}: {message}", self.path)),
        };
        self.findings.list.borrow_mut().push(Problem { severity, location, path, message, hint: hint.0 });
    }
}

/// What to do next; `()` where there is nothing to add.
pub(super) struct Hint(Option<String>);

impl From<()> for Hint {
    fn from((): ()) -> Self {
        Self(None)
    }
}

impl From<&str> for Hint {
    fn from(text: &str) -> Self {
        Self(Some(text.to_owned()))
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self(Some(text))
    }
}

impl From<Option<String>> for Hint {
    fn from(text: Option<String>) -> Self {
        Self(text)
    }
}

/// A value of the file, or the place where one could stand.
#[derive(Clone)]
pub(super) struct At<'a> {
    node: Option<&'a Node>,
    place: Place<'a>,
}

impl<'a> At<'a> {
    pub(super) fn root(node: &'a Node, findings: &'a Findings) -> Self {
        Self { node: Some(node), place: Place::root(node.origin, findings) }
    }

    pub(super) fn node(&self) -> Option<&'a Node> {
        self.node
    }

    /// What stands under `key`; a null counts as nothing.
    pub(super) fn key(&self, key: &str) -> Self {
        let entry = match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.iter().find(|entry| entry.key == key),
            Some(Value::Null | Value::Scalar(_) | Value::Seq(_)) | None => None,
        };
        match entry {
            Some(entry) if matches!(entry.value.value, Value::Null) => {
                Self { node: None, place: self.place.key(key, entry.key_origin) }
            }
            Some(entry) => self.child(&entry.value, self.place.key(key, entry.key_origin)),
            None => Self { node: None, place: self.place.key(key, self.place.origin) },
        }
    }

    pub(super) fn index(&self, index: usize) -> Self {
        match self.node.map(|node| &node.value) {
            Some(Value::Seq(items)) if index < items.len() => {
                let item = &items[index];
                self.child(item, self.place.index(index, item.origin))
            }
            _ => Self { node: None, place: self.place.index(index, self.place.origin) },
        }
    }

    /// What stands under a path such as `transforms[1].name`.
    pub(super) fn follow(&self, path: &str) -> Self {
        path.split(['.', '[']).fold(self.clone(), |at, step| match step.strip_suffix(']') {
            Some(index) => at.index(index.parse().unwrap_or(usize::MAX)),
            None => at.key(step),
        })
    }

    fn child(&self, node: &'a Node, place: Place<'a>) -> Self {
        // What a block lacks is reported where its name stands, not at the first of its keys.
        let place = if matches!(node.value, Value::Scalar(_)) { place.at(node.origin) } else { place };
        Self { node: Some(node), place }
    }

    /// The keys of the block here that hold something, whatever their names.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => {
                entries.iter().map(|entry| (entry.key.as_str(), self.key(&entry.key))).collect()
            }
            Some(Value::Null | Value::Scalar(_) | Value::Seq(_)) => {
                // The block's reader says that this is none.
                self.decode::<std::collections::HashMap<String, super::field::Block>>();
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.map(|node| &node.value), Some(Value::Seq(_)))
    }

    /// Where it stands, unless the environment said it.
    pub(super) fn location(&self) -> Option<Location> {
        match self.place.origin {
            Origin::File(location) => Some(location),
            Origin::Variable(_) => None,
        }
    }

    /// Whether nothing or an empty list stands here.
    pub(super) fn lists_nothing(&self) -> bool {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null) => true,
            Some(Value::Seq(items)) => items.is_empty(),
            Some(Value::Scalar(_) | Value::Map(_)) => false,
        }
    }

    /// A key that its block knows and has no use for in its present form; see [`super::load::Options::lenient`].
    pub(super) fn stray_key(&self, message: String, hint: impl Into<Hint>) {
        self.place.stray_key(message, hint.into());
    }

    /// Reports a name that an earlier element has.
    pub(super) fn check_new(&self, name: &str, earlier: &mut HashSet<String>, what: &str) {
        if !earlier.insert(name.to_owned()) {
            self.error(format!("an earlier {what} has this name: {}", self.shown()), "take another name");
        }
    }

    pub(super) fn place(&self) -> &Place<'a> {
        &self.place
    }

    pub(super) fn error(&self, message: impl Into<String>, hint: impl Into<Hint>) {
        self.place.error(message, hint);
    }

    pub(super) fn warning(&self, message: impl Into<String>, hint: impl Into<Hint>) {
        self.place.warning(message, hint);
    }

    /// Reports a name that no environment variable can have, and says whether it is a good one.
    pub(super) fn check_variable_name(&self, name: &str) -> bool {
        let good = !name.contains(['=', '\0']);
        if !good {
            self.error("not the name of an environment variable", "write the name alone, such as API_KEY");
        }
        good
    }
}

/// A text of the file as an error shows it: enough to recognise, not enough to flood a log.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
