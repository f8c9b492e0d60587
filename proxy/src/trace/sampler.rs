//! Which traces are told.

use super::context::{Context, TraceId};

/// `OTEL_TRACES_SAMPLER` and its argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether the decision of whoever began the trace counts, where somebody did.
    pub follows_parent: bool,
    /// Of the traces that nobody has decided on, this part: 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_on`.
    fn default() -> Self {
        Self { follows_parent: true, ratio: 1.0 }
    }
}

impl Sampler {
    pub(crate) fn decide(&self, parent: Option<&Context>, trace: TraceId) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.sampled,
            Some(_) | None => self.takes(trace),
        }
    }

    /// By the id alone, so that everyone on the way who samples by ratio decides alike: its last 8 bytes, as other SDKs do.
    fn takes(&self, TraceId(id): TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = id;
        let random = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        // Of 2^63; a float is exact enough for a share.
        (random as f64) < self.ratio.clamp(0.0, 1.0) * 2f64.powi(63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::context::SpanId;

    fn trace(low: u64) -> TraceId {
        TraceId((u128::from(low) | 1 << 64).to_be_bytes())
    }

    #[test]
    fn a_ratio_takes_that_part_of_the_traces() {
        let taken = |ratio| {
            let sampler = Sampler { follows_parent: true, ratio };
            const STEP: u64 = u64::MAX / 1000;
            (0..1000).filter(|n| sampler.decide(None, trace(n * STEP + STEP / 2))).count()
        };
        assert_eq!([taken(0.0), taken(0.25), taken(1.0)], [0, 250, 1000]);
    }

    #[test]
    fn a_parent_decides_where_it_counts() {
        let parent = |sampled| Context { trace: trace(1), span: SpanId([1; 8]), sampled };
        let decide = |follows_parent, ratio, sampled| {
            Sampler { follows_parent, ratio }.decide(Some(&parent(sampled)), trace(1))
        };
        assert_eq!([decide(true, 1.0, false), decide(true, 0.0, true)], [false, true]);
        assert_eq!([decide(false, 1.0, false), decide(false, 0.0, true)], [true, false]);
    }
}
