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

/// One body on its way out.
#[derive(Debug)]
pub(crate) struct BodySwap {
    /// By number of the placeholder.
    actions: Vec<Action>,
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
    pub(crate) fn new(
        policy: &Policy,
        actions: Vec<Action>,
        required: SmallVec<[(u32, Refusal); 1]>,
        coding: Option<Coding>,
    ) -> Self {
        let texts = policy.placeholders().texts().map(|text| Zeroizing::new(text.as_bytes().to_vec()));
        Self {
            actions,
            required,
            replaced: SmallVec::new(),
            replacer: Replacer::new(Arc::new(Patterns::new(texts)), Caps::SWAP),
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
        let Self { actions, replaced, replacer, plain, .. } = self;
        replacer
            .finish(|pattern| decide(actions, replaced, pattern), plain)
            .map_err(|error| refusal(actions, error))?;
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
        let Self { actions, replaced, replacer, plain, .. } = self;
        replacer
            .push(piece, |pattern| decide(actions, replaced, pattern), plain)
            .map_err(|error| refusal(actions, error))?;
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

fn decide<'a>(actions: &'a [Action], replaced: &mut SmallVec<[u32; 1]>, pattern: u32) -> Decision<'a> {
    match &actions[pattern as usize] {
        Action::Leave => Decision::Leave,
        Action::Refuse(_) => Decision::Abort,
        Action::Replace(secret, value) => {
            if !replaced.contains(secret) {
                replaced.push(*secret);
            }
            Decision::Replace(value.expose().as_bytes())
        }
    }
}

fn refusal(actions: &[Action], error: ReplaceError) -> Refusal {
    if let ReplaceError::Aborted(pattern) = error
        && let Action::Refuse(refusal) = &actions[pattern as usize]
    {
        return refusal.clone();
    }
    Refusal::new(Reason::BodyTooLarge, error.to_string())
}

fn coding(error: &CodingError) -> Refusal {
    Refusal::new(Reason::CodingNotSwappable, format!("the body cannot be searched: {error}"))
}
