//! What a command did, line by line for people or as a whole for programs.

use serde_json::{Value, json};

use crate::command::shown;
use crate::control_client::Resource;
use crate::failure::Failure;

/// Lines are printed as things happen: when one goes wrong, what was done before it is known.
pub(super) struct Report {
    json: bool,
    on: Value,
    done: Vec<Value>,
}

impl Report {
    /// Begins with whom it is about.
    pub(super) fn on(what: &str, resource: &Resource, json: bool) -> Result<Self, Failure> {
        if !json {
            shown::line(&format!("{what}: {} ({})", dash(resource.text("foreign_id")), resource.id()))?;
        }
        Ok(Self { json, on: resource.value().clone(), done: Vec::new() })
    }

    pub(super) fn did(&mut self, line: &str, value: Value) -> Result<(), Failure> {
        self.done.push(value);
        if self.json { Ok(()) } else { shown::line(&format!("  {line}")) }
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        if self.json { shown::json(&json!({ "on": self.on, "done": self.done })) } else { Ok(()) }
    }
}

pub(super) fn dash(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

/// Prints `NAME  ID  TITLE` and a line with the number of them.
pub(super) fn identities(
    mut found: Vec<Resource>,
    noun: &str,
    namespace: &str,
    json: bool,
) -> Result<(), Failure> {
    found.sort_by(|a, b| a.text("foreign_id").cmp(&b.text("foreign_id")));
    if json {
        return shown::json(&found.into_iter().map(Resource::into_value).collect());
    }
    if found.is_empty() {
        return shown::line(&format!("no {noun}s found in namespace {namespace:?}"));
    }
    let width = found.iter().map(|it| dash(it.text("foreign_id")).chars().count()).max().unwrap_or_default();
    for it in &found {
        let (name, title) = (dash(it.text("foreign_id")), it.text("name").unwrap_or_default());
        shown::line(format!("{name:<width$}  {}  {title}", it.id()).trim_end())?;
    }
    shown::line(&format!("({} {noun}(s))", found.len()))
}
