//! Replaces texts in bytes that arrive in pieces, as if they had arrived at once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::patterns::Patterns;

/// What goes on, in order. Pieces are never empty.
pub(crate) type Pieces = VecDeque<Bytes>;

/// Pieces up to this size are joined with what is held, so that an event stream does not fall into crumbs.
const JOINED: usize = 1024;

/// How much one stream may change (T34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Replacements in all.
    pub(crate) replacements: u64,
    /// Bytes by which replacements are longer than what they replace, in all; shorter ones do not make up for it.
    pub(crate) growth: u64,
}

impl Caps {
    /// For what a sandbox sends: no client repeats a credential ten thousand times, and a placeholder of a few bytes must not make
    /// keyferry send gigabytes.
    pub(crate) const SWAP: Self = Self { replacements: 10_000, growth: 16 << 20 };
    /// For what is put back: every occurrence must go, and nothing is held, so there is nothing to exhaust.
    pub(crate) const NONE: Self = Self { replacements: u64::MAX, growth: u64::MAX };
}

/// What to do with one match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision<'r> {
    /// These bytes take its place. They are not searched again.
    Replace(&'r [u8]),
    /// It goes on as it is. What it covers is not searched for other texts.
    Leave,
    /// The stream must not go on.
    Abort,
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplaceError {
    #[error("the body needs more than {0} replacements")]
    TooMany(u64),
    #[error("replacing would make the body more than {0} bytes longer")]
    TooMuchGrowth(u64),
    /// [`Decision::Abort`], for the text of this number.
    #[error("the body holds a text that must not go on")]
    Aborted(u32),
}

/// A stream in which the texts of `patterns` are replaced: leftmost match first, the longest of those that begin there, none
/// overlapping, each decided by its number.
///
/// The result does not depend on how the stream is cut into pieces. What cannot be part of an undecided match goes on at once, so only
/// the end of what has arrived is held back, and only while it is the beginning of a text: fewer bytes than the longest text has.
/// Nothing but more bytes, or the end, releases it; it must not be flushed because the stream is idle (T44).
///
/// Per piece: [`push`](Self::push) appends to `out`; at the end: [`finish`](Self::finish). After an error the stream is over, and
/// nothing of the piece that caused it has gone on. A piece in which nothing is replaced is not copied.
pub(crate) struct Replacer {
    patterns: Arc<Patterns>,
    held: Bytes,
    tally: Tally,
    failed: Option<ReplaceError>,
}

#[derive(Debug)]
struct Tally {
    left: Caps,
    caps: Caps,
}

impl Replacer {
    pub(crate) fn new(patterns: Arc<Patterns>, caps: Caps) -> Self {
        Self { patterns, held: Bytes::new(), tally: Tally { left: caps, caps }, failed: None }
    }

    /// The next piece of the stream.
    pub(crate) fn push<'r>(
        &mut self,
        piece: Bytes,
        mut decide: impl FnMut(u32) -> Decision<'r>,
        out: &mut Pieces,
    ) -> Result<(), ReplaceError> {
        self.guarded(out, |this, out| this.advance(piece, &mut decide, out))
    }

    /// The end of the stream: what is held is decided as it stands.
    pub(crate) fn finish<'r>(
        &mut self,
        mut decide: impl FnMut(u32) -> Decision<'r>,
        out: &mut Pieces,
    ) -> Result<(), ReplaceError> {
        self.guarded(out, |this, out| {
            let mut pass = Pass::new(std::mem::take(&mut this.held), 0);
            let end = pass.text.len();
            while let Some(found) = this.patterns.find(&pass.text, pass.at) {
                pass.apply(found, &mut decide, &mut this.tally)?;
            }
            pass.end(end, out);
            Ok(())
        })
    }

    /// How many replacements there were so far.
    pub(crate) fn replacements(&self) -> u64 {
        self.tally.caps.replacements - self.tally.left.replacements
    }

    fn guarded(
        &mut self,
        out: &mut Pieces,
        work: impl FnOnce(&mut Self, &mut Pieces) -> Result<(), ReplaceError>,
    ) -> Result<(), ReplaceError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let before = out.len();
        work(self, out).inspect_err(|&error| {
            out.truncate(before);
            self.held = Bytes::new();
            self.failed = Some(error);
        })
    }

    fn advance<'r>(
        &mut self,
        piece: Bytes,
        decide: &mut impl FnMut(u32) -> Decision<'r>,
        out: &mut Pieces,
    ) -> Result<(), ReplaceError> {
        let (text, from) = match self.held.len() {
            _ if piece.is_empty() => return Ok(()),
            0 => (piece, 0),
            held if piece.len() <= JOINED.max(self.patterns.longest()) => {
                (join(&std::mem::take(&mut self.held), &piece, held + piece.len()), 0)
            }
            held => {
                let from = self.cross(held, &piece, decide, out)?;
                (piece, from)
            }
        };
        let mut pass = Pass::new(text, from);
        let mut undecided = self.patterns.undecided_from(&pass.text, pass.at);
        while let Some(found) = self.patterns.find(&pass.text, pass.at).filter(|f| f.start < undecided) {
            pass.apply(found, decide, &mut self.tally)?;
            if pass.at > undecided {
                undecided = self.patterns.undecided_from(&pass.text, pass.at);
            }
        }
        self.held = pass.end(undecided, out);
        Ok(())
    }

    /// Decides all that begins in what is held, with as much of `piece` as that takes. Answers how much of `piece` is dealt with.
    fn cross<'r>(
        &mut self,
        held: usize,
        piece: &Bytes,
        decide: &mut impl FnMut(u32) -> Decision<'r>,
        out: &mut Pieces,
    ) -> Result<usize, ReplaceError> {
        let text = join(&std::mem::take(&mut self.held), piece, held + self.patterns.longest() - 1);
        let mut pass = Pass::new(text, 0);
        while let Some(found) = self.patterns.find(&pass.text, pass.at).filter(|f| f.start < held) {
            pass.apply(found, decide, &mut self.tally)?;
        }
        let end = pass.at.max(held);
        pass.end(end, out);
        Ok(end - held)
    }
}

