//! Compressed messages (RFC 7692 section 7.2), one direction: inflated to be searched, deflated again.

use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::Fault;

/// How much larger a message may become, past the first mebibyte (T79).
const RATIO: u64 = 100;
const RATIO_FROM: u64 = 1 << 20;
/// The most that one message may become.
const MAX_INFLATED: u64 = 8 << 30;
/// The most that is inflated at a time.
const PIECE: usize = 32 << 10;
/// Keeps up with a network.
const LEVEL: u32 = 4;
/// Ends each message, and is not sent.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Inflates messages. [`push`](Self::push), then [`pull`](Self::pull) until it answers `None`; so at a message's end as well.
#[derive(Default)]
pub(super) struct Inflate {
    takeover: bool,
    context: Option<Decompress>,
    input: Bytes,
    /// The last piece was full: there may be more of it.
    pending: bool,
    consumed: u64,
    produced: u64,
}

impl Inflate {
    /// `takeover`: a message may refer to the ones before it.
    pub(super) fn new(takeover: bool) -> Self {
        Self { takeover, ..Self::default() }
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.input.is_empty(), "what was pushed before has been pulled");
        self.input = piece;
    }

    /// The message is over: its last bytes follow.
    pub(super) fn push_tail(&mut self) {
        self.push(Bytes::from_static(&TAIL));
    }

    pub(super) fn pull(&mut self) -> Result<Option<Bytes>, Fault> {
        while !self.input.is_empty() || self.pending {
            // Of any window: it takes what a smaller one would.
            let context = self.context.get_or_insert_with(|| Decompress::new(false));
            let mut piece = Vec::with_capacity(PIECE.min(16 * self.input.len().max(64)));
            let (read, room) = (context.total_in(), piece.capacity());
            let status = context
                .decompress_vec(&self.input, &mut piece, FlushDecompress::Sync)
                .map_err(|_| Fault::data("a compressed message is not valid DEFLATE data"))?;
            let read = context.total_in() - read;
            self.input.advance(read as usize);
            self.consumed += read;
            self.produced += piece.len() as u64;
            self.pending = piece.len() == room;
            if status == Status::StreamEnd {
                // A sender may end each message with a final block (RFC 7692 section 7.2.3.4).
                context.reset(false);
                self.pending = false;
            } else if read == 0 && piece.is_empty() && !self.input.is_empty() {
                return Err(Fault::data("a compressed message is not valid DEFLATE data"));
            }
            self.judge()?;
            if !piece.is_empty() {
                return Ok(Some(Bytes::from(piece)));
            }
        }
        Ok(None)
    }

    /// The message has been pulled to its end.
    pub(super) fn end_message(&mut self) {
        (self.consumed, self.produced) = (0, 0);
        if !self.takeover {
            self.context.as_mut().into_iter().for_each(|context| context.reset(false));
        }
    }

    fn judge(&self) -> Result<(), Fault> {
        if self.produced > RATIO_FROM && self.produced / RATIO > self.consumed {
            return Err(Fault::too_large(format!(
                "a message becomes more than {RATIO} times as large when it is inflated"
            )));
        }
        if self.produced > MAX_INFLATED {
            return Err(Fault::too_large(format!(
                "a message is larger than {MAX_INFLATED} bytes when it is inflated"
            )));
        }
        Ok(())
    }
}

/// Deflates messages.
pub(super) struct Deflate {
    takeover: bool,
    window_bits: u8,
    context: Option<Compress>,
    out: Vec<u8>,
    /// Something was pushed since the last flush.
    dirty: bool,
}

impl Deflate {
    /// `window_bits`: the window that the receiver has agreed to keep.
    pub(super) fn new(takeover: bool, window_bits: Option<u8>) -> Self {
        Self {
            takeover,
            window_bits: window_bits.unwrap_or(15),
            context: None,
            out: Vec::new(),
            dirty: false,
        }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.run(piece, FlushCompress::None);
        self.dirty |= !piece.is_empty();
    }

    pub(super) fn length(&self) -> usize {
        self.out.len()
    }

    /// What a receiver needs to read all that was pushed.
    pub(super) fn flush(&mut self) -> Bytes {
        if std::mem::take(&mut self.dirty) {
            self.run(&[], FlushCompress::Sync);
        }
        Bytes::from(std::mem::take(&mut self.out))
    }

