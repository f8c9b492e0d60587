//! Content codings of bodies that are searched: decoded, and where a request body was changed, encoded again.

mod decode;
mod encode;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

/// How much of a name that a peer chose is repeated.
const NAME_SHOWN: usize = 32;

/// A content coding that can be searched (RFC 9110 section 8.4.1, RFC 7932, RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// In the zlib format; a sender that leaves that out is understood as well (RFC 9110 section 8.4.1.2).
    Deflate,
    Brotli,
    Zstd,
}

/// Why a body cannot be decoded or encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodingError {
    #[error(
        "the body has the content coding {0:?}, which cannot be searched\nhint: gzip, deflate, br and zstd can"
    )]
    Unknown(String),
    #[error("the body has several content codings, one over the other, which are not searched")]
    Stacked,
    #[error("the body is not valid {0}")]
    Malformed(Coding),
    #[error("the body ends in the middle of its {0} data")]
    Truncated(Coding),
    #[error("the body goes on after the end of its {0} data")]
    Trailing(Coding),
    #[error("the body could not be encoded in {0} again")]
    NotEncoded(Coding),
    /// T79.
    #[error("the {coding} body becomes more than {ratio} times as large when it is decoded")]
    Ratio { coding: Coding, ratio: u64 },
    /// T79.
    #[error("the {coding} body is larger than {limit} bytes when it is decoded")]
    TooLarge { coding: Coding, limit: u64 },
}

impl Coding {
    /// The coding that a `Content-Encoding` names; `None` for `identity`.
    pub(crate) fn named(name: &str) -> Result<Option<Self>, CodingError> {
        const NAMES: [(&str, Option<Coding>); 7] = [
            ("identity", None),
            ("gzip", Some(Coding::Gzip)),
            // RFC 9110 section 8.4.1.3.
            ("x-gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("br", Some(Coding::Brotli)),
            ("zstd", Some(Coding::Zstd)),
            // An empty list element (RFC 9110 section 5.6.1).
            ("", None),
        ];
        let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known
            .map(|(_, coding)| *coding)
            .ok_or_else(|| CodingError::Unknown(name.chars().take(NAME_SHOWN).collect()))
    }

    /// The one coding that a message's body has; `None` if it has none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, CodingError> {
        let mut coding = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            let text = String::from_utf8_lossy(value.as_bytes());
            for name in text.split(',') {
                let Some(named) = Self::named(name.trim_matches([' ', '\t']))? else { continue };
                if coding.replace(named).is_some() {
                    return Err(CodingError::Stacked);
                }
            }
        }
        Ok(coding)
    }

    /// As it stands in `Content-Encoding` and `Accept-Encoding`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
