//! A record as people read it.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::Timestamp;
use keyferry_config::policy::Location;
use keyferry_contract::audit::{Action, Beginning, Event, EventKind, Line, Message, Record, SecretUse};
use owo_colors::Stream::Stdout;

use super::printable::text;
use crate::terminal;

pub(super) fn line(line: &Line<'_>) -> String {
    match line {
        Line::Request(record) => request(record),
        Line::Event(event) => self::event(event),
    }
}

fn request(record: &Record<'_>) -> String {
    let audit = &record.audit;
    let word = match record.msg {
        Message::Request => audit.action.as_str(),
        Message::RequestOpen => "open",
    };
    let word = format!("{word:<13}");
    let word = match audit.action {
        Action::Allow => terminal::good(Stdout, &word),
        Action::Reject | Action::Error => terminal::bad(Stdout, &word),
        Action::ClientCancel => terminal::faint(Stdout, &word),
    };
    let status = audit.status_code.map_or(Cow::Borrowed("-"), |status| status.to_string().into());
    let method = if audit.method.is_empty() { "-".into() } else { text(&audit.method) };
    let duration = terminal::faint(Stdout, &format!("{} ms", audit.duration_ms));
    let mut out = format!(
        "{}  {word}{status:<3}  {method} {}  {duration}  {}",
        time(record.time),
        target(record),
        text(&audit.principal)
    );
    for transform in record.request_transforms.iter().chain(&record.response_transforms) {
        let annotations = &transform.annotations;
        for SecretUse { secret, locations } in annotations.swapped.iter().chain(&annotations.injected) {
            let locations: Vec<String> = locations.iter().map(Location::to_string).collect();
            push(&mut out, &format!("{} in {}", text(secret), text(&locations.join(", "))));
        }
        if let Some(count) = annotations.redacted {
            push(&mut out, &format!("{count} redacted"));
        }
    }
    if let Some(reason) = &audit.reason {
        push(&mut out, &terminal::strong(Stdout, &text(reason)));
    }
    if let Some(error) = &record.error {
        push(&mut out, &text(error));
    }
    out
}

fn push(out: &mut String, more: &str) {
    // Writing to a String does not fail.
    let _ = write!(out, "  {more}");
}

/// What was asked for, as far as it could be read.
fn target(record: &Record<'_>) -> String {
    let audit = &record.audit;
    let scheme = audit.scheme.as_deref().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    let host = if audit.host.is_empty() { "-" } else { &audit.host };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = match (audit.scheme.as_deref(), audit.port) {
        (Some("https"), Some(443)) | (Some("http"), Some(80)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    text(&format!("{scheme}{host}{port}{}", audit.path)).into_owned()
}

fn event(Event { time, level: _, kind }: &Event) -> String {
    let words = match kind {
        EventKind::Chain { chain } => {
            let mut words = match chain.event {
                Beginning::Start => "the chain of this log starts here".to_owned(),
                Beginning::Continue => format!("the chain of this log goes on from {}", chain.prev),
            };
            if chain.torn.is_some() {
                words += "; a crash has left the line before incomplete";
            }
            terminal::faint(Stdout, &words)
        }
        EventKind::Dropped { dropped } => terminal::bad(
            Stdout,
            &format!("{} records are missing here: there was no room for them", dropped.count),
        ),
    };
    format!("{}  {words}", self::time(*time))
}

/// To the millisecond, in UTC, so that lines stand under each other.
fn time(time: Timestamp) -> String {
    terminal::faint(Stdout, &format!("{time:.3}"))
}
