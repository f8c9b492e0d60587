//! The head of an HTTP/1 request as bytes, before any parser repairs it (RFC 9112; T23, T29, T33).
//!
//! hyper accepts a bare LF, Content-Length beside Transfer-Encoding, equal lengths twice and more, and drops or mends what is wrong. What
//! two parsers may read in two ways is refused here.

use http::{Method, Uri};
use keyferry_config::policy::{Reason, Refusal};

/// The longest request line: 16 KiB, twice what RFC 9112 section 3 asks for.
const MAX_LINE: usize = 16 * 1024;
/// The largest head.
const MAX_HEAD: usize = 64 * 1024;
/// The most bytes of empty lines before a request line.
const MAX_EMPTY: usize = 8;
/// The most header fields. hyper's own limit is the same: beyond it, it would answer by itself.
pub(super) const MAX_FIELDS: usize = 100;

/// How the body that follows a head is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// What a good head says about the bytes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its length, with the empty line.
    pub(super) length: usize,
    pub(super) framing: Framing,
    /// CONNECT, or a WebSocket handshake: what follows may not be HTTP.
    pub(super) may_switch: bool,
}

/// A request that must not reach a parser, and its method if that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) refusal: Refusal,
    pub(crate) method: Option<Method>,
}

/// Reads one head that may arrive in pieces, line by line; no byte is looked at twice.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Where the line begins that is not complete yet.
    line: usize,
    /// Where the search for its end goes on.
    searched: usize,
    fields: usize,
    request: Option<RequestLine>,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
}

#[derive(Debug)]
struct RequestLine {
    method: Method,
    is_http_10: bool,
}

