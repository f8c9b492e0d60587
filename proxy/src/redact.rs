//! Takes live secret values out of what goes back to the sandbox (invariant 7, T43–T45).

mod forms;
mod live;
mod response;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use keyferry_source::SecretValue;
use zeroize::Zeroizing;

pub(crate) use keyferry_config::policy::SHORTEST_REDACTED as SHORTEST;
pub(crate) use live::{LiveRedactor, Redactors};
pub(crate) use response::{Scan, narrow_request, scan_fields};

use crate::stream::{Caps, Decision, Patterns, Pieces, Replacer};

/// What an injected value becomes; a swapped one becomes its placeholder.
pub(crate) fn label(name: &str) -> String {
    format!("[redacted:{name}]")
}

/// The values that must not go back, in the forms in which they may come, and what takes their place.
///
/// A value is found as it is; percent-encoded; in base64, standard and URL-safe, at any place of a longer text; in hexadecimal; and
/// escaped for JSON: [`forms`] has the list. Every form becomes the same plain text, so what was encoded does not decode to it: in a
/// base64 text the groups that hold bytes of the value alone are replaced, and one character at either end may remain, which holds up
/// to four bits of it. Arbitrary transformations (reversed, compressed, encrypted, base64 broken into lines) cannot be found.
///
/// The forms are wiped when the last holder drops them. Where a form was found, a copy lived in the piece that held it, which whoever
/// read it from the network owns.
pub(crate) struct Redactor {
    patterns: Arc<Patterns>,
    /// By number of the pattern, the number of its label.
    label_of: Vec<u32>,
    labels: Vec<Box<str>>,
}

impl Redactor {
    /// Each value with the text that takes its place. A name may come with several values, as old ones live on for a while; of equal
    /// forms the first counts. Values under [`SHORTEST`] bytes are left out.
    pub(crate) fn new<'v>(secrets: impl IntoIterator<Item = (String, &'v SecretValue)>) -> Self {
        Self::of(secrets.into_iter().map(|(label, value)| (label, value.expose())))
    }

    pub(crate) fn of<'v>(values: impl Iterator<Item = (String, &'v str)>) -> Self {
        let mut known = HashMap::<String, u32>::new();
        let mut label_of = Vec::new();
        let mut texts: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for (label, value) in values {
            let next = known.len() as u32;
            let number = *known.entry(label).or_insert(next);
            texts.extend(forms::forms(value));
            label_of.resize(texts.len(), number);
        }
        let mut labels = vec![Box::default(); known.len()];
        for (label, number) in known {
            labels[number as usize] = label.into();
        }
        Self { patterns: Arc::new(Patterns::new(texts)), label_of, labels }
    }

    /// Whether there is nothing to look for, so that responses may pass unread.
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `text` holds a value.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        self.patterns.find(text, 0).is_some()
    }

    /// The header value without secrets; `None` if it holds none.
    pub(crate) fn scan_header(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let bytes = value.as_bytes();
        let mut found = self.patterns.find(bytes, 0)?;
        let mut scanned = Vec::with_capacity(bytes.len());
        let mut at = 0;
        loop {
            scanned.extend_from_slice(&bytes[at..found.start]);
            scanned.extend_from_slice(self.label(found.pattern).as_bytes());
            at = found.end;
            match self.patterns.find(bytes, at) {
                Some(next) => found = next,
                None => break,
            }
        }
        scanned.extend_from_slice(&bytes[at..]);
        // A name or placeholder may hold what a header may not; then the whole value goes.
        let mut scanned = HeaderValue::from_bytes(&scanned).unwrap_or(HeaderValue::from_static("[redacted]"));
        scanned.set_sensitive(value.is_sensitive());
        Some(scanned)
    }

    /// A body to scan, in the coding `identity`.
    pub(crate) fn stream(self: &Arc<Self>) -> RedactStream {
        RedactStream {
            redactor: Arc::clone(self),
            replacer: Replacer::new(Arc::clone(&self.patterns), Caps::NONE),
        }
    }

    fn label(&self, pattern: u32) -> &str {
        &self.labels[self.label_of[pattern as usize] as usize]
    }
}

/// How much, not what (T46).
impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// One body on its way to the sandbox. What goes on without delay and what waits: see [`Replacer`].
#[derive(Debug)]
pub(crate) struct RedactStream {
    redactor: Arc<Redactor>,
    replacer: Replacer,
}

impl RedactStream {
    /// The next piece; what may go on is appended to `out`.
    pub(crate) fn push(&mut self, piece: Bytes, out: &mut Pieces) {
        let redactor = &self.redactor;
        let decide = |pattern| Decision::Replace(redactor.label(pattern).as_bytes());
        self.replacer.push(piece, decide, out).expect("nothing is capped and nothing aborts");
    }

    /// The end of the body. A body that breaks off ends here as well: what is held is the beginning of a value at most.
    pub(crate) fn finish(&mut self, out: &mut Pieces) {
        let redactor = &self.redactor;
        let decide = |pattern| Decision::Replace(redactor.label(pattern).as_bytes());
        self.replacer.finish(decide, out).expect("nothing is capped and nothing aborts");
    }

    /// How many values were taken out so far.
    pub(crate) fn redacted(&self) -> u64 {
        self.replacer.replacements()
    }
}

#[cfg(test)]
mod tests;
