//! Looks for generated placeholders in streamed bodies on their way to a host that they are not bound to (invariant 4, T41).

use std::sync::Arc;

use bytes::BytesMut;
use keyferry_config::policy::{Policy, Scope};

/// A search over a body that arrives in pieces.
#[derive(Debug)]
pub(crate) struct Watch {
    policy: Arc<Policy>,
    /// By number of the generated placeholder: it is bound to this destination.
    bound: Vec<bool>,
    /// The end of what was seen, in which a placeholder may have begun.
    tail: BytesMut,
}

impl Watch {
    /// A watch for the bodies of requests to `scope`'s destination, or none where there is nothing to look for.
    pub(crate) fn new(scope: &Scope) -> Option<Self> {
        let policy = scope.policy();
        let generated = policy.generated_placeholders();
        if generated.is_empty() {
            return None;
        }
        let bound: Vec<bool> = scope.generated_bound();
        (!bound.iter().all(|bound| *bound)).then(|| Self {
            policy: Arc::clone(policy),
            bound,
            tail: BytesMut::new(),
        })
    }

    /// Whether a misdirected placeholder ends in `piece`.
    pub(crate) fn sees(&mut self, piece: &[u8]) -> bool {
        let generated = self.policy.generated_placeholders();
        let overlap = generated.longest() - 1;
        let misdirected =
            |text: &[u8]| generated.find_in(text).any(|found| !self.bound[found.placeholder as usize]);
        // Across the border, then within the piece; nothing is copied but the border.
        let border = !self.tail.is_empty() && {
            self.tail.extend_from_slice(&piece[..piece.len().min(overlap)]);
            misdirected(&self.tail)
        };
        if border || misdirected(piece) {
            return true;
        }
        if piece.len() >= overlap {
            self.tail.clear();
            self.tail.extend_from_slice(&piece[piece.len() - overlap..]);
        } else {
            if self.tail.is_empty() {
                self.tail.extend_from_slice(piece);
            }
            let excess = self.tail.len().saturating_sub(overlap);
            let _ = self.tail.split_to(excess);
        }
        false
    }
}
