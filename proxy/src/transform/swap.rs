//! Swapping placeholders in a body while it streams, through its content coding (T34).

use std::sync::Arc;

use bytes::Bytes;
use keyferry_config::policy::{Policy, Reason, Refusal};
use keyferry_source::SecretValue;
use smallvec::SmallVec;
use zeroize::Zeroizing;

use crate::coding::{Coding, CodingError, Decoder, Encoder};
use crate::stream::{Caps, Decision, Patterns, Pieces, ReplaceError, Replacer};

/// What becomes of a placeholder.
#[derive(Debug)]
pub(crate) enum Action {
    /// It has no business here, or its entry does not search bodies.
    Leave,
    /// It becomes the value of the secret of this number.
    Replace(u32, Arc<SecretValue>),
    /// The request must not go on.
    Refuse(Refusal),
}

impl Action {
    /// Whether it changes nothing.
    pub(crate) fn leaves(&self) -> bool {
        matches!(self, Self::Leave)
    }
}

/// All placeholders of a policy, and what becomes of each at one destination.
#[derive(Debug)]
pub(crate) struct Swaps {
    /// By number of the placeholder.
    actions: Vec<Action>,
    patterns: Arc<Patterns>,
}

impl Swaps {
    /// `actions`: by number of the placeholder.
    pub(crate) fn new(policy: &Policy, actions: Vec<Action>) -> Self {
        Self::of(policy.placeholders().texts(), actions)
    }

    pub(crate) fn of<'t>(texts: impl IntoIterator<Item = &'t str>, actions: Vec<Action>) -> Self {
        let texts = texts.into_iter().map(|text| Zeroizing::new(text.as_bytes().to_vec()));
        Self { actions, patterns: Arc::new(Patterns::new(texts)) }
    }

    /// The same placeholders with other actions.
    pub(crate) fn with(&self, actions: Vec<Action>) -> Self {
        Self { actions, patterns: Arc::clone(&self.patterns) }
    }

    /// For one text that is searched.
    pub(crate) fn replacer(&self) -> Replacer {
        Replacer::new(Arc::clone(&self.patterns), Caps::SWAP)
    }

    /// What becomes of a match; a secret that goes out is added to `replaced`. Without `replaces` nothing is swapped.
    pub(crate) fn decide(
        &self,
        pattern: u32,
        replaces: bool,
        replaced: &mut SmallVec<[u32; 1]>,
    ) -> Decision<'_> {
        match &self.actions[pattern as usize] {
            Action::Leave => Decision::Leave,
            // It must be misdirected to stop a text that is not swapped; a value that is missing is not needed there.
            Action::Refuse(refusal) if replaces || refusal.reason == Reason::PlaceholderMisdirected => {
                Decision::Abort
            }
            Action::Replace(secret, value) if replaces => {
                if !replaced.contains(secret) {
                    replaced.push(*secret);
                }
                Decision::Replace(value.expose().as_bytes())
            }
            Action::Refuse(_) | Action::Replace(..) => Decision::Leave,
        }
    }

    /// Why a replacer could not go on.
    pub(crate) fn refusal(&self, error: ReplaceError) -> Refusal {
        if let ReplaceError::Aborted(pattern) = error
            && let Action::Refuse(refusal) = &self.actions[pattern as usize]
        {
            return refusal.clone();
        }
        Refusal::new(Reason::BodyTooLarge, error.to_string())
    }
}

/// One body on its way out.
#[derive(Debug)]
pub(crate) struct BodySwap {
    swaps: Swaps,
    /// Secrets whose placeholder the body must hold, and the refusal if it does not.
    required: SmallVec<[(u32, Refusal); 1]>,
    replaced: SmallVec<[u32; 1]>,
    replacer: Replacer,
    decoder: Option<Decoder>,
    encoder: Option<Encoder>,
    /// Decoded and swapped, not encoded again.
    plain: Pieces,
    out: Pieces,
    /// Pushed to the encoder, and not flushed.
    waiting: bool,
    is_over: bool,
}

impl BodySwap {
    pub(crate) fn new(swaps: Swaps, required: SmallVec<[(u32, Refusal); 1]>, coding: Option<Coding>) -> Self {
        let replacer = swaps.replacer();
        Self {
            swaps,
            required,
            replaced: SmallVec::new(),
            replacer,
            decoder: coding.map(|coding| Decoder::new(coding, None)),
            encoder: coding.map(Encoder::new),
            plain: Pieces::new(),
            out: Pieces::new(),
            waiting: false,
            is_over: false,
        }
    }

    /// The next piece of the client's body.
    pub(crate) fn push(&mut self, piece: Bytes) -> Result<(), Refusal> {
        let Some(decoder) = &mut self.decoder else { return self.swap(piece) };
        decoder.push(piece);
        while let Some(decoded) =
            self.decoder.as_mut().map_or(Ok(None), Decoder::pull).map_err(|error| coding(&error))?
        {
            self.swap(decoded)?;
        }
        Ok(())
    }

    /// The client's body is over.
    pub(crate) fn finish(&mut self) -> Result<(), Refusal> {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish().map_err(|error| coding(&error))?;
        }
        let Self { swaps, replaced, replacer, plain, .. } = self;
        replacer
            .finish(|pattern| swaps.decide(pattern, true, replaced), plain)
            .map_err(|error| swaps.refusal(error))?;
        self.encode()?;
        if let Some(encoder) = self.encoder.take() {
            encoder.finish(&mut self.out).map_err(|error| coding(&error))?;
        }
        if let Some((_, refusal)) = self.required.iter().find(|(secret, _)| !self.replaced.contains(secret)) {
            return Err(refusal.clone());
        }
        self.is_over = true;
        Ok(())
    }

    /// The client pauses: what the encoder holds goes on.
    pub(crate) fn flush(&mut self) -> Result<(), Refusal> {
        match &mut self.encoder {
            Some(encoder) if std::mem::take(&mut self.waiting) => {
                encoder.flush(&mut self.out).map_err(|error| coding(&error))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The next piece for the upstream, if there is one.
    pub(crate) fn pull(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.out.is_empty()
    }

    /// Puts a piece in front of what comes next.
    pub(crate) fn put_back(&mut self, piece: Bytes) {
        self.out.push_front(piece);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The secrets whose values went into the body so far.
    pub(crate) fn replaced(&self) -> &[u32] {
        &self.replaced
    }

    fn swap(&mut self, piece: Bytes) -> Result<(), Refusal> {
        let Self { swaps, replaced, replacer, plain, .. } = self;
        replacer
            .push(piece, |pattern| swaps.decide(pattern, true, replaced), plain)
            .map_err(|error| swaps.refusal(error))?;
        self.encode()
    }

    fn encode(&mut self) -> Result<(), Refusal> {
        let Some(encoder) = &mut self.encoder else {
            self.out.append(&mut self.plain);
            return Ok(());
        };
        for piece in self.plain.drain(..) {
            encoder.push(&piece, &mut self.out).map_err(|error| coding(&error))?;
            self.waiting = true;
        }
        Ok(())
    }
}

fn coding(error: &CodingError) -> Refusal {
    Refusal::new(Reason::CodingNotSwappable, format!("the body cannot be searched: {error}"))
}
