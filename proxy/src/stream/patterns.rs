//! A fixed set of texts and a search for them: the leftmost match, and of those that begin there the longest.
//!
//! Our own search rather than aho-corasick's: past 64 patterns that runs at 0.1–0.5 GiB/s, with four it falls to 0.2 GiB/s where their
//! rare bytes are common (base64), it cannot tell which suffix of a text may still begin a match, and its tables cannot be wiped.

use std::fmt;

use zeroize::Zeroizing;

/// How many bytes are looked at together: four tell secrets and placeholders from their surroundings.
const BLOCK: usize = 4;
/// At most this far apart, as an entry of the table has a bit for each offset.
const STRIDE: usize = 16;
/// So many samples are looked at before a branch is taken on what they are.
const RUN: usize = 4;
const NONE: u32 = u32::MAX;

/// Texts to look for. What it holds of them is wiped when it is dropped.
///
/// The search samples one block of bytes every `stride` bytes. Every occurrence of a text of `stride + block - 1` bytes or more holds
/// exactly one whole sample, so that a sample which is no block of the first `stride` offsets of any text rules out `stride` places
/// at once. What remains is looked up in the sorted list of texts.
pub(crate) struct Patterns {
    /// Sorted.
    texts: Vec<Text>,
    longest: usize,
    block: usize,
    stride: usize,
    mask: u32,
    /// By hash of a block, one bit: some text has it at an offset below `stride`. Fits the first-level cache.
    known: Zeroizing<Vec<u64>>,
    known_shift: u32,
    /// By hash of a block, the offsets at which some text has it.
    offsets: Zeroizing<Vec<u16>>,
    offsets_shift: u32,
    /// By the first two bytes: some text begins with them.
    heads: Zeroizing<Vec<u64>>,
}

struct Text {
    bytes: Zeroizing<Vec<u8>>,
    number: u32,
    /// The place of the longest other text that this one begins with.
    shorter: u32,
}

