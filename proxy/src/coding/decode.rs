//! Decoding bytes as they arrive, within bounds.

use std::fmt;

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

use super::{Coding, CodingError};

/// How much larger a body may become.
pub(crate) const RATIO: u64 = 100;
/// Below this many decoded bytes the ratio is not looked at: short bodies of one repeated byte are common.
pub(crate) const RATIO_FROM: u64 = 1 << 20;
/// The most that is decoded at a time, and so the most that is in memory.
const PIECE: usize = 32 << 10;
/// The window, as a power of two, that content in zstd may ask for: 8 MiB (RFC 9659 section 3).
const ZSTD_WINDOW: u32 = 23;
/// The window of gzip and zlib as a power of two (RFC 1950 section 2.2).
const DEFLATE_WINDOW: u8 = 15;

/// Decodes one body.
///
/// [`push`](Self::push) a piece, then [`pull`](Self::pull) until it answers `None`; at the end [`finish`](Self::finish). What can be
/// decoded from the bytes that are there comes out at once. After an error the body is over.
///
/// A body of several gzip members or zstd frames is their concatenation (RFC 1952 section 2.2, RFC 8878 section 3.1). An empty body
/// is an empty body in any coding, as servers answer some requests with one. Memory: one piece that was pushed, 32 KiB, and the window
/// of the coding, which a peer chooses up to 32 KiB (gzip, deflate), 16 MiB (br) and 8 MiB (zstd).
pub(crate) struct Decoder {
    coding: Coding,
    codec: Codec,
    input: Bytes,
    consumed: u64,
    produced: u64,
    limit: u64,
    /// In the middle of the data, of a member, or of a frame.
    open: bool,
    /// Output may be left over from input that is consumed.
    pending: bool,
    failed: Option<CodingError>,
    scratch: Vec<u8>,
}

enum Codec {
    /// Before the first byte, and between gzip members.
    Start,
    /// The first byte of `deflate`: with the second it tells zlib from its absence.
    DeflateHead(u8),
    Deflate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(zstd::stream::raw::Decoder<'static>),
    Ended,
}

/// What one step did.
struct Step {
    read: usize,
    written: usize,
    /// The end of the data, of the member, or of the frame.
    ended: bool,
}

impl Decoder {
    /// `limit`: how many bytes the body may have when it is decoded, beside the bound on its ratio (T79).
    pub(crate) fn new(coding: Coding, limit: Option<u64>) -> Self {
        Self {
            coding,
            codec: Codec::Start,
            input: Bytes::new(),
            consumed: 0,
            produced: 0,
            limit: limit.unwrap_or(u64::MAX),
            open: false,
            pending: false,
            failed: None,
            scratch: Vec::new(),
        }
    }

    /// The next piece of the encoded body, when [`pull`](Self::pull) has answered `None` for the one before.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.input.is_empty() || self.failed.is_some(), "the piece before is not decoded");
        self.input = piece;
    }

