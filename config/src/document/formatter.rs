//! The text around an injected value: the part of Go's templates that iron-proxy's users write.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::policy::fits_a_header;

/// A template such as `Bearer {{ .Value }}` or `Basic {{ base64 "user:" .Value }}`. No template crate for Rust reads this
/// syntax, and a general one would be a language where three idioms are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formatter(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value,
    /// The operands one after the other, then base64 of all.
    Base64(Vec<Operand>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Text(String),
    Value,
}

/// Why a template cannot be used. Never holds the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatterError {
    /// `{{` without `}}`.
    #[error("`{{{{` without its `}}}}` in a template")]
    Open,
    /// Something else than the idioms between the braces.
    #[error("not a template that this proxy reads")]
    Action,
    /// A text in quotes that does not end, or holds an escape that Go does not know.
    #[error("a quoted text in a template is malformed")]
    Quotes,
}

impl FormatterError {
    /// What to write.
    pub fn hint(self) -> &'static str {
        "write `Bearer {{ .Value }}` or `Basic {{ base64 \"user:\" .Value }}`"
    }
}

impl Formatter {
    /// Reads a template.
    pub fn parse(template: &str) -> Result<Self, FormatterError> {
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let text = |text: &str| (!text.is_empty()).then(|| Piece::Text(text.to_owned()));
            pieces.extend(text(before));
            let (piece, after) = action(after)?;
            pieces.push(piece);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// Whether the text around the value may stand in a header (T52); base64 takes any.
    pub(super) fn fits_a_header(&self) -> bool {
        self.0.iter().all(|piece| match piece {
            Piece::Text(text) => fits_a_header(text),
            Piece::Value | Piece::Base64(_) => true,
        })
    }

    /// The template with `value` in it, in one buffer that is wiped and never reallocated, which would leave a copy behind.
    pub fn render(&self, value: &str) -> Zeroizing<String> {
        let length = self.0.iter().map(|piece| piece.rendered_len(value)).sum();
        let mut rendered = Zeroizing::new(String::with_capacity(length));
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => rendered.push_str(text),
                Piece::Value => rendered.push_str(value),
                Piece::Base64(operands) => {
                    let length = operands.iter().map(|operand| operand.text(value).len()).sum();
                    let mut plain = Zeroizing::new(String::with_capacity(length));
                    operands.iter().for_each(|operand| plain.push_str(operand.text(value)));
                    STANDARD.encode_string(plain.as_bytes(), &mut rendered);
                }
            }
        }
        rendered
    }
}

impl fmt::Display for Formatter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                // The braces of a text that held them in quotes.
                Piece::Text(text) if text.contains("{{") => write!(f, "{{{{ {} }}}}", Quoted(text))?,
                Piece::Text(text) => f.write_str(text)?,
                Piece::Value => f.write_str("{{ .Value }}")?,
                Piece::Base64(operands) => {
                    f.write_str("{{ base64")?;
                    for operand in operands {
                        match operand {
                            Operand::Text(text) => write!(f, " {}", Quoted(text))?,
                            Operand::Value => f.write_str(" .Value")?,
                        }
                    }
                    f.write_str(" }}")?;
                }
            }
        }
        Ok(())
    }
}

/// A text in the quotes that [`operand`] reads.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                other => write!(f, "{other}")?,
            }
        }
        f.write_str("\"")
    }
}

impl Serialize for Formatter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Piece {
    fn rendered_len(&self, value: &str) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Value => value.len(),
            Self::Base64(operands) => {
                let plain: usize = operands.iter().map(|operand| operand.text(value).len()).sum();
                plain.div_ceil(3) * 4
            }
        }
    }
}

impl Operand {
    fn text<'a>(&'a self, value: &'a str) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Value => value,
        }
    }
}

/// What stands between `{{` and `}}`, and what follows.
fn action(text: &str) -> Result<(Piece, &str), FormatterError> {
    let mut rest = text.trim_start();
    let mut operands = Vec::new();
    let base64 = match rest.strip_prefix("base64") {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    };
    loop {
        let spaced = rest.starts_with(char::is_whitespace) || (!base64 && operands.is_empty());
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((piece(base64, operands)?, after));
        }
        if rest.is_empty() {
            return Err(FormatterError::Open);
        }
        if !spaced {
            return Err(FormatterError::Action);
        }
        let (operand, after) = operand(rest)?;
        operands.push(operand);
        rest = after;
    }
}