    /// The end of the message.
    pub(super) fn finish(&mut self) -> Bytes {
        let dirty = self.dirty;
        let last = self.flush();
        if !self.takeover {
            self.context.as_mut().into_iter().for_each(Compress::reset);
        }
        match dirty {
            true => {
                debug_assert!(last.ends_with(&TAIL), "a flush ends with an empty stored block");
                last.slice(..last.len() - TAIL.len())
            }
            // An empty stored block without its lengths, which the receiver appends (RFC 7692 section 7.2.3.6).
            false => Bytes::from_static(&[0]),
        }
    }

    fn run(&mut self, mut piece: &[u8], flush: FlushCompress) {
        let context = self.context.get_or_insert_with(|| match self.window_bits {
            // zlib has no window of 256 bytes: stored blocks refer to nothing.
            ..9 => Compress::new(Compression::none(), false),
            bits => Compress::new_with_window_bits(Compression::new(LEVEL), false, bits.min(15)),
        });
        loop {
            self.out.reserve(piece.len() / 2 + 256);
            let read = context.total_in();
            context.compress_vec(piece, &mut self.out, flush).expect("the parameters are ones that zlib has");
            piece = &piece[(context.total_in() - read) as usize..];
            // With room to spare it has nothing more to say.
            if piece.is_empty() && self.out.len() < self.out.capacity() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflated(inflate: &mut Inflate, pieces: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::new();
        for piece in pieces {
            inflate.push(Bytes::copy_from_slice(piece));
            while let Some(piece) = inflate.pull()? {
                text.extend_from_slice(&piece);
            }
        }
        inflate.push_tail();
        while let Some(piece) = inflate.pull()? {
            text.extend_from_slice(&piece);
        }
        inflate.end_message();
        Ok(text)
    }

    /// RFC 7692 section 7.2.3: the examples.
    #[test]
    fn the_examples_of_the_rfc() {
        let mut shared = Inflate::new(true);
        let hello: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflated(&mut shared, &[hello]).unwrap(), b"Hello");
        assert_eq!(
            inflated(&mut shared, &[&[0xf2, 0x00, 0x11, 0x00, 0x00]]).unwrap(),
            b"Hello",
            "sliding window"
        );
        for (name, message) in [
            ("a stored block", &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00][..]),
            ("a final block", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
            ("two blocks", &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]),
        ] {
            assert_eq!(inflated(&mut Inflate::new(false), &[message]).unwrap(), b"Hello", "{name}");
        }
        assert_eq!(inflated(&mut Inflate::new(true), &[&[0x00]]).unwrap(), b"");
        assert_eq!(inflated(&mut Inflate::new(true), &[b"\xff\xff"]).unwrap_err().code, 1007);
        // Without a context there is nothing to refer to.
        let mut fresh = Inflate::new(false);
        inflated(&mut fresh, &[hello]).unwrap();
        assert_eq!(inflated(&mut fresh, &[&[0xf2, 0x00, 0x11, 0x00, 0x00]]).unwrap_err().code, 1007);
    }

    #[test]
    fn t79_a_bomb_stops_at_a_hundred_times_its_size_past_the_first_mebibyte() {
        let mut deflate = Deflate::new(false, None);
        deflate.push(&vec![0; 1 << 20]);
        let small = deflate.finish();
        assert_eq!(inflated(&mut Inflate::new(true), &[&small]).unwrap().len(), 1 << 20);
        deflate.push(&vec![0; 4 << 20]);
        let bomb = deflate.finish();
        let mut inflate = Inflate::new(true);
        inflate.push(bomb);
        let mut most = 0;
        let fault = loop {
            match inflate.pull() {
                Ok(piece) => most += piece.expect("an error first").len(),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault.code, 1009);
        assert!(most <= (1 << 20) + PIECE, "{most}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn messages_come_back_whole(
            bits in 8u8..=15,
            takeover: bool,
            messages in prop::collection::vec(prop::collection::vec((0u8..3, 0usize..3000), 0..5), 1..5),
        ) {
            let mut deflate = Deflate::new(takeover, Some(bits));
            let mut inflate = Inflate::new(takeover);
            // The window that the receiver has promised to keep must do.
            inflate.context = (bits > 8).then(|| Decompress::new_with_window_bits(false, bits.max(9)));
            for message in messages {
                let mut pieces = Vec::new();
                let mut text = Vec::new();
                for (byte, length) in message {
                    let piece: Vec<u8> = (0..length).map(|n| byte.wrapping_add((n * n / 7) as u8)).collect();
                    deflate.push(&piece);
                    if byte == 0 {
                        pieces.push(deflate.flush());
                    }
                    text.extend(piece);
                }
                pieces.push(deflate.finish());
                let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).filter(|p| !p.is_empty()).collect();
                prop_assert_eq!(inflated(&mut inflate, &pieces).unwrap(), text);
            }
        }
    }
}
