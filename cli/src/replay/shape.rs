//! Paths without what differs from request to request.

/// How many segments of a path tell two kinds of request apart.
const SEGMENTS: usize = 8;

/// The path with `{}` for every segment that looks like an identifier.
pub(super) fn shape(path: &str) -> String {
    let mut segments: Vec<&str> =
        path.split('/').map(|segment| if is_id(segment) { "{}" } else { segment }).collect();
    if segments.len() > SEGMENTS {
        segments.truncate(SEGMENTS);
        segments.push("…");
    }
    segments.join("/")
}

fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hexadecimal = segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    match segment.len() {
        0 => false,
        length if digits == length => true,
        7.. if hexadecimal && digits > 0 => true,
        length => length >= 20 && digits > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_become_one() {
        let cases = [
            ("/", "/"),
            ("", ""),
            ("/v1/models", "/v1/models"),
            ("/repos/acme/site/issues/417", "/repos/acme/site/issues/{}"),
            ("/c/1d1dd15", "/c/{}"),
            ("/decade/facade", "/decade/facade"),
            ("/u/01a20354-4cd0-73b7-0000-000000000006/files", "/u/{}/files"),
            ("/threads/thread_abcDEF123ghiJKL456", "/threads/{}"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/…"),
        ];
        for (path, expected) in cases {
            assert_eq!(shape(path), expected);
        }
    }
}