impl HeadScan {
    /// Goes on with `bytes`, which begin where the head begins. `None`: the head is not complete.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<Option<Head>, Fault> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + found;
            self.within_limits(end)?;
            let Some(line) = bytes[self.line..end].strip_suffix(b"\r") else {
                return Err(self.malformed("a line of the head ends in LF without CR"));
            };
            (self.line, self.searched) = (end + 1, end + 1);
            match (&self.request, line) {
                // RFC 9112 section 2.2: empty lines before the request line are ignored, which hyper does as well.
                (None, b"") if self.line > MAX_EMPTY => return Err(self.head_too_large()),
                (None, b"") => {}
                (None, line) => self.request = Some(request_line(line)?),
                (Some(_), b"") => return self.complete(end + 1).map(Some),
                (Some(_), line) => self.field(line)?,
            }
        }
        self.searched = bytes.len();
        self.within_limits(self.searched.saturating_sub(1))?;
        Ok(None)
    }

    /// Whether the byte at `last`, of the line that is not complete yet, may be there. The same bytes meet the same limit in whatever
    /// pieces they come: neither a line nor the head is measured by where it ends.
    fn within_limits(&self, last: usize) -> Result<(), Fault> {
        // Behind the longest line there are CR and LF.
        if self.request.is_none() && last.saturating_sub(self.line) > MAX_LINE + 1 {
            return Err(self.target_too_long());
        }
        if last >= MAX_HEAD {
            return Err(self.head_too_large());
        }
        Ok(())
    }

    /// Whether some of the head has arrived; empty lines before it are nothing.
    pub(super) fn has_begun(&self) -> bool {
        self.request.is_some() || self.searched > self.line
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(self.head_too_large());
        }
        if matches!(line[0], b' ' | b'\t') {
            return Err(self.malformed("a header field is continued on a second line (obs-fold)"));
        }
        let colon = line.iter().position(|&byte| !IS_TOKEN[byte as usize]).unwrap_or(line.len());
        if colon == 0 || line.get(colon) != Some(&b':') {
            return Err(
                self.malformed("a header field has no name, or something stands between name and colon")
            );
        }
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !value.iter().all(|&byte| IS_VALUE[byte as usize]) {
            return Err(self.malformed("a header field holds a control character"));
        }
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                let mut protocols = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                self.websocket |= protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = content_length(value.trim_ascii());
                match (length, self.length) {
                    (Some(length), None) => self.length = Some(length),
                    (None, _) => return Err(self.malformed("Content-Length is not one decimal number")),
                    (Some(_), Some(_)) => return Err(self.ambiguous("Content-Length stands twice")),
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(self.ambiguous("Transfer-Encoding is something else than one `chunked`"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn complete(&self, length: usize) -> Result<Head, Fault> {
        let Some(RequestLine { method, is_http_10 }) = &self.request else {
            return Err(self.malformed("the head has no request line"));
        };
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(self.ambiguous("Content-Length stands beside Transfer-Encoding")),
            (true, None) if *is_http_10 => {
                return Err(self.ambiguous("an HTTP/1.0 request has a Transfer-Encoding"));
            }
            (true, None) => Framing::Chunked,
            (false, None | Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
        };
        let connect = *method == Method::CONNECT;
        if connect && framing != Framing::None {
            return Err(self.malformed("CONNECT has a body"));
        }
        let websocket = self.websocket && *method == Method::GET && framing == Framing::None && !is_http_10;
        Ok(Head { length, framing, may_switch: connect || websocket })
    }

    fn method(&self) -> Option<Method> {
        self.request.as_ref().map(|request| request.method.clone())
    }

    pub(super) fn malformed(&self, message: &str) -> Fault {
        Fault { refusal: Refusal::new(Reason::MalformedRequest, message), method: self.method() }
    }

    pub(super) fn timed_out(&self, message: String) -> Fault {
        Fault { refusal: Refusal::new(Reason::RequestTimeout, message), method: self.method() }
    }

    fn ambiguous(&self, message: &str) -> Fault {
        Fault { refusal: Refusal::new(Reason::AmbiguousRequest, message), method: self.method() }
    }

    fn target_too_long(&self) -> Fault {
        let message = format!("the request line is longer than {MAX_LINE} bytes");
        Fault { refusal: Refusal::new(Reason::TargetTooLong, message), method: self.method() }
    }

    fn head_too_large(&self) -> Fault {
        let message =
            format!("the head is larger than {MAX_HEAD} bytes or has more than {MAX_FIELDS} fields");
        Fault { refusal: Refusal::new(Reason::HeadTooLarge, message), method: self.method() }
    }
}

/// `METHOD SP TARGET SP HTTP/1.x`, single spaces, nothing else (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Result<RequestLine, Fault> {
    let fault = |method: Option<&Method>, message: &str| Fault {
        refusal: Refusal::new(Reason::MalformedRequest, message),
        method: method.cloned(),
    };
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(fault(None, "the request line is not METHOD, target and version with single spaces"));
    };
    let method = Method::from_bytes(method).map_err(|_| fault(None, "the method is not a token"))?;
    let is_http_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(fault(Some(&method), "the version is neither HTTP/1.1 nor HTTP/1.0")),
    };
    if !is_readable(target) {
        return Err(fault(
            Some(&method),
            "the request target is not a URI: a character in it must be percent-encoded",
        ));
    }
    Ok(RequestLine { method, is_http_10 })
}

/// Whether hyper reads `target` as it stands; if not, it would answer by itself. A fragment it would drop.
fn is_readable(target: &[u8]) -> bool {
    let plain = target.first() == Some(&b'/') && target.iter().all(|&byte| IS_PLAIN[byte as usize]);
    plain || (!target.contains(&b'#') && Uri::try_from(target).is_ok())
}

/// Digits only: no sign, no space, no list (RFC 9110 section 8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// RFC 9110 section 5.6.2.
pub(super) const IS_TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", true);
/// RFC 3986's unreserved and reserved characters without `#[]`, and `%`: every parser of targets takes them.
const IS_PLAIN: [bool; 256] = table(b"-._~/%?=&+:@,;!$'()*", true);
/// RFC 9110 section 5.5: visible characters, space, tab, and obs-text.
pub(super) const IS_VALUE: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = byte == b'\t' as usize;
        byte += 1;
    }
    table[0x7f] = false;
    table
};

