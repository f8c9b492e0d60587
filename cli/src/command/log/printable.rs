//! Text as a terminal may see it: no byte of a record moves the cursor, changes a colour or starts a line (T86).

use std::borrow::Cow;
use std::fmt::Write;

/// Replaces what is not to be printed by `\u{1b}`.
pub(in crate::command) fn text(text: &str) -> Cow<'_, str> {
    replaced(text, |character, out| write!(out, "\\u{{{:x}}}", u32::from(character)))
}

/// The same inside JSON, where `\u001b` means the character itself.
pub(in crate::command) fn json(text: &str) -> Cow<'_, str> {
    replaced(text, |character, out| {
        let mut units = [0; 2];
        character.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
    })
}

fn replaced(text: &str, write: impl Fn(char, &mut String) -> std::fmt::Result) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            // Writing to a String does not fail.
            let _ = write(character, &mut shown);
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Control characters of both ranges, other line ends, and what turns the direction of writing around.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t86_nothing_that_a_terminal_obeys_is_printed() {
        let attack = "/a\u{1b}[2J\r\n\u{9b}31m\u{7f}\u{202e}x\u{2028}ü";
        assert_eq!(text(attack), "/a\\u{1b}[2J\\u{d}\\u{a}\\u{9b}31m\\u{7f}\\u{202e}x\\u{2028}ü");
        assert_eq!(json("\"\u{9b}\u{7f}\u{2028}ü\""), "\"\\u009b\\u007f\\u2028ü\"");
        assert!(matches!(text("/v1/messages"), Cow::Borrowed(_)));
    }
}
