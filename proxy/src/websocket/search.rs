//! What is looked for in messages, and what becomes of it.

use std::sync::Arc;

use bytes::Bytes;
use keyferry_config::policy::Refusal;
use smallvec::SmallVec;

use crate::redact::{RedactStream, Redactor};
use crate::stream::{Pieces, Replacer};
use crate::transform::swap::Swaps;

/// One direction's.
#[derive(Clone, Debug)]
pub(super) enum Search {
    /// Towards the upstream: placeholders.
    Swap(Arc<Swaps>),
    /// Towards the sandbox: live values.
    Redact(Arc<Redactor>),
}

/// One message under search.
#[derive(Debug)]
pub(super) enum Scan {
    Swap { swaps: Arc<Swaps>, replacer: Replacer, replaces: bool },
    Redact(RedactStream),
}

/// What was found so far on a connection.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The secrets that went out.
    pub(super) swapped: SmallVec<[u32; 1]>,
    /// How many values were taken out on their way back.
    pub(super) redacted: u64,
}

impl Search {
    /// A search of one text. Without `replaces` nothing is swapped; what must not go on is found all the same.
    pub(super) fn begin(&self, replaces: bool) -> Scan {
        match self {
            Self::Swap(swaps) => {
                Scan::Swap { swaps: Arc::clone(swaps), replacer: swaps.replacer(), replaces }
            }
            Self::Redact(redactor) => Scan::Redact(redactor.stream()),
        }
    }
}

impl Scan {
    pub(super) fn push(&mut self, piece: Bytes, out: &mut Pieces, tally: &mut Tally) -> Result<(), Refusal> {
        match self {
            Self::Swap { swaps, replacer, replaces } => replacer
                .push(piece, |text| swaps.decide(text, *replaces, &mut tally.swapped), out)
                .map_err(|error| swaps.refusal(error)),
            Self::Redact(stream) => {
                stream.push(piece, out);
                Ok(())
            }
        }
    }

    pub(super) fn finish(mut self, out: &mut Pieces, tally: &mut Tally) -> Result<(), Refusal> {
        match &mut self {
            Self::Swap { swaps, replacer, replaces } => replacer
                .finish(|text| swaps.decide(text, *replaces, &mut tally.swapped), out)
                .map_err(|error| swaps.refusal(error)),
            Self::Redact(stream) => {
                stream.finish(out);
                tally.redacted += stream.redacted();
                Ok(())
            }
        }
    }
}
