//! No value comes through the redactor in any encoding that is promised, however the body is cut; and nothing else changes.
//!
//! An input is lines, one value each, an empty line, and the body. In the body, `\x01` followed by two bytes stands for a value in an
//! encoding.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use keyferry_proxy::fuzzing::redact;

use crate::splits::splits;

/// What takes a value's place. Its bytes are in no value of an input, so that it makes no new one with its neighbours.
const LABEL: &str = "\u{2}";
/// Shorter values are not looked for.
const SHORTEST: usize = 8;
const ENCODINGS: usize = 12;

/// Streams a body.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (values, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let values: Vec<&str> = values
        .lines()
        .filter(|value| {
            value.len() <= 200 && !value.contains(['\u{1}', '\u{2}']) && value.trim().len() >= SHORTEST
        })
        .take(6)
        .collect();
    let body = with_values(body, &values);
    let labelled: Vec<(String, String)> =
        values.iter().map(|value| (LABEL.to_owned(), (*value).to_owned())).collect();

    let mut results = splits(body.as_bytes()).map(|pieces| redact(&labelled, pieces));
    let redacted = results.next().expect("a first way");
    for other in results {
        assert_eq!(other, redacted, "the result depends on how the body is cut");
    }
    for value in &values {
        for encoding in 0..ENCODINGS {
            let form = core(value, encoding);
            assert!(
                !holds(&redacted, &form),
                "{value:?} came through as {form:?}: {:?}",
                String::from_utf8_lossy(&redacted)
            );
        }
    }
    assert_nothing_else_changed(body.as_bytes(), &redacted);
    if values.is_empty() {
        assert_eq!(redacted, body.as_bytes());
    }
}

/// What is between the labels stands in the body, in that order.
fn assert_nothing_else_changed(body: &[u8], redacted: &[u8]) {
    let body_labels = body.iter().filter(|&&byte| byte == LABEL.as_bytes()[0]).count();
    if body_labels > 0 {
        return;
    }
    let mut rest = body;
    for part in redacted.split(|&byte| byte == LABEL.as_bytes()[0]) {
        let at = find(rest, part).expect("what is left stands in the body");
        rest = &rest[at + part.len()..];
    }
}

/// The body with its marks replaced by what they stand for.
fn with_values(body: &str, values: &[&str]) -> String {
    let mut parts = body.split('\u{1}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        let (value, encoding) = (chars.next().unwrap_or('0'), chars.next().unwrap_or('0'));
        if let Some(value) = values.get(value as usize % 6) {
            text.push_str(&encoded(value, encoding as usize % ENCODINGS));
        }
        text.push_str(chars.as_str());
    }
    text
}

/// One value as a server may send it.
fn encoded(value: &str, encoding: usize) -> String {
    let bytes = value.as_bytes();
    let percent = |kept: fn(u8) -> bool| -> String {
        bytes
            .iter()
            .map(|&byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    match encoding {
        0 => value.to_owned(),
        1 => percent(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
        2 => bytes.iter().map(|byte| format!("%{byte:02x}")).collect(),
        3..=5 => STANDARD.encode([&b"  "[..encoding - 3], bytes].concat()),
        6..=8 => URL_SAFE.encode([&b"  "[..encoding - 6], bytes].concat()),
        9 => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        10 => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
        _ => {
            let json = serde_json::to_string(value).expect("a string");
            json[1..json.len() - 1].to_owned()
        }
    }
}

/// The part of an encoding that holds nothing but the value without white space around it, and must not come through.
fn core(value: &str, encoding: usize) -> String {
    let value = value.trim();
    let form = encoded(value, encoding);
    let alignment = match encoding {
        3..=5 => encoding - 3,
        6..=8 => encoding - 6,
        _ => return form,
    };
    let (first, end) = ((alignment * 8).div_ceil(6), (alignment + value.len()) * 8 / 6);
    form[first..end].to_owned()
}

fn holds(text: &[u8], form: &str) -> bool {
    find(text, form.as_bytes()).is_some()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    text.windows(part.len()).position(|window| window == part)
}
