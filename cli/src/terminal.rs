//! What people read: data to stdout, talk to stderr, colour only where somebody looks (and never with NO_COLOR).

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use owo_colors::{OwoColorize, Stream, Style};

use crate::failure::Failure;

/// Writes what the command was asked for.
pub(crate) fn data(text: impl Display) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // `keyferry … | head` has what it wanted.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::fatal(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something about it. With stderr gone there is nobody left to tell.
pub(crate) fn talk(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub(crate) fn error(message: &str) {
    talk(format!("{} {}", bad(Stream::Stderr, "error:"), with_hints(message)));
}

pub(crate) fn warning(message: &str) {
    let label = paint(Stream::Stderr, Style::new().yellow().bold(), "warning:");
    talk(format!("{label} {}", with_hints(message)));
}

pub(crate) fn good(stream: Stream, text: &str) -> String {
    paint(stream, Style::new().green().bold(), text)
}

pub(crate) fn bad(stream: Stream, text: &str) -> String {
    paint(stream, Style::new().red().bold(), text)
}

pub(crate) fn strong(stream: Stream, text: &str) -> String {
    paint(stream, Style::new().bold(), text)
}

pub(crate) fn faint(stream: Stream, text: &str) -> String {
    paint(stream, Style::new().dimmed(), text)
}

/// The message for stderr, with the word that begins a next step standing out.
pub(crate) fn with_hints(message: &str) -> String {
    let hint = paint(Stream::Stderr, Style::new().cyan().bold(), "hint:");
    let lines: Vec<String> = message
        .lines()
        .map(|line| match line.trim_start().strip_prefix("hint:") {
            Some(rest) => format!("{}{hint}{rest}", &line[..line.len() - line.trim_start().len()]),
            None => line.to_owned(),
        })
        .collect();
    lines.join("\n")
}

fn paint(stream: Stream, style: Style, text: &str) -> String {
    text.if_supports_color(stream, |text| text.style(style)).to_string()
}
