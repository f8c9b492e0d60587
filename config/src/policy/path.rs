//! Paths as rules see them: percent-decoded, `//` collapsed; and the patterns that match them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::glob::{Glob, GlobError, is_literal};

/// The path of a request in the form that rules match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NormalPath<'a> {
    bytes: Cow<'a, [u8]>,
    /// Holds `%2F`, `%5C`, `%3B`, `;` or `\`, which servers read in more than one way.
    pub(super) ambiguous: bool,
}

/// Why a path is judged by nobody: servers would disagree on what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathFault {
    /// A `.` or `..` segment, encoded or not.
    DotSegment,
    /// A control byte, encoded or not.
    Control,
    /// Does not begin with `/` (and is not `*`, which only OPTIONS may send).
    NotAbsolute,
}

impl<'a> NormalPath<'a> {
    pub(super) fn parse(path: &'a str) -> Result<Self, PathFault> {
        if path.is_empty() {
            return Ok(Self { bytes: Cow::Borrowed(b"/"), ambiguous: false });
        }
        if path == "*" {
            return Ok(Self { bytes: Cow::Borrowed(b"*"), ambiguous: false });
        }
        if !path.starts_with('/') {
            return Err(PathFault::NotAbsolute);
        }
        let decoded: Cow<'a, [u8]> =
            if path.contains('%') { percent_decode_str(path).into() } else { Cow::Borrowed(path.as_bytes()) };
        if decoded.iter().any(|&b| b < 0x20 || b == 0x7f) {
            return Err(PathFault::Control);
        }
        let raw_slashes = path.bytes().filter(|&b| b == b'/').count();
        let ambiguous = is_still_encoded(&decoded)
            || decoded.iter().any(|&b| matches!(b, b'\\' | b';'))
            || decoded.iter().filter(|&&b| b == b'/').count() != raw_slashes;
        let mut double_slash = false;
        // A backslash is a separator to some servers, so `..\` is a dot segment as well; so is `..;` to others.
        let mut start = 0;
        for end in 0..=decoded.len() {
            if end == decoded.len() || matches!(decoded[end], b'/' | b'\\' | b';') {
                let segment = &decoded[start..end];
                if matches!(segment, b"." | b"..") {
                    return Err(PathFault::DotSegment);
                }
                double_slash |=
                    segment.is_empty() && start > 0 && end < decoded.len() && decoded[end] == b'/';
                start = end + 1;
            }
        }
        // `/a//` ends in an empty segment after an empty one.
        double_slash |= decoded.ends_with(b"//");
        let bytes = if double_slash { Cow::Owned(collapse_slashes(&decoded)) } else { decoded };
        Ok(Self { bytes, ambiguous })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whether a server that decodes twice would read something else (`%252e`).
fn is_still_encoded(decoded: &[u8]) -> bool {
    decoded.windows(3).any(|bytes| bytes[0] == b'%' && bytes[1..].iter().all(u8::is_ascii_hexdigit))
}

fn collapse_slashes(path: &[u8]) -> Vec<u8> {
    let mut collapsed = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || collapsed.last() != Some(&b'/') {
            collapsed.push(byte);
        }
    }
    collapsed
}

/// One entry of a rule's `paths`.
#[derive(Clone, Debug)]
pub(crate) enum PathPattern {
    /// No wildcard: equality.
    Exact(Box<str>),
    /// `/v1/*`: `/v1` itself, and everything below `/v1/`. Holds `/v1/`.
    Below(Box<str>),
    /// Anything else: a glob whose `*` stops at `/`.
    Glob(Glob),
}

impl PathPattern {
    pub(crate) fn parse(pattern: &str) -> Result<Self, GlobError> {
        match pattern.strip_suffix('*') {
            Some(prefix) if prefix.ends_with('/') && is_literal(prefix) => Ok(Self::Below(prefix.into())),
            Some(prefix) if prefix.ends_with('/') => {
                // `/a*/b/*`: a glob up to the last slash, anything below it.
                let stem = &prefix[..prefix.len() - 1];
                Glob::path_or_below(stem).map(Self::Glob)
            }
            _ if is_literal(pattern) => Ok(Self::Exact(pattern.into())),
            _ => Glob::new(pattern, '/').map(Self::Glob),
        }
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == path,
            Self::Below(prefix) => {
                let prefix = prefix.as_bytes();
                path.starts_with(prefix) || path == &prefix[..prefix.len() - 1]
            }
            Self::Glob(glob) => glob.is_match(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_see_the_decoded_path_with_slashes_collapsed() {
        for (path, normal, ambiguous) in [
            ("", "/", false),
            ("/", "/", false),
            ("/v1/x", "/v1/x", false),
            ("/v1//x", "/v1/x", false),
            ("//v1", "/v1", false),
            ("/v1//", "/v1/", false),
            ("/%76%31/x", "/v1/x", false),
            ("/v1%2Fx", "/v1/x", true),
            ("/v1%2F/x", "/v1/x", true),
            ("/v1%5Cx", "/v1\\x", true),
            ("/v1;a=b", "/v1;a=b", true),
            ("/v1%3Ba", "/v1;a", true),
            ("/%2561dmin", "/%61dmin", true),
            ("/50%25", "/50%", false),
            ("/a...b/..c", "/a...b/..c", false),
            ("*", "*", false),
        ] {
            let parsed = NormalPath::parse(path).unwrap();
            assert_eq!((parsed.as_bytes(), parsed.ambiguous), (normal.as_bytes(), ambiguous), "{path}");
        }
    }

    #[test]
    fn paths_that_servers_read_differently_are_faults() {
        for (path, fault) in [
            ("/a/../b", PathFault::DotSegment),
            ("/a/%2e%2E/b", PathFault::DotSegment),
            ("/a/.", PathFault::DotSegment),
            ("/./a", PathFault::DotSegment),
            ("/a%2f..%2fb", PathFault::DotSegment),
            ("/a/..\\b", PathFault::DotSegment),
            ("/a/..;/b", PathFault::DotSegment),
            ("/a%00", PathFault::Control),
            ("/a%0d%0a", PathFault::Control),
            ("a", PathFault::NotAbsolute),
        ] {
            assert_eq!(NormalPath::parse(path), Err(fault), "{path}");
        }
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, path, matches) in [
            ("/v1/*", "/v1", true),
            ("/v1/*", "/v1/", true),
            ("/v1/*", "/v1/a/b", true),
            ("/v1/*", "/v10", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/v1", "/v1", true),
            ("/v1", "/v1/", false),
            ("/v1/*/messages", "/v1/a/messages", true),
            ("/v1/*/messages", "/v1/a/b/messages", false),
            ("/repos/*/x/*", "/repos/a/x", true),
            ("/repos/*/x/*", "/repos/a/x/b/c", true),
            ("/repos/*/x/*", "/repos/a/b/x/c", false),
            ("/v[0-9]/a", "/v2/a", true),
        ] {
            assert_eq!(
                PathPattern::parse(pattern).unwrap().matches(path.as_bytes()),
                matches,
                "{pattern} {path}"
            );
        }
    }
}
