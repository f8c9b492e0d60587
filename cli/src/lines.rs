//! The lines of a file or a stream, one in memory at a time, and none without bound.

use std::io::{self, BufRead, Read};

/// A record is a few kilobytes, most of it a path. Of what is longer only the beginning is kept, which is no record.
const LONGEST: usize = 1 << 20;

/// Reads them.
pub(crate) struct Lines<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Without its end.
    pub(crate) bytes: &'a [u8],
    /// Its end is there: nobody was interrupted while writing it.
    pub(crate) ended: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, line: Vec::new(), number: 0 }
    }

    /// The next line; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let Self { from, line, number } = self;
        line.clear();
        *number += 1;
        if from.take(LONGEST as u64).read_until(b'\n', line)? == 0 {
            return Ok(None);
        }
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        let too_long = !whole && line.len() == LONGEST;
        if too_long {
            from.skip_until(b'\n')?;
        }
        Ok(Some(Line { number: *number, bytes: line, ended: whole || too_long }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let long = "x".repeat(2 * LONGEST);
        let text = format!("one\n\n{long}\ntwo");
        let mut lines = Lines::new(text.as_bytes());
        for expected in [
            Line { number: 1, bytes: b"one", ended: true },
            Line { number: 2, bytes: b"", ended: true },
            Line { number: 3, bytes: &long.as_bytes()[..LONGEST], ended: true },
            Line { number: 4, bytes: b"two", ended: false },
        ] {
            assert_eq!(lines.next().unwrap(), Some(expected));
        }
        assert_eq!(lines.next().unwrap(), None);
    }
}
