//! Follows the body behind a head, so that the guard and the parser agree on every byte (T23, T25).

use super::head::{Framing, IS_TOKEN, IS_VALUE, MAX_FIELDS};

/// Where in a body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes are left.
    Length(u64),
    /// Inside chunked coding (RFC 9112 section 7.1).
    Chunked { at: Chunk, overhead: u32, trailers: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the first byte of a trailer field, or of the line that ends the body.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// The bytes of extensions and trailers that one body may have: no more than hyper reads of either.
const MAX_OVERHEAD: u32 = 16 * 1024;

impl Body {
    /// The body that `framing` announces, if there is one.
    pub(super) fn of(framing: Framing) -> Option<Self> {
        match framing {
            Framing::None => None,
            Framing::Length(length) => Some(Self::Length(length)),
            Framing::Chunked => Some(Self::Chunked { at: START, overhead: 0, trailers: 0 }),
        }
    }

    /// Whether the body has been followed to its end.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked { at: Chunk::End, .. })
    }

    /// Goes over `bytes` until they end or the body does; returns how many belong to it. An error says how the coding is broken.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked { at, overhead, trailers } => {
                let mut taken = 0;
                while taken < bytes.len() && *at != Chunk::End {
                    if let Chunk::Data { left } = at {
                        let data = usize::try_from(*left)
                            .map_or(bytes.len() - taken, |left| left.min(bytes.len() - taken));
                        taken += data;
                        *left -= data as u64;
                        if *left == 0 {
                            *at = Chunk::DataCr;
                        }
                        continue;
                    }
                    if at.is_overhead() {
                        *overhead += 1;
                        if *overhead >= MAX_OVERHEAD {
                            return Err("the extensions and trailers of a chunked body are too long");
                        }
                    }
                    if *at == Chunk::TrailerLf {
                        *trailers += 1;
                        if *trailers > MAX_FIELDS {
                            return Err("a chunked body has too many trailer fields");
                        }
                    }
                    *at = at.next(bytes[taken])?;
                    taken += 1;
                }
                Ok(taken)
            }
        }
    }
}

const START: Chunk = Chunk::Size { size: 0, digits: 0 };

impl Chunk {
    /// Whether the next byte is neither data nor a chunk's size.
    fn is_overhead(self) -> bool {
        match self {
            Self::Extension { .. }
            | Self::Trailer
            | Self::TrailerName
            | Self::TrailerValue
            | Self::TrailerLf
            | Self::EndLf => true,
            Self::Size { .. }
            | Self::SizeLf { .. }
            | Self::Data { .. }
            | Self::DataCr
            | Self::DataLf
            | Self::End => false,
        }
    }

    fn next(self, byte: u8) -> Result<Self, &'static str> {
        match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                // Fifteen digits are 2^60 bytes; more could overflow somebody's counter.
                if digits == 15 {
                    return Err("a chunk size has too many digits");
                }
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                Ok(Self::Size { size: size * 16 + digit, digits: digits + 1 })
            }
            (Self::Size { size, digits: 1.. }, b';') => Ok(Self::Extension { size }),
            (Self::Size { size, digits: 1.. } | Self::Extension { size }, b'\r') => Ok(Self::SizeLf { size }),
            (Self::Size { .. }, _) => Err("a chunk size is not a hexadecimal number"),
            (Self::Extension { size }, _) if IS_VALUE[byte as usize] => Ok(Self::Extension { size }),
            (Self::Extension { .. }, _) => Err("a chunk extension holds a control character"),
            (Self::SizeLf { size: 0 }, b'\n') => Ok(Self::Trailer),
            (Self::SizeLf { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(START),
            (Self::Trailer, b' ' | b'\t') => Err("a trailer field is continued on a second line"),
            (Self::Trailer, b'\r') => Ok(Self::EndLf),
            (Self::Trailer | Self::TrailerName, _) if IS_TOKEN[byte as usize] => Ok(Self::TrailerName),
            (Self::TrailerName, b':') => Ok(Self::TrailerValue),
            (Self::Trailer | Self::TrailerName, _) => {
                Err("a trailer field has no name, or something stands between name and colon")
            }
            (Self::TrailerValue, b'\r') => Ok(Self::TrailerLf),
            (Self::TrailerValue, _) if IS_VALUE[byte as usize] => Ok(Self::TrailerValue),
            (Self::TrailerValue, _) => Err("a trailer field holds a control character"),
            (Self::TrailerLf, b'\n') => Ok(Self::Trailer),
            (Self::EndLf, b'\n') => Ok(Self::End),
            (Self::SizeLf { .. } | Self::DataLf | Self::TrailerLf | Self::EndLf, _) => {
                Err("a CR in chunked coding stands without LF")
            }
            (Self::DataCr, _) => Err("a chunk is longer than its size says"),
            (Self::Data { .. } | Self::End, _) => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(body: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut state = Body::of(Framing::Chunked).unwrap();
        let taken = state.follow(body)?;
        Ok((taken, state.is_over()))
    }

    #[test]
    fn chunked_bodies_end_where_rfc_9112_says() {
        for (body, behind) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET"),
            ("A;name=value\r\n0123456789\r\n000\r\nTrailer: x\r\nMore: y\r\n\r\n", "\r\n"),
        ] {
            assert_eq!(follow(format!("{body}{behind}").as_bytes()), Ok((body.len(), true)), "{body:?}");
            let mut state = Body::of(Framing::Chunked).unwrap();
            for (at, byte) in body.bytes().enumerate() {
                assert!(!state.is_over(), "{body:?} {at}");
                assert_eq!(state.follow(&[byte]), Ok(1));
            }
            assert!(state.is_over());
        }
        assert_eq!(follow(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn t23_tricks_with_chunks_are_errors() {
        for body in [
            "\r\n",
            ";\r\n",
            "g\r\n",
            "5\nhello\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello\n0\r\n",
            "0x5\r\nhello",
            " 5\r\nhello",
            "5 \r\nhello",
            "+5\r\nhello",
            "fffffffffffffffff\r\n",
            "5;a\x00\r\n",
            "5;a\n",
            "0\r\nX: y\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\n\rX",
            "0\r\nno colon\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
        ] {
            assert!(follow(body.as_bytes()).is_err(), "{body:?}");
        }
        let endless = format!("1;{}", "a".repeat(MAX_OVERHEAD as usize + 1));
        assert!(follow(endless.as_bytes()).is_err());
        let many = |fields| format!("0\r\n{}\r\n", "X:\r\n".repeat(fields));
        assert!(follow(many(MAX_FIELDS).as_bytes()).is_ok());
        assert!(follow(many(MAX_FIELDS + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_length_is_counted_down() {
        let mut body = Body::of(Framing::Length(5)).unwrap();
        assert_eq!((body.follow(b"abc"), body.is_over()), (Ok(3), false));
        assert_eq!((body.follow(b"defgh"), body.is_over()), (Ok(2), true));
        assert_eq!(Body::of(Framing::None), None);
    }
}