/// How much is held, not what: it may be the beginning of a secret (T46).
impl fmt::Debug for Replacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacer")
            .field("patterns", &self.patterns)
            .field("held", &self.held.len())
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

/// The first `length` bytes of the two.
fn join(held: &Bytes, piece: &Bytes, length: usize) -> Bytes {
    let mut text = BytesMut::with_capacity(length);
    text.extend_from_slice(held);
    text.extend_from_slice(&piece[..length - held.len()]);
    text.freeze()
}

/// One way through a text whose matches are decided.
struct Pass {
    text: Bytes,
    /// Up to here everything is decided.
    at: usize,
    /// Up to here everything has gone into `changed`, or is a part of another text.
    copied: usize,
    /// What goes on, from the first replacement on.
    changed: BytesMut,
}

impl Pass {
    fn new(text: Bytes, from: usize) -> Self {
        Self { text, at: from, copied: from, changed: BytesMut::new() }
    }

    fn apply<'r>(
        &mut self,
        found: super::patterns::Found,
        decide: &mut impl FnMut(u32) -> Decision<'r>,
        tally: &mut Tally,
    ) -> Result<(), ReplaceError> {
        match decide(found.pattern) {
            Decision::Replace(with) => {
                tally.count(found.end - found.start, with.len())?;
                if self.changed.is_empty() {
                    self.changed.reserve(self.text.len() - self.copied + with.len());
                }
                self.changed.extend_from_slice(&self.text[self.copied..found.start]);
                self.changed.extend_from_slice(with);
                self.copied = found.end;
            }
            Decision::Leave => {}
            Decision::Abort => return Err(ReplaceError::Aborted(found.pattern)),
        }
        self.at = found.end;
        Ok(())
    }

    /// Emits all up to `end`, and answers the rest.
    fn end(mut self, end: usize, out: &mut Pieces) -> Bytes {
        let rest = self.text.split_off(end);
        self.text.advance(self.copied);
        let piece = if self.changed.is_empty() {
            self.text
        } else {
            self.changed.extend_from_slice(&self.text);
            self.changed.freeze()
        };
        if !piece.is_empty() {
            out.push_back(piece);
        }
        rest
    }
}

impl Tally {
    fn count(&mut self, replaced: usize, with: usize) -> Result<(), ReplaceError> {
        let left = &mut self.left;
        left.replacements =
            left.replacements.checked_sub(1).ok_or(ReplaceError::TooMany(self.caps.replacements))?;
        left.growth = left
            .growth
            .checked_sub(with.saturating_sub(replaced) as u64)
            .ok_or(ReplaceError::TooMuchGrowth(self.caps.growth))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