fn piece(base64: bool, mut operands: Vec<Operand>) -> Result<Piece, FormatterError> {
    match (base64, operands.pop(), operands.is_empty()) {
        (true, Some(last), _) => {
            operands.push(last);
            Ok(Piece::Base64(operands))
        }
        (false, Some(Operand::Value), true) => Ok(Piece::Value),
        (false, Some(Operand::Text(text)), true) => Ok(Piece::Text(text)),
        _ => Err(FormatterError::Action),
    }
}

fn operand(text: &str) -> Result<(Operand, &str), FormatterError> {
    if let Some(after) = text.strip_prefix(".Value") {
        return Ok((Operand::Value, after));
    }
    if let Some(after) = text.strip_prefix('`') {
        let (raw, after) = after.split_once('`').ok_or(FormatterError::Quotes)?;
        return Ok((Operand::Text(raw.to_owned()), after));
    }
    let inside = text.strip_prefix('"').ok_or(FormatterError::Action)?;
    let mut quoted = String::new();
    let mut characters = inside.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((Operand::Text(quoted), &inside[index + 1..])),
            '\\' => quoted.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, 'r')) => '\r',
                Some((_, 't')) => '\t',
                Some((_, same @ ('"' | '\\'))) => same,
                _ => return Err(FormatterError::Quotes),
            }),
            '\n' => return Err(FormatterError::Quotes),
            other => quoted.push(other),
        }
    }
    Err(FormatterError::Quotes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rendered(template: &str, value: &str) -> Result<String, FormatterError> {
        Formatter::parse(template).map(|formatter| formatter.render(value).to_string())
    }

    #[test]
    fn renders_the_idioms() {
        for (template, expected) in [
            ("Bearer {{ .Value }}", "Bearer s3cret"),
            ("Bearer {{.Value}}", "Bearer s3cret"),
            ("{{ base64 .Value \":\" }}", "czNjcmV0Og=="),
            ("Basic {{ base64 \"user:\" .Value }}", "Basic dXNlcjpzM2NyZXQ="),
            ("Basic {{base64 `a:` .Value}};x", "Basic YTpzM2NyZXQ=;x"),
            ("{{ \"a\\\"b\" }}-{{ .Value }}", "a\"b-s3cret"),
            ("token {{ .Value }}/{{ .Value }}", "token s3cret/s3cret"),
            ("no value } here", "no value } here"),
            ("", ""),
        ] {
            assert_eq!(rendered(template, "s3cret"), Ok(expected.to_owned()), "{template}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_read() {
        for (template, expected) in [
            ("Bearer {{ .Value", FormatterError::Open),
            ("Bearer {{", FormatterError::Open),
            ("{{ }}", FormatterError::Action),
            ("{{ .Token }}", FormatterError::Action),
            ("{{ .Valued }}", FormatterError::Action),
            ("{{ .Value .Value }}", FormatterError::Action),
            ("{{ .Value | base64 }}", FormatterError::Action),
            ("{{ base64 }}", FormatterError::Action),
            ("{{ base64.Value }}", FormatterError::Action),
            ("{{ base64 \"a\".Value }}", FormatterError::Action),
            ("{{ if .Value }}x{{ end }}", FormatterError::Action),
            ("{{- .Value -}}", FormatterError::Action),
            ("{{ base64 \"a }}", FormatterError::Quotes),
            ("{{ \"\\q\" }}", FormatterError::Quotes),
        ] {
            assert_eq!(rendered(template, "s3cret"), Err(expected), "{template}");
        }
    }

    proptest! {
        #[test]
        fn a_template_means_the_same_as_it_was_written(template in "([a-z{}. \"\\\\]|\\{\\{ .Value \\}\\}|\\{\\{ base64 .Value \"[{a\\\\n]{0,3}\" \\}\\}|\\{\\{ \"[{]{2}\" \\}\\}){0,12}", value in ".{0,10}") {
            if let Ok(formatter) = Formatter::parse(&template) {
                let again = Formatter::parse(&formatter.to_string());
                prop_assert_eq!(again.map(|again| again.render(&value)), Ok(formatter.render(&value)), "{}", formatter);
            }
        }

        #[test]
        fn rendering_never_grows_its_buffer(template in "([a-z{}. \"]|\\{\\{ .Value \\}\\}|\\{\\{ base64 .Value \\}\\}){0,12}", value in ".{0,40}") {
            if let Ok(formatter) = Formatter::parse(&template) {
                let rendered = formatter.render(&value);
                let length: usize = formatter.0.iter().map(|piece| piece.rendered_len(&value)).sum();
                prop_assert_eq!(rendered.len(), length);
            }
        }
    }
}