const fn table(extra: &[u8], alphanumeric: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = alphanumeric && (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < extra.len() {
        table[extra[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(head: &str) -> Result<Option<Head>, Reason> {
        HeadScan::default().scan(head.as_bytes()).map_err(|fault| fault.refusal.reason)
    }

    fn head(length: usize, framing: Framing, may_switch: bool) -> Result<Option<Head>, Reason> {
        Ok(Some(Head { length, framing, may_switch }))
    }

    #[test]
    fn good_heads_say_what_follows() {
        for (text, framing, may_switch) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, false),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, false),
            ("GET /a\"?b={c}| HTTP/1.1\r\nX-Y_z: \t ü\r\n\r\n", Framing::None, false),
            ("GET http://a/ HTTP/1.0\r\n\r\n", Framing::None, false),
            ("OPTIONS * HTTP/1.1\r\n\r\n", Framing::None, false),
            ("POST / HTTP/1.1\r\ncontent-LENGTH:  10 \r\n\r\n", Framing::Length(10), false),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Framing::None, false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, false),
            ("CONNECT a:443 HTTP/1.1\r\n\r\n", Framing::None, true),
            ("GET / HTTP/1.1\r\nUpgrade: h2c, WebSocket\r\n\r\n", Framing::None, true),
            ("POST / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", Framing::None, false),
            ("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", Framing::None, false),
        ] {
            assert_eq!(scan(text), head(text.len(), framing, may_switch), "{text:?}");
        }
    }

    #[test]
    fn t23_framing_that_two_parsers_read_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 9999999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding:\x0bchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\r\n : chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            "X: a\0b",
            ": empty",
            "no colon",
            "X y: z",
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            let refused = scan(&text).unwrap_err();
            assert!(
                matches!(refused, Reason::AmbiguousRequest | Reason::MalformedRequest),
                "{fields:?}: {refused}"
            );
        }
        assert_eq!(
            scan("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(Reason::AmbiguousRequest)
        );
        assert_eq!(
            scan("CONNECT a:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"),
            Err(Reason::MalformedRequest)
        );
    }

    #[test]
    fn t29_request_lines_have_one_form() {
        for line in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / http/1.1",
            "GET / HTTP/2.0",
            "GET /",
            "GET",
            "G@T / HTTP/1.1",
            "GET /#fragment HTTP/1.1",
            "GET /a\x01b HTTP/1.1",
            "GET a\\b HTTP/1.1",
            "CONNECT a%2eb:443 HTTP/1.1",
        ] {
            assert_eq!(
                scan(&format!("{line}\r\nHost: a\r\n\r\n")),
                Err(Reason::MalformedRequest),
                "{line:?}"
            );
        }
        assert_eq!(scan("GET / HTTP/1.1\nHost: a\n\n"), Err(Reason::MalformedRequest));
    }

    #[test]
    fn t33_heads_have_limits() {
        let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_LINE));
        assert_eq!(scan(&line), Err(Reason::TargetTooLong));
        assert_eq!(scan(&line[..MAX_LINE + 3]), Err(Reason::TargetTooLong));
        assert_eq!(scan(&line[..MAX_LINE + 2]), Ok(None), "a CR and an LF may follow");
        let many = "X: y\r\n".repeat(MAX_FIELDS + 1);
        assert_eq!(scan(&format!("GET / HTTP/1.1\r\n{many}")), Err(Reason::HeadTooLarge));
        let large = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(MAX_HEAD));
        assert_eq!(scan(&large), Err(Reason::HeadTooLarge));
        assert!(scan(&format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS))).is_ok());
        assert_eq!(scan(&"\r\n".repeat(100)), Err(Reason::HeadTooLarge));
    }

    #[test]
    fn a_head_may_arrive_byte_by_byte() {
        let text = b"\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let mut scan = HeadScan::default();
        let length = text.len() - 3;
        for end in 1..length {
            assert_eq!(scan.scan(&text[..end]), Ok(None), "{end}");
        }
        assert_eq!(
            scan.scan(text),
            Ok(Some(Head { length, framing: Framing::Length(3), may_switch: false }))
        );
    }
}
