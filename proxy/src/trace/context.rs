//! W3C Trace Context: the two fields that tie a request to a trace (<https://www.w3.org/TR/trace-context/>, level 1).
//!
//! Our own, as the SDK's propagator wants a context and a string map per request: this reads 55 bytes.

use std::fmt;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Names a trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) [u8; 16]);

/// Names a span of it. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId(pub(crate) [u8; 8]);

/// A span, as others refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) sampled: bool,
}

impl Context {
    /// What a request says of its sender's span; nothing if it says nothing valid, or says it twice.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    /// `version "-" trace-id "-" parent-id "-" trace-flags`; a version that is not known may have more behind them (section 3.2.3).
    fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(55)?;
        let [version] = hexadecimal::<1>(&head[..2])?;
        let dashes = [head[2], head[35], head[52]] == *b"---";
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let trace = hexadecimal(&head[3..35]).filter(|id| *id != [0; 16])?;
        let span = hexadecimal(&head[36..52]).filter(|id| *id != [0; 8])?;
        let [flags] = hexadecimal::<1>(&head[53..])?;
        (dashes && ends).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & 1 == 1,
        })
    }

    /// As the next one on the way reads it.
    pub(crate) fn header(&self) -> HeaderValue {
        let text = format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled));
        HeaderValue::try_from(text).expect("digits and dashes")
    }
}

/// Lower case only, as the standard wants it.
fn hexadecimal<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (text.len() == 2 * N).then_some(bytes)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(values: &[&str]) -> Option<Context> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        Context::of(&headers)
    }

    #[test]
    fn a_valid_context_is_read_and_written_as_it_was() {
        let context = read(&[VALID]).unwrap();
        assert_eq!(context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((context.span.to_string().as_str(), context.sampled), ("b7ad6b7169203331", true));
        assert_eq!(context.header(), VALID);
        let unsampled = VALID.replace("-01", "-00");
        assert_eq!(read(&[&unsampled]).unwrap().header(), unsampled.as_str());
        // A later version, with flags and fields of its own.
        let later = VALID.replacen("00", "cc", 1).replace("-01", "-03-what-comes");
        assert_eq!(read(&[&later]), Some(context));
    }

    #[test]
    fn what_is_no_context_is_none() {
        for invalid in [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID}0"),
            &VALID.replacen("00", "ff", 1),
            &VALID.to_uppercase(),
            &VALID.replace('-', "_"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            &VALID.replace("0af7", "0ag7"),
        ] {
            assert_eq!(read(&[invalid]), None, "{invalid}");
        }
        assert_eq!(read(&[VALID, VALID]), None, "two of them say nothing");
        assert_eq!(read(&[]), None);
    }
}