/// A text at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The number of the text, in the order in which they were given.
    pub(crate) pattern: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Patterns {
    /// Empty texts match nothing; of equal ones the first counts.
    pub(crate) fn new(texts: impl IntoIterator<Item = Zeroizing<Vec<u8>>>) -> Self {
        let mut texts: Vec<Text> = (0..)
            .zip(texts)
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(number, bytes)| Text { bytes, number, shorter: NONE })
            .collect();
        texts.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.number.cmp(&b.number)));
        texts.dedup_by(|later, first| later.bytes == first.bytes);
        link(&mut texts);

        let shortest = texts.iter().map(|text| text.bytes.len()).min().unwrap_or(1);
        let longest = texts.iter().map(|text| text.bytes.len()).max().unwrap_or(0);
        let block = shortest.min(BLOCK);
        let stride = (shortest - block + 1).min(STRIDE);
        let blocks = (texts.len() * stride).next_power_of_two().ilog2();
        let (known_bits, offsets_bits) = ((blocks + 7).clamp(16, 18), (blocks + 2).clamp(8, 16));
        let mut patterns = Self {
            texts,
            longest,
            block,
            stride,
            mask: u32::MAX >> (8 * (BLOCK - block)),
            known: Zeroizing::new(vec![0; (1 << known_bits) / 64]),
            known_shift: u32::BITS - known_bits,
            offsets: Zeroizing::new(vec![0; 1 << offsets_bits]),
            offsets_shift: u32::BITS - offsets_bits,
            heads: Zeroizing::new(vec![0; (1 << 16) / 64]),
        };
        patterns.index();
        patterns
    }

    /// Whether there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The length of the longest text, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The first match that begins at `from` or later.
    pub(crate) fn find(&self, text: &[u8], from: usize) -> Option<Found> {
        if self.texts.is_empty() {
            return None;
        }
        let mut at = self.skip(text, from + self.stride - 1);
        while let Some(block) = self.block_at(text, at) {
            let mut offsets = match self.knows(block) {
                true => self.offsets[hash(block, self.offsets_shift)],
                false => 0,
            };
            // The highest offset is the leftmost start.
            while offsets != 0 {
                let offset = offsets.ilog2();
                offsets ^= 1 << offset;
                if let Some(found) = self.longest_at(text, at - offset as usize) {
                    return Some(found);
                }
            }
            at = self.skip(text, at + self.stride);
        }
        None
    }

    /// Passes over runs of samples that are in no text.
    fn skip(&self, text: &[u8], mut at: usize) -> usize {
        let (known, last) = (self.known.as_slice(), (RUN - 1) * self.stride);
        while let Some(run) = text.get(at..at + last + BLOCK) {
            let mut any = 0;
            for sample in 0..RUN {
                let place = sample * self.stride;
                let Some(bytes) = run.get(place..place + BLOCK) else { break };
                let block = u32::from_le_bytes(bytes.try_into().unwrap_or_default()) & self.mask;
                let bit = hash(block, self.known_shift);
                any |= known[bit / 64] >> (bit % 64);
            }
            if any & 1 != 0 {
                break;
            }
            at += RUN * self.stride;
        }
        at
    }

    fn knows(&self, block: u32) -> bool {
        let bit = hash(block, self.known_shift);
        self.known[bit / 64] >> (bit % 64) & 1 != 0
    }

    /// The first place at `from` or later from which on the rest of `text` is the beginning of a pattern, and not all of it: what
    /// follows `text` decides on it. The length of `text` where there is none.
    pub(crate) fn undecided_from(&self, text: &[u8], from: usize) -> usize {
        let first = from.max(text.len().saturating_sub(self.longest.saturating_sub(1)));
        (first..text.len())
            .find(|&at| {
                let rest = &text[at..];
                match rest {
                    [first, second, ..] if !self.begins(*first, *second) => false,
                    _ => self.texts.get(self.after(rest)).is_some_and(|next| next.bytes.starts_with(rest)),
                }
            })
            .unwrap_or(text.len())
    }

    fn longest_at(&self, text: &[u8], start: usize) -> Option<Found> {
        let rest = &text[start..];
        // The greatest text that is not greater than the rest; every text that the rest begins with is one that this one begins
        // with, or it itself.
        let mut place = self.after(rest).checked_sub(1)?;
        loop {
            let candidate = &self.texts[place];
            if rest.starts_with(&candidate.bytes) {
                let end = start + candidate.bytes.len();
                return Some(Found { pattern: candidate.number, start, end });
            }
            if candidate.shorter == NONE {
                return None;
            }
            place = candidate.shorter as usize;
        }
    }

    /// The place of the first text that is greater than `rest`.
    fn after(&self, rest: &[u8]) -> usize {
        self.texts.partition_point(|text| text.bytes.as_slice() <= rest)
    }

    fn begins(&self, first: u8, second: u8) -> bool {
        let bit = usize::from(u16::from_be_bytes([first, second]));
        self.heads[bit / 64] & (1 << (bit % 64)) != 0
    }

    #[inline]
    fn block_at(&self, text: &[u8], at: usize) -> Option<u32> {
        if let Some(bytes) = text.get(at..at + BLOCK) {
            let bytes = bytes.try_into().unwrap_or_default();
            return Some(u32::from_le_bytes(bytes) & self.mask);
        }
        // The end of the text, with room for a block that is shorter.
        let bytes = text.get(at..at + self.block)?;
        Some(bytes.iter().rev().fold(0, |block, &byte| block << 8 | u32::from(byte)))
    }

    fn index(&mut self) {
        let texts = std::mem::take(&mut self.texts);
        for text in &texts {
            for offset in 0..self.stride {
                if let Some(block) = self.block_at(&text.bytes, offset) {
                    let bit = hash(block, self.known_shift);
                    self.known[bit / 64] |= 1 << (bit % 64);
                    self.offsets[hash(block, self.offsets_shift)] |= 1 << offset;
                }
            }
            if let [first, second, ..] = **text.bytes {
                let bit = usize::from(u16::from_be_bytes([first, second]));
                self.heads[bit / 64] |= 1 << (bit % 64);
            }
        }
        self.texts = texts;
    }
}

/// Multiplicative hashing (Knuth 6.4): the high bits depend on all of the block.
#[inline]
fn hash(block: u32, shift: u32) -> usize {
    (block.wrapping_mul(0x9E37_79B1) >> shift) as usize
}

/// Sets `shorter` of every text: a stack of those that the current one begins with, as a text stands after its prefixes in the order.
fn link(texts: &mut [Text]) {
    let mut prefixes: Vec<usize> = Vec::new();
    for place in 0..texts.len() {
        while let Some(&top) = prefixes.last() {
            if texts[place].bytes.starts_with(&texts[top].bytes) {
                break;
            }
            prefixes.pop();
        }
        texts[place].shorter = prefixes.last().map_or(NONE, |&top| top as u32);
        prefixes.push(place);
    }
}

/// How many, not which (T46).
impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").field("texts", &self.texts.len()).finish_non_exhaustive()
    }
}
