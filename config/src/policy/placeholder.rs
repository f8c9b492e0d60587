//! Finding placeholders: one pass, the longest at each place wins, nothing is scanned twice (invariant 4).

use aho_corasick::{AhoCorasick, MatchKind};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

/// The placeholders of a policy, each with a number.
#[derive(Debug)]
pub struct Placeholders {
    texts: Vec<Box<str>>,
    /// By number: made by keyferry.
    generated: Vec<bool>,
    automaton: Option<AhoCorasick>,
}

/// A placeholder at a place, in the coordinates of the text that was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which placeholder.
    pub placeholder: u32,
    /// First byte.
    pub start: usize,
    /// First byte after it.
    pub end: usize,
    /// It is not a part of a longer word: the bytes beside it are not letters, digits, `_` or `-`. One that keyferry made is never a part
    /// of something else.
    pub whole: bool,
}

/// How many bytes a generated placeholder has: `kf_` and 32 hexadecimal digits, 128 bits that nobody guesses (T62).
const GENERATED_LENGTH: usize = 35;

/// Whether `text` is a placeholder made by keyferry, which occurs nowhere by chance.
pub fn is_generated(text: &str) -> bool {
    text.len() == GENERATED_LENGTH
        && text
            .strip_prefix("kf_")
            .is_some_and(|hex| hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

impl Placeholders {
    pub(super) fn new(texts: Vec<Box<str>>) -> Self {
        let automaton = (!texts.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(texts.iter().map(|text| text.as_bytes()))
                // Fails past 2^31 states; a document is far smaller than that.
                .expect("the placeholders of one document fit an automaton")
        });
        let generated = texts.iter().map(|text| is_generated(text)).collect();
        Self { texts, generated, automaton }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether keyferry made it.
    pub fn is_generated(&self, placeholder: u32) -> bool {
        self.generated[placeholder as usize]
    }

    /// The text of a placeholder.
    pub fn text(&self, placeholder: u32) -> &str {
        &self.texts[placeholder as usize]
    }

    /// All texts, by number.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|text| &**text)
    }

    /// The length of the longest one, in bytes.
    pub fn longest(&self) -> usize {
        self.texts.iter().map(|text| text.len()).max().unwrap_or(0)
    }

    /// All placeholders in `text`, left to right, none overlapping.
    pub fn find_in<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Found> + 'a {
        self.automaton.iter().flat_map(move |automaton| automaton.find_iter(text)).map(|found| Found {
            placeholder: found.pattern().as_u32(),
            start: found.start(),
            end: found.end(),
            whole: self.generated[found.pattern()]
                || !text[..found.start()].last().is_some_and(is_word)
                    && !text.get(found.end()).is_some_and(is_word),
        })
    }

    /// All placeholders in a path or query, percent-encoded or not; places are those of the text as it stands.
    pub(super) fn find_in_target(&self, target: &str) -> SmallVec<[Found; 2]> {
        if self.is_empty() {
            return SmallVec::new();
        }
        if !target.contains('%') {
            return self.find_in(target.as_bytes()).collect();
        }
        let decoded = Vec::from_iter(percent_decode(target.as_bytes()));
        let raw = target.as_bytes();
        // Where each decoded byte begins in the raw text, and where the last one ends.
        let mut starts = Vec::with_capacity(decoded.len() + 1);
        let mut at = 0;
        while at < raw.len() {
            starts.push(at);
            let escape = raw[at] == b'%'
                && raw.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
            at += if escape { 3 } else { 1 };
        }
        starts.push(raw.len());
        self.find_in(&decoded)
            .map(|found| Found { start: starts[found.start], end: starts[found.end], ..found })
            .collect()
    }
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn placeholders(texts: &[&str]) -> Placeholders {
        Placeholders::new(texts.iter().map(|&text| text.into()).collect())
    }

    #[test]
    fn the_longest_placeholder_wins_and_words_are_told_apart() {
        let table = placeholders(&["KEY", "KEY_LONG"]);
        let found = |text: &str| {
            table
                .find_in(text.as_bytes())
                .map(|f| (f.placeholder, f.start, f.end, f.whole))
                .collect::<Vec<_>>()
        };
        assert_eq!(found("Bearer KEY"), [(0, 7, 10, true)]);
        assert_eq!(found("KEY_LONG KEY"), [(1, 0, 8, true), (0, 9, 12, true)]);
        assert_eq!(found("MY_KEY KEY_LONGER"), [(0, 3, 6, false), (1, 7, 15, false)]);
        assert_eq!(found("KEYKEY"), [(0, 0, 3, false), (0, 3, 6, false)]);
    }

    #[test]
    fn a_target_is_searched_encoded_and_not() {
        let table = placeholders(&["KEY:1"]);
        let found = |text: &str| {
            table
                .find_in_target(text)
                .iter()
                .map(|f| &text[f.start..f.end])
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert_eq!(found("/a?k=KEY:1&b=KEY%3A1&c=%4bEY%3a1"), ["KEY:1", "KEY%3A1", "%4bEY%3a1"]);
        assert_eq!(found("/a%2?k=KEY:1%"), ["KEY:1"]);
    }

    #[test]
    fn generated_placeholders_are_recognised() {
        assert!(is_generated("kf_0123456789abcdef0123456789abcdef"));
        assert!(!is_generated("kf_0123456789ABCDEF0123456789abcdef"));
        assert!(!is_generated("kf_0123456789abcdef0123456789abcde"));
        assert!(!is_generated("OPENAI_API_KEY"));
    }

    proptest! {
        #[test]
        fn places_point_at_the_placeholder_in_the_raw_text(target in "/([aKEY%25:1]|%4B|%3A){0,30}") {
            let table = placeholders(&["KEY", "K:1"]);
            for found in table.find_in_target(&target) {
                let decoded = Vec::from_iter(percent_decode(&target.as_bytes()[found.start..found.end]));
                prop_assert_eq!(decoded, table.text(found.placeholder).as_bytes());
            }
        }
    }
}