    /// The next piece of the decoded body, never empty and at most 32 KiB; `None` when more input is needed.
    pub(crate) fn pull(&mut self) -> Result<Option<Bytes>, CodingError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => self.decode().inspect_err(|error| self.failed = Some(error.clone())),
        }
    }

    /// The end of the encoded body, when [`pull`](Self::pull) has answered `None`.
    pub(crate) fn finish(&mut self) -> Result<(), CodingError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.open => Err(CodingError::Truncated(self.coding)),
            None => Ok(()),
        }
    }

    fn decode(&mut self) -> Result<Option<Bytes>, CodingError> {
        self.scratch.resize(PIECE, 0);
        loop {
            if self.input.is_empty() && !self.pending {
                return Ok(None);
            }
            if !self.begin()? {
                continue;
            }
            let step = self.step()?;
            self.input.advance(step.read);
            self.consumed += step.read as u64;
            // A full buffer may have more behind it.
            self.pending = !step.ended && step.written == PIECE;
            self.open = !step.ended;
            if step.ended {
                match self.coding {
                    Coding::Gzip => self.codec = Codec::Start,
                    Coding::Deflate | Coding::Brotli => self.codec = Codec::Ended,
                    // Reads on: a new context per frame would cost far more than a frame of a few bytes.
                    Coding::Zstd => {}
                }
            } else if step.read == 0 && step.written == 0 && !self.input.is_empty() {
                return Err(CodingError::Malformed(self.coding));
            }
            if step.written > 0 {
                self.count(step.written)?;
                return Ok(Some(Bytes::copy_from_slice(&self.scratch[..step.written])));
            }
        }
    }

    /// Makes a codec out of the first bytes. Answers whether there is one.
    fn begin(&mut self) -> Result<bool, CodingError> {
        match (&self.codec, self.coding) {
            (Codec::Start, Coding::Gzip) if self.consumed > 0 && self.input[0] != 0x1f => {
                return Err(CodingError::Trailing(self.coding));
            }
            (Codec::Start, Coding::Gzip) => {
                self.codec = Codec::Deflate(Decompress::new_gzip(DEFLATE_WINDOW));
            }
            (Codec::Start, Coding::Deflate) => {
                self.consumed += 1;
                self.open = true;
                self.codec = Codec::DeflateHead(self.input.get_u8());
                return Ok(false);
            }
            (&Codec::DeflateHead(first), _) => {
                // RFC 1950 section 2.2: the method in the low bits, and a multiple of 31 in all.
                let head = u16::from_be_bytes([first, self.input[0]]);
                let zlib = first & 0x0f == 8 && first >> 4 <= 7 && head.is_multiple_of(31);
                let mut inflate = Decompress::new(zlib);
                // One byte is taken in and yields nothing.
                inflate_some(&mut inflate, &[first], &mut self.scratch)
                    .filter(|step| step.read == 1 && step.written == 0)
                    .ok_or(CodingError::Malformed(self.coding))?;
                self.codec = Codec::Deflate(inflate);
            }
            (Codec::Start, Coding::Brotli) => {
                let alloc = StandardAlloc::default;
                // `new` would accept windows of a gigabyte, which are not in RFC 7932.
                self.codec = Codec::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())));
            }
            (Codec::Start, Coding::Zstd) => {
                let mut decoder =
                    zstd::stream::raw::Decoder::new().map_err(|_| CodingError::Malformed(self.coding))?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))
                    .map_err(|_| CodingError::Malformed(self.coding))?;
                self.codec = Codec::Zstd(decoder);
            }
            (Codec::Ended, _) => return Err(CodingError::Trailing(self.coding)),
            (Codec::Deflate(_) | Codec::Brotli(_) | Codec::Zstd(_), _) => {}
        }
        Ok(true)
    }

    fn step(&mut self) -> Result<Step, CodingError> {
        let (input, output) = (&*self.input, &mut self.scratch[..PIECE]);
        let step = match &mut self.codec {
            Codec::Deflate(inflate) => inflate_some(inflate, input, output),
            Codec::Brotli(state) => {
                let (mut read, mut written) = (0, 0);
                let result = BrotliDecompressStream(
                    &mut input.len(),
                    &mut read,
                    input,
                    &mut output.len(),
                    &mut written,
                    output,
                    &mut 0,
                    state,
                );
                match result {
                    BrotliResult::ResultFailure => None,
                    BrotliResult::ResultSuccess => Some(Step { read, written, ended: true }),
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {
                        Some(Step { read, written, ended: false })
                    }
                }
            }
            Codec::Zstd(decoder) => decoder.run_on_buffers(input, output).ok().map(|status| Step {
                read: status.bytes_read,
                written: status.bytes_written,
                ended: status.remaining == 0,
            }),
            Codec::Start | Codec::DeflateHead(_) | Codec::Ended => None,
        };
        step.ok_or(CodingError::Malformed(self.coding))
    }

    fn count(&mut self, written: usize) -> Result<(), CodingError> {
        self.produced += written as u64;
        if self.produced > self.limit {
            return Err(CodingError::TooLarge { coding: self.coding, limit: self.limit });
        }
        if self.produced > RATIO_FROM && self.produced / RATIO > self.consumed {
            return Err(CodingError::Ratio { coding: self.coding, ratio: RATIO });
        }
        Ok(())
    }
}

fn inflate_some(inflate: &mut Decompress, input: &[u8], output: &mut [u8]) -> Option<Step> {
    let (read, written) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, output, FlushDecompress::None).ok()?;
    Some(Step {
        read: (inflate.total_in() - read) as usize,
        written: (inflate.total_out() - written) as usize,
        ended: status == Status::StreamEnd,
    })
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("coding", &self.coding)
            .field("consumed", &self.consumed)
            .field("produced", &self.produced)
            .finish_non_exhaustive()
    }
}
