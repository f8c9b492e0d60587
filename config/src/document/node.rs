//! The file as a tree in which every value knows where it stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Error as YamlError, Spanned};

use super::place::shortened;
use super::problem::{Location, Problem, Severity};

/// A value of the file.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What a value is, before anybody asked for a type.
pub(super) enum Value {
    Null,
    Scalar(Scalar),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping. Keys keep the order of the file.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_origin: Origin,
    pub(super) value: Node,
}

/// A text, a number or a boolean.
pub(super) struct Scalar {
    /// The value as text, also of a number: `proxy_value: 0123` means these four characters.
    pub(super) text: String,
    pub(super) kind: Kind,
}

/// How a scalar was written, which decides what it may become.
pub(super) enum Kind {
    Bool(bool),
    /// A number that is whole and fits 64 bits is `Some`.
    Number(Option<i128>),
    Text,
    /// The text came from the environment and takes whatever type its key has. `written` is what the author wrote, which
    /// is what an error may show: the text itself may be a secret.
    Substituted {
        written: String,
    },
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    File(Location),
    Variable(&'static str),
}

/// More than any policy needs, and little enough to parse in a moment (T81).
const MAX_BYTES: usize = 8 * 1024 * 1024;
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 500_000;
const MAX_ALIASES: usize = 1_000;
const MAX_COPIED_EVENTS: usize = 20_000;

/// Reads `text`, or says the one reason why it is not YAML that we read.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; {MAX_BYTES} is the limit", text.len());
        return Err(problem(Location { line: 1, column: 1 }, message, None));
    }
    let tree = serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options())
        .map_err(|error| syntax_problem(&error, text))?;
    let node = tree_to_node(tree, text);
    if matches!(node.value, Value::Null) {
        return Err(problem(Location { line: 1, column: 1 }, "the file is empty".to_owned(), None));
    }
    Ok(node)
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_COPIED_EVENTS,
            max_merge_keys: MAX_ALIASES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_COPIED_EVENTS,
            max_replay_stack_depth: 8,
        },
        emit_comments: false,
        strict_booleans: true,
        // A number with a leading zero or an underscore means different things to different readers.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// What the YAML reader hands over; becomes a [`Node`] as soon as the source text is at hand.
enum Tree {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(String),
    Seq(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

fn tree_to_node(tree: Spanned<Tree>, source: &str) -> Node {
    let scalar = |text: String, kind| Value::Scalar(Scalar { text, kind });
    let origin = Origin::File(location(tree.defined, source));
    let as_written = |fallback: String| written(tree.defined, source).map_or(fallback, str::to_owned);
    let value = match tree.value {
        Tree::Null => Value::Null,
        Tree::Bool(value) => scalar(as_written(value.to_string()), Kind::Bool(value)),
        Tree::Whole(value) => scalar(as_written(value.to_string()), Kind::Number(Some(value))),
        Tree::Float(value) => scalar(as_written(value.to_string()), Kind::Number(None)),
        Tree::Text(text) => scalar(text, Kind::Text),
        Tree::Seq(items) => Value::Seq(items.into_iter().map(|item| tree_to_node(item, source)).collect()),
        Tree::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_origin: Origin::File(location(key.defined, source)),
                    key: key.value,
                    value: tree_to_node(value, source),
                })
                .collect(),
        ),
    };
    Node { value, origin }
}

/// The characters of a plain number or boolean, which its value no longer tells.
fn written(location: serde_saphyr::Location, source: &str) -> Option<&str> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    let text = source.get(start..start.checked_add(length)?)?.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    (!text.is_empty() && text.bytes().all(plain)).then_some(text)
}

/// An unclosed block is reported at the end of the input, which is a line after the last one.
fn location(location: serde_saphyr::Location, source: &str) -> Location {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    let line = narrow(location.line());
    // Counting is for the rare case; a file of ten thousand rules must not be counted for each of them.
    let line =
        if line > 1 && written_past_the_end(location, source) { line.min(lines(source)) } else { line };
    Location { line, column: narrow(location.column()) }
}

fn written_past_the_end(location: serde_saphyr::Location, source: &str) -> bool {
    let end = u64::try_from(source.len()).unwrap_or(u64::MAX);
    location.span().byte_offset().is_none_or(|offset| offset >= end)
}

fn lines(source: &str) -> u32 {
    let breaks = source.trim_end_matches(['\r', '\n']).replace("\r\n", "\n");
    let count = 1 + breaks.bytes().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn syntax_problem(error: &YamlError, source: &str) -> Problem {
    let place = error.location().map_or(Location { line: 1, column: 1 }, |place| {
        let Location { line, column } = location(place, source);
        Location { line: line.min(lines(source)), column }
    });
    let here = source.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or_default();
    let (message, hint) = match error.without_snippet() {
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key {:?} is here twice", shortened(key)), Some("keep one of the two"))
        }
        YamlError::Budget { breach, .. } => budget_problem(breach),
        YamlError::MultipleDocuments { .. } => budget_problem(&BudgetBreach::Documents { documents: 2 }),
        YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. } => (GROWS.to_owned(), Some(FEWER_ALIASES)),
        YamlError::UnknownAnchor { .. } => ("an alias without its anchor".to_owned(), None),
        YamlError::RecursiveReferencesRequireWeakTypes { .. } => {
            ("an alias inside of its own anchor".to_owned(), None)
        }
        YamlError::Unexpected { .. } | YamlError::NullIntoString { .. } => {
            ("a key must be a text".to_owned(), None)
        }
        other => {
            let text = other.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text);
            // A breach inside of an alias, and the scanner's own limit on brackets, come as text only.
            if text.starts_with("budget breached") {
                (GROWS.to_owned(), Some(FEWER_ALIASES))
            } else if text.starts_with("recursion limit") {
                budget_problem(&BudgetBreach::Depth { depth: MAX_DEPTH })
            } else {
                (format!("not valid YAML: {text}"), syntax_hint(text, here))
            }
        }
    };
    problem(place, message, hint.map(str::to_owned))
}

const GROWS: &str = "the file grows too large when its anchors and aliases are followed";
const FEWER_ALIASES: &str = "write the values out, or use fewer aliases";

fn budget_problem(breach: &BudgetBreach) -> (String, Option<&'static str>) {
    match breach {
        BudgetBreach::Documents { .. } => (
            "a second document starts here; a file holds one".to_owned(),
            Some("remove `---` and what follows"),
        ),
        BudgetBreach::Depth { .. } => (format!("values are nested more than {MAX_DEPTH} deep"), None),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
            (format!("the file has more than {MAX_NODES} values"), Some(FEWER_ALIASES))
        }
        _ => (GROWS.to_owned(), Some(FEWER_ALIASES)),
    }
}

fn syntax_hint(text: &str, line: &str) -> Option<&'static str> {
    if text.contains("tabs disallowed") {
        Some("indent with spaces")
    } else if text.contains("flow") && line.contains("${") {
        Some("inside of [ ] and { }, put quotes around \"${NAME}\"")
    } else if text.contains("unexpected character") || text.contains("mapping values are not allowed") {
        Some("put quotes around a text with special characters")
    } else {
        None
    }
}

fn problem(location: Location, message: String, hint: Option<String>) -> Problem {
    Problem { severity: Severity::Error, location: Some(location), path: String::new(), message, hint }
}
