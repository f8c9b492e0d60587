//! Replacing in a stream is replacing in a text, however the stream is cut.
//!
//! An input is lines `TEXT=REPLACEMENT`, or `TEXT` for one that is left, an empty line, and the body.

use keyferry_proxy::fuzzing::replace;

use crate::splits::splits;

/// Streams a body.
pub fn run(data: &[u8]) {
    let (texts, body) = match data.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, data),
    };
    let texts: Vec<(Vec<u8>, Option<Vec<u8>>)> = texts
        .split(|&byte| byte == b'\n')
        .take(200)
        .map(|line| match line.iter().position(|&byte| byte == b'=') {
            Some(at) => (line[..at].to_vec(), Some(line[at + 1..].to_vec())),
            None => (line.to_vec(), None),
        })
        .collect();
    let expected = naive(&texts, body);
    for pieces in splits(body) {
        assert_eq!(replace(&texts, pieces), expected);
    }
}

/// Leftmost first, the longest of those that begin there, of equal ones the first.
fn naive(texts: &[(Vec<u8>, Option<Vec<u8>>)], body: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let matching = texts.iter().filter(|(text, _)| !text.is_empty() && body[at..].starts_with(text));
        // `max_by_key` takes the last of equal ones.
        match matching.rev().max_by_key(|(text, _)| text.len()) {
            Some((text, with)) => {
                replaced.extend_from_slice(with.as_ref().unwrap_or(text));
                at += text.len();
            }
            None => {
                replaced.push(body[at]);
                at += 1;
            }
        }
    }
    replaced
}
