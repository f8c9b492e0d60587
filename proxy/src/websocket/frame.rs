//! Frames as they stand on the wire (RFC 6455 section 5).

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

/// The most that a control frame carries.
pub(super) const MAX_CONTROL: usize = 125;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) fin: bool,
    /// RSV1: a compressed message begins (RFC 7692 section 6).
    pub(super) compressed: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: Option<[u8; 4]>,
    /// Of the payload.
    pub(super) length: u64,
}

/// What is wrong with a frame or message, and the close code that says so (RFC 6455 section 7.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: u16,
    pub(super) what: Cow<'static, str>,
}

impl Fault {
    pub(super) fn protocol(what: &'static str) -> Self {
        Self { code: 1002, what: Cow::Borrowed(what) }
    }

    pub(super) fn data(what: &'static str) -> Self {
        Self { code: 1007, what: Cow::Borrowed(what) }
    }

    pub(super) fn too_large(what: impl Into<Cow<'static, str>>) -> Self {
        Self { code: 1009, what: what.into() }
    }
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }

    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

impl Head {
    /// Reads the head that `bytes` begin with, and its size; `None` where more bytes are needed. What is wrong is said as soon as it
    /// is seen. `deflates`: permessage-deflate was agreed on.
    pub(super) fn parse(bytes: &[u8], from: Side, deflates: bool) -> Result<Option<(Self, usize)>, Fault> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
        if first & 0x30 != 0 {
            return Err(Fault::protocol(
                "RSV2 or RSV3 is set, and no extension was agreed on that gives it a meaning",
            ));
        }
        let Some(opcode) = Opcode::of(first & 0x0f) else {
            return Err(Fault::protocol("the opcode is reserved"));
        };
        if compressed && !(deflates && matches!(opcode, Opcode::Text | Opcode::Binary)) {
            return Err(Fault::protocol("RSV1 is set where no compressed message may begin"));
        }
        if opcode.is_control() && !fin {
            return Err(Fault::protocol("a control frame is fragmented"));
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        match (from, second & 0x80 != 0) {
            (Side::Client, true) | (Side::Server, false) => {}
            (Side::Client, false) => return Err(Fault::protocol("a frame of the client is not masked")),
            (Side::Server, true) => return Err(Fault::protocol("a frame of the server is masked")),
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(Fault::protocol("a control frame is longer than 125 bytes"));
        }
        let (extended, least) = match short {
            126 => (2, 126),
            127 => (8, 1 << 16),
            _ => (0, 0),
        };
        let mask_length = if from == Side::Client { 4 } else { 0 };
        let size = 2 + extended + mask_length;
        let Some(long) = bytes.get(2..2 + extended) else { return Ok(None) };
        let long = long.iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
        let length = if extended == 0 { u64::from(short) } else { long };
        if length < least {
            return Err(Fault::protocol("a payload length is not in its shortest form"));
        }
        if length >> 63 != 0 {
            return Err(Fault::protocol("a payload length has its highest bit set"));
        }
        let Some(mask) = bytes.get(2 + extended..size) else { return Ok(None) };
        Ok(Some((Self { fin, compressed, opcode, mask: mask.try_into().ok(), length }, size)))
    }

    /// Appends the head in its one right form.
    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(self.fin) << 7 | u8::from(self.compressed) << 6 | self.opcode.bits());
        let masked = u8::from(self.mask.is_some()) << 7;
        match self.length {
            0..126 => out.put_u8(masked | self.length as u8),
            126..0x1_0000 => {
                out.put_u8(masked | 126);
                out.put_u16(self.length as u16);
            }
            _ => {
                out.put_u8(masked | 127);
                out.put_u64(self.length);
            }
        }
        if let Some(mask) = self.mask {
            out.put_slice(&mask);
        }
    }
}

/// Masks or unmasks `bytes`, which stand `at` bytes behind the beginning of their payload: eight at a time, which compilers widen.
pub(super) fn apply_mask(mask: [u8; 4], at: u64, bytes: &mut [u8]) {
    let mask = u32::from_ne_bytes(mask);
    // The first byte in memory is the lowest or the highest of the number.
    let turn = 8 * (at % 4) as u32;
    let mask = if cfg!(target_endian = "little") { mask.rotate_right(turn) } else { mask.rotate_left(turn) };
    let wide = u64::from(mask) << 32 | u64::from(mask);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(eight) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.to_ne_bytes().into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Checks the payload of a close frame (RFC 6455 sections 5.5.1 and 7.4, and the codes that IANA has added).
pub(super) fn check_close(payload: &[u8]) -> Result<(), Fault> {
    let [high, low, reason @ ..] = payload else {
        return match payload {
            [] => Ok(()),
            _ => Err(Fault::protocol("a close frame holds half a code")),
        };
    };
    match u16::from_be_bytes([*high, *low]) {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(Fault::protocol("a close frame has a code that none may have")),
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::data("the reason in a close frame is not UTF-8")),
    }
}

