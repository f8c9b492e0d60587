//! One response on its way to the sandbox: headers, body in whatever coding, trailers.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, Entry, HeaderName, HeaderValue,
    IF_RANGE, RANGE,
};

use super::{RedactStream, Redactor};
use crate::coding::{Coding, CodingError, Decoder};
use crate::stream::Pieces;

/// The most bytes that one coded response may become (T79): 8 GiB. What is larger is not text that echoes a credential.
const MAX_DECODED: u64 = 8 << 30;

/// Asks only for what can be searched: the codings that can be decoded, and no part of a response that holds only part of a value (T44).
pub(crate) fn narrow_request(headers: &mut HeaderMap) {
    headers.remove(RANGE);
    headers.remove(IF_RANGE);
    let Entry::Occupied(offered) = headers.entry(ACCEPT_ENCODING) else { return };
    let (_, values) = offered.remove_entry_mult();
    let values: Vec<HeaderValue> = values.collect();
    let known = |coding: &&str| {
        let name = coding.split(';').next().unwrap_or_default().trim();
        !name.is_empty() && Coding::named(name).is_ok()
    };
    let codings = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let known: Vec<&str> = codings.map(str::trim).filter(known).collect();
    let narrowed = if known.is_empty() { "identity".to_owned() } else { known.join(", ") };
    if let Ok(narrowed) = HeaderValue::try_from(narrowed) {
        headers.insert(ACCEPT_ENCODING, narrowed);
    }
}

/// Takes values out of header or trailer fields, and fields out whose name holds one. Returns how many there were.
pub(crate) fn scan_fields(redactor: &Redactor, fields: &mut HeaderMap) -> u64 {
    let named: Vec<HeaderName> =
        fields.keys().filter(|name| redactor.is_in(name.as_str().as_bytes())).cloned().collect();
    let mut redacted = named.len() as u64;
    for name in named {
        fields.remove(name);
    }
    for value in fields.values_mut() {
        if let Some(scanned) = redactor.scan_header(value) {
            *value = scanned;
            redacted += 1;
        }
    }
    redacted
}

/// A body that is decoded and scanned as it streams.
#[derive(Debug)]
pub(crate) struct Scan {
    redactor: Arc<Redactor>,
    decoder: Option<Decoder>,
    text: RedactStream,
    ready: Pieces,
    is_over: bool,
}

impl Scan {
    /// Prepares to scan the response with these header fields, which then describe what the sandbox gets: no coding, and a length that is
    /// not known (nor told by HEAD).
    pub(crate) fn new(redactor: &Arc<Redactor>, headers: &mut HeaderMap) -> Result<Self, CodingError> {
        let decoder = Coding::of(headers)?.map(|coding| Decoder::new(coding, Some(MAX_DECODED)));
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        headers.remove(ACCEPT_RANGES);
        let (redactor, text) = (Arc::clone(redactor), redactor.stream());
        Ok(Self { redactor, decoder, text, ready: Pieces::new(), is_over: false })
    }

    /// The next piece for the sandbox; if there is none, [`Scan::push`] or [`Scan::finish`] is due, or it was the last.
    pub(crate) fn pull(&mut self) -> Result<Option<Bytes>, CodingError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let Some(decoded) = self.decoder.as_mut().map_or(Ok(None), Decoder::pull)? else {
                return Ok(None);
            };
            self.text.push(decoded, &mut self.ready);
        }
    }

    /// The next piece from the upstream.
    pub(crate) fn push(&mut self, piece: Bytes) {
        match &mut self.decoder {
            Some(decoder) => decoder.push(piece),
            None => self.text.push(piece, &mut self.ready),
        }
    }

    /// The upstream's body is over.
    pub(crate) fn finish(&mut self) -> Result<(), CodingError> {
        if let Some(decoder) = &mut self.decoder {
            decoder.finish()?;
        }
        self.text.finish(&mut self.ready);
        self.is_over = true;
        Ok(())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// How many values were taken out of the body.
    pub(crate) fn redacted(&self) -> u64 {
        self.text.redacted()
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codings_that_can_be_decoded_are_asked_for_and_no_ranges() {
        for (offered, narrowed) in [
            ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
            ("gzip;q=0.5, compress, *;q=0.1", "gzip;q=0.5"),
            ("sdch", "identity"),
            ("", "identity"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(offered).unwrap());
            headers.insert(RANGE, HeaderValue::from_static("bytes=0-1"));
            narrow_request(&mut headers);
            let mut expected = HeaderMap::new();
            expected.insert(ACCEPT_ENCODING, HeaderValue::from_str(narrowed).unwrap());
            assert_eq!(headers, expected, "{offered}");
        }
        let mut none = HeaderMap::new();
        narrow_request(&mut none);
        assert_eq!(none, HeaderMap::new());
    }
}
