//! Shell globs whose wildcards stop at a separator: `.` in hosts, `/` in paths.
//!
//! Translated to the `regex` crate, which is linear in its input (T80); `globset` knows only `/` as a separator.

use std::str::Chars;

use regex::bytes::{Regex, RegexBuilder};

/// A compiled glob: `*` and `?` match anything but the separator, `[a-z]` and `[!a-z]` are classes, `\` escapes.
#[derive(Clone, Debug)]
pub(super) struct Glob(Regex);

/// Where and how a glob is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[` without `]`, or a class that holds nothing.
    #[error("`[` opens a character class that is never closed")]
    OpenClass,
    /// `\` at the end.
    #[error("`\\` at the end escapes nothing")]
    OpenEscape,
    /// A class whose range runs backwards, or a pattern too large to compile.
    #[error("the pattern does not compile; is a range like `[a-z]` the wrong way round?")]
    Pattern,
}

impl Glob {
    /// The whole text matches `pattern`.
    pub(super) fn new(pattern: &str, separator: char) -> Result<Self, GlobError> {
        Self::between("^", pattern, separator, "$")
    }

    /// A host that matches `pattern`, or any name below such a host.
    pub(super) fn host_or_below(pattern: &str) -> Result<Self, GlobError> {
        Self::between("^(?:.+\\.)?", pattern, '.', "$")
    }

    /// A path that matches `pattern`, or any path below it.
    pub(super) fn path_or_below(pattern: &str) -> Result<Self, GlobError> {
        Self::between("^", pattern, '/', "(?:/.*)?$")
    }

    fn between(before: &str, pattern: &str, separator: char, after: &str) -> Result<Self, GlobError> {
        let separator = regex::escape(&separator.to_string());
        let mut regex = before.to_owned();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' => regex.extend(["[^", separator.as_str(), "]*"]),
                '?' => regex.extend(["[^", separator.as_str(), "]"]),
                '\\' => {
                    regex.push_str(&regex::escape(&chars.next().ok_or(GlobError::OpenEscape)?.to_string()));
                }
                '[' => push_class(&mut regex, &mut chars, &separator)?,
                literal => regex.push_str(&regex::escape(&literal.to_string())),
            }
        }
        regex.push_str(after);
        // Not Unicode: a path is bytes, and `*` must match the ones that are not UTF-8.
        RegexBuilder::new(&regex)
            .unicode(!pattern.is_ascii())
            .dot_matches_new_line(true)
            .build()
            .map(Self)
            .map_err(|_| GlobError::Pattern)
    }

    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// Whether `pattern` holds anything that a glob treats specially.
pub(super) fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', '\\'])
}

/// Translates a class whose `[` has been read. Whatever it holds, it does not hold the separator: a wildcard stops there.
fn push_class(regex: &mut String, chars: &mut Chars<'_>, separator: &str) -> Result<(), GlobError> {
    let mut chars = chars.by_ref().peekable();
    let negation = chars.next_if(|c| matches!(c, '^' | '!')).map_or("", |_| "^");
    let mut members = String::new();
    loop {
        let low = match chars.next().ok_or(GlobError::OpenClass)? {
            ']' if !members.is_empty() => break,
            c => member(c, &mut chars)?,
        };
        members.push_str(&low);
        // A `-` before the end of the class is itself.
        if chars.next_if_eq(&'-').is_some() {
            match chars.next().ok_or(GlobError::OpenClass)? {
                ']' => {
                    members.push_str("\\-");
                    break;
                }
                c => members.extend(["-", &member(c, &mut chars)?]),
            }
        }
    }
    regex.extend(["[[", negation, &members, "]--", separator, "]"]);
    Ok(())
}

/// One character of a class, escaped: what means something in a regex's class means itself here.
fn member(c: char, rest: &mut impl Iterator<Item = char>) -> Result<String, GlobError> {
    let c = if c == '\\' { rest.next().ok_or(GlobError::OpenClass)? } else { c };
    Ok(regex::escape(&c.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stop_at_the_separator() {
        for (pattern, separator, text, matches) in [
            ("/v1/*", '/', "/v1/a", true),
            ("/v1/*/x", '/', "/v1/a/x", true),
            ("/v1/*/x", '/', "/v1/a/b/x", false),
            ("api-*.example", '.', "api-1.example", true),
            ("api-*.example", '.', "api-1.b.example", false),
            ("api-?.example", '.', "api-1.example", true),
            ("api-?.example", '.', "api-.example", false),
            ("api-[0-9].example", '.', "api-7.example", true),
            ("api-[!0-9].example", '.', "api-7.example", false),
            ("/a[!b]c", '/', "/a/c", false),
            ("api[!0-9]x.example", '.', "api.x.example", false),
            ("/[+--]", '/', "/,", true),
            ("/[a-]", '/', "/-", true),
            ("/[&&a]", '/', "/&", true),
            ("/a\\*b", '/', "/a*b", true),
            ("/a\\*b", '/', "/axb", false),
            ("/a.b", '/', "/axb", false),
        ] {
            let glob = Glob::new(pattern, separator).unwrap();
            assert_eq!(glob.is_match(text.as_bytes()), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn malformed_globs_are_named() {
        assert_eq!(Glob::new("[a", '/').unwrap_err(), GlobError::OpenClass);
        assert_eq!(Glob::new("a\\", '/').unwrap_err(), GlobError::OpenEscape);
        assert_eq!(Glob::new("[z-a]", '/').unwrap_err(), GlobError::Pattern);
        assert_eq!(Glob::new("[a--]", '/').unwrap_err(), GlobError::Pattern);
    }
}