/// The masks of one connection: unpredictable, each used once (RFC 6455 section 10.3).
#[derive(Debug)]
pub(super) struct Masks {
    drawn: [u8; 256],
    used: usize,
}

impl Masks {
    pub(super) fn new() -> Self {
        Self { drawn: [0; 256], used: 256 }
    }

    pub(super) fn next(&mut self) -> [u8; 4] {
        if self.used == self.drawn.len() {
            aws_lc_rs::rand::fill(&mut self.drawn).expect("the system has randomness");
            self.used = 0;
        }
        let mask = std::array::from_fn(|byte| self.drawn[self.used + byte]);
        self.used += 4;
        mask
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn t38_what_is_no_frame_is_named_at_its_first_wrong_byte() {
        use Side::{Client, Server};
        let long = |length: u64| [&[0x82, 127][..], &length.to_be_bytes()].concat();
        let cases: [(&str, Side, bool, Vec<u8>, &str); 15] = [
            ("RSV1 unagreed", Server, false, vec![0xc1], "RSV1"),
            ("RSV1 on a continuation", Server, true, vec![0xc0], "RSV1"),
            ("RSV1 on a ping", Server, true, vec![0xc9], "RSV1"),
            ("RSV2", Server, true, vec![0xa1], "RSV2"),
            ("RSV3", Server, true, vec![0x91], "RSV2"),
            ("opcode 3", Server, false, vec![0x83], "reserved"),
            ("opcode 11", Server, false, vec![0x8b], "reserved"),
            ("fragmented ping", Server, false, vec![0x09], "fragmented"),
            ("long ping", Server, false, vec![0x89, 126], "125"),
            ("unmasked client", Client, false, vec![0x81, 0x05], "not masked"),
            ("masked server", Server, false, vec![0x81, 0x85], "is masked"),
            ("125 in two bytes", Server, false, vec![0x82, 126, 0, 125], "shortest"),
            ("65535 in eight bytes", Server, false, long(65_535), "shortest"),
            ("2^63", Server, false, long(1 << 63), "highest bit"),
            ("all ones", Server, false, long(u64::MAX), "highest bit"),
        ];
        for (name, from, deflates, bytes, expected) in cases {
            let before = Head::parse(&bytes[..bytes.len() - 1], from, deflates);
            assert_eq!(before, Ok(None), "{name}: not wrong yet");
            let fault = Head::parse(&bytes, from, deflates).unwrap_err();
            assert!(fault.code == 1002 && fault.what.contains(expected), "{name}: {fault:?}");
        }
    }

    #[test]
    fn close_frames_are_checked() {
        let with = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
        for good in [vec![], with(1000, b""), with(1014, b"x"), with(3000, "ü".as_bytes()), with(4999, b"")]
        {
            assert_eq!(check_close(&good), Ok(()), "{good:?}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert_eq!(check_close(&with(code, b"")).unwrap_err().code, 1002, "{code}");
        }
        assert_eq!(check_close(b"\x03").unwrap_err().code, 1002);
        assert_eq!(check_close(&with(1000, b"\xff")).unwrap_err().code, 1007);
    }

    proptest! {
        #[test]
        fn a_head_is_read_as_it_was_written_and_not_before_it_is_whole(
            fin: bool, compressed: bool, text: bool,
            mask: Option<[u8; 4]>,
            length in prop_oneof![0u64..130, 65_530u64..65_540, any::<u64>().prop_map(|n| n >> 1)],
        ) {
            let opcode = if text { Opcode::Text } else { Opcode::Binary };
            let head = Head { fin, compressed, opcode, mask, length };
            let mut wire = BytesMut::new();
            head.write(&mut wire);
            let from = if mask.is_some() { Side::Client } else { Side::Server };
            for short in 0..wire.len() {
                prop_assert_eq!(Head::parse(&wire[..short], from, true), Ok(None));
            }
            prop_assert_eq!(Head::parse(&wire, from, true), Ok(Some((head, wire.len()))));
        }

        #[test]
        fn masking_is_the_xor_of_the_rfc(mask: [u8; 4], at in 0u64..9, bytes: Vec<u8>) {
            let mut masked = bytes.clone();
            apply_mask(mask, at, &mut masked);
            let naive: Vec<u8> =
                (at..).zip(&bytes).map(|(place, byte)| byte ^ mask[(place % 4) as usize]).collect();
            prop_assert_eq!(masked, naive);
        }
    }
}
