//! The forms in which an upstream may send a value back (T45).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::SHORTEST;

/// One form of a value.
type Form = Zeroizing<Vec<u8>>;

const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";

/// What else is left as it is by an encoder that leaves letters, digits, `-`, `.` and `_`: all that RFC 3986 reserves encoded, like
/// JavaScript's encodeURIComponent, like Python's quote, and nothing.
const UNENCODED: [&[u8]; 4] = [b"~", b"~!'()*", b"~/", b""];

/// What else than JSON requires is escaped as `\u00XX`: nothing, as Go does, as Gson does, as .NET does.
const ESCAPED_TOO: [&str; 4] = ["", "<>&", "<>&='", "<>&'\"+`"];

/// All forms of `value`, each once; none if it is too short.
pub(super) fn forms(value: &str) -> Vec<Form> {
    if value.len() < SHORTEST {
        return Vec::new();
    }
    // Servers trim what comes in a header. What is found without the white space is found with it.
    let value = Some(value.trim()).filter(|trimmed| trimmed.len() >= SHORTEST).unwrap_or(value);
    let bytes = value.as_bytes();
    let mut forms = vec![Form::new(bytes.to_vec())];
    for digits in [UPPER, LOWER] {
        forms.push(percent(bytes, digits, |_| false));
        for unencoded in UNENCODED {
            let kept = |byte: u8| {
                byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || unencoded.contains(&byte)
            };
            forms.push(percent(bytes, digits, kept));
        }
        forms.push(form_urlencoded(bytes, digits));
        forms.push(hexadecimal(bytes, digits));
    }
    for alignment in 0..3 {
        forms.push(base64(bytes, alignment, &STANDARD_NO_PAD));
        forms.push(base64(bytes, alignment, &URL_SAFE_NO_PAD));
    }
    forms.extend(json_forms(value));

    let mut seen = HashSet::new();
    let first: Vec<bool> = forms.iter().map(|form| seen.insert(form.as_slice())).collect();
    let mut first = first.into_iter();
    forms.retain(|_| first.next().unwrap_or(false));
    forms
}

fn percent(bytes: &[u8], digits: &[u8; 16], kept: impl Fn(u8) -> bool) -> Form {
    let mut form = Form::new(Vec::with_capacity(bytes.len() * 3));
    for &byte in bytes {
        if kept(byte) {
            form.push(byte);
        } else {
            form.push(b'%');
            form.extend(pair(byte, digits));
        }
    }
    form
}

/// As browsers send forms: a space becomes `+` (WHATWG URL, application/x-www-form-urlencoded).
fn form_urlencoded(bytes: &[u8], digits: &[u8; 16]) -> Form {
    let mut form = percent(bytes, digits, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'-' | b'.' | b'_' | b' ')
    });
    form.iter_mut().filter(|byte| **byte == b' ').for_each(|byte| *byte = b'+');
    form
}

fn hexadecimal(bytes: &[u8], digits: &[u8; 16]) -> Form {
    let mut form = Form::new(Vec::with_capacity(bytes.len() * 2));
    bytes.iter().for_each(|&byte| form.extend(pair(byte, digits)));
    form
}

fn pair(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

/// The characters that depend on nothing but the value, when `before` bytes precede it in its group of three.
fn base64(bytes: &[u8], before: usize, engine: &GeneralPurpose) -> Form {
    let mut padded = Zeroizing::new(vec![0; before + bytes.len()]);
    padded[before..].copy_from_slice(bytes);
    let encoded = Zeroizing::new(engine.encode(&*padded));
    let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
    Form::new(encoded.as_bytes()[first..end].to_vec())
}

fn json_forms(value: &str) -> impl Iterator<Item = Form> + '_ {
    ESCAPED_TOO.into_iter().flat_map(move |escaped_too| {
        (0..16).map(move |bits| {
            let json = Json {
                slash: bits & 1 != 0,
                non_ascii: bits & 2 != 0,
                short: bits & 4 != 0,
                digits: if bits & 8 != 0 { UPPER } else { LOWER },
                escaped_too,
            };
            json.escape(value)
        })
    })
}

/// One way of writing JSON strings (RFC 8259 section 7).
struct Json {
    slash: bool,
    non_ascii: bool,
    /// `\n` rather than `\u000a`.
    short: bool,
    digits: &'static [u8; 16],
    escaped_too: &'static str,
}

impl Json {
    fn escape(&self, value: &str) -> Form {
        // Six bytes for each byte of the value is the most, so that growing leaves no copy behind.
        let mut form = Form::new(Vec::with_capacity(value.len() * 6));
        for character in value.chars() {
            match character {
                _ if self.escaped_too.contains(character) => self.by_number(character, &mut form),
                '"' | '\\' => form.extend([b'\\', character as u8]),
                '/' if self.slash => form.extend(b"\\/"),
                '\x08' if self.short => form.extend(b"\\b"),
                '\x0c' if self.short => form.extend(b"\\f"),
                '\n' if self.short => form.extend(b"\\n"),
                '\r' if self.short => form.extend(b"\\r"),
                '\t' if self.short => form.extend(b"\\t"),
                '\0'..' ' => self.by_number(character, &mut form),
                _ if self.non_ascii && !character.is_ascii() => self.by_number(character, &mut form),
                _ => form.extend(character.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        form
    }

    fn by_number(&self, character: char, form: &mut Form) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let [high, low] = unit.to_be_bytes();
            form.extend(b"\\u");
            form.extend(pair(high, self.digits));
            form.extend(pair(low, self.digits));
        }
    }
}
