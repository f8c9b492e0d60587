//! What control says would become of a request, for people.

use std::fmt::Write;

use owo_colors::Stream;
use serde_json::Value;

use super::super::log::printable;
use crate::terminal;

/// The whole answer of `explain`, with a request.
pub(super) fn text(access: &Value) -> String {
    let request = &access["request"];
    let of = |key: &str| printable::text(request[key].as_str().unwrap_or_default());
    let mut text = format!("{} {}\n\n", of("method"), of("url"));
    let from = origin(&request["rule_from"], access);
    // Writing to a String does not fail.
    let _ = match request["reason"].as_str() {
        None => writeln!(text, "{}{from}", terminal::good(Stream::Stdout, "forward")),
        Some(reason) => writeln!(text, "{}  {reason}{from}", terminal::bad(Stream::Stdout, "refuse")),
    };
    for key in ["message", "hint"] {
        if request[key].is_string() {
            let label = if key == "hint" { "hint: " } else { "" };
            let _ = writeln!(text, "  {label}{}", of(key));
        }
    }
    let held = access["secrets"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !held.is_empty() {
        let _ = writeln!(text, "\nsecrets");
    }
    for secret in held {
        let _ = writeln!(text, "  {}", printable::text(&secret_line(secret, &request["secrets"], held)));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Where the rule that decides comes from.
fn origin(from: &Value, access: &Value) -> String {
    let text = |key: &str| from[key].as_str().unwrap_or_default();
    let through = match text("through") {
        "role" => format!(" of role {}", text("role")),
        _ => String::new(),
    };
    match text("of") {
        "egress_rule" => format!("  by rule {}{through}", text("id")),
        "secret" => {
            let held = access["secrets"].as_array().into_iter().flatten();
            let named = held.into_iter().find(|secret| secret["secret_id"] == from["id"]);
            format!("  by secret {}", named.map_or(text("id"), name))
        }
        _ => String::new(),
    }
}

/// A secret that the principal has: what it does here, or why it does nothing; and to which other it yields.
fn secret_line(secret: &Value, here: &Value, held: &[Value]) -> String {
    let applied = here.as_array().into_iter().flatten().find(|it| it["secret_id"] == secret["secret_id"]);
    let mut line = format!("{}: ", name(secret));
    match applied {
        Some(applied) => {
            let places: Vec<_> =
                applied["locations"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            line.push_str(applied["outcome"].as_str().unwrap_or_default());
            if !places.is_empty() {
                line.push_str(" at ");
                line.push_str(&places.join(", "));
            }
            line.push_str(": ");
            line.push_str(applied["why"].as_str().unwrap_or_default());
        }
        None => line.push_str(secret["reason"].as_str().unwrap_or_default()),
    }
    for other in secret["yields"].as_array().into_iter().flatten() {
        let to = held.iter().find(|it| it["secret_id"] == other["to"]);
        let to = to.map_or_else(|| other["to"].as_str().unwrap_or_default(), name);
        let at = other["at"].as_str().unwrap_or_default();
        let because = other["because"].as_str().unwrap_or_default();
        let _ = write!(line, "; yields to {to} at {at} ({because})");
    }
    line
}

fn name(secret: &Value) -> &str {
    ["foreign_id", "name", "secret_id"].into_iter().find_map(|key| secret[key].as_str()).unwrap_or_default()
}
