//! What the everyday verbs print: tables for people, JSON for programs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::log::printable;
use crate::control_client::Answer;
use crate::failure::Failure;
use crate::terminal;

/// Prints a value as JSON.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::fatal)?;
    // serde_json escapes what JSON asks for; a terminal obeys more than that (T86).
    let lines: Vec<_> = text.lines().map(printable::json).collect();
    terminal::data(lines.join("\n"))
}

/// A line, of which no name can be more than its part (T86).
pub(super) fn line(text: &str) -> Result<(), Failure> {
    terminal::data(printable::text(text))
}

/// Prints rows below a header; with no rows, what `none` says.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
    none: &str,
) -> Result<(), Failure> {
    if rows.is_empty() {
        terminal::talk(printable::text(none));
        return Ok(());
    }
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable::text(cell).into_owned())).collect();
    let mut widths = header.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = std::iter::once(header.map(str::to_owned)).chain(rows).map(|row| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    });
    terminal::data(lines.collect::<Vec<_>>().join("\n"))
}

/// Says what control found odd about a write that it did.
pub(super) fn warnings(answer: &Answer) {
    for warning in answer.warnings() {
        terminal::warning(&printable::text(warning));
    }
}

/// A cell: a text, or a dash for nothing.
pub(super) fn cell(value: Option<&str>) -> String {
    value.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// When something ends: in a while from now.
pub(super) fn end_in(text: &str) -> Result<Timestamp, String> {
    Timestamp::now().checked_add(duration(text)?).map_err(|_| "it is too far away".to_owned())
}

/// A while, such as 8h.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::try_from(duration).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "it must be more than nothing".to_owned())
}
