//! Credentials of the `Basic` scheme (RFC 7617).

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;

/// Credentials as curl, git and Java write them, with or without padding (RFC 7617 section 2).
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The text of a header value in which placeholders are looked for, and whether it was decoded from `Basic`.
pub(super) fn credentials(value: &HeaderValue) -> (Cow<'_, [u8]>, bool) {
    let bytes = value.as_bytes();
    // The scheme's name is case-insensitive (RFC 9110 section 11.1).
    if bytes.len() > 6
        && bytes[..6].eq_ignore_ascii_case(b"basic ")
        && let Some(decoded) = decode_basic(&bytes[6..])
    {
        return (Cow::Owned(decoded), true);
    }
    (Cow::Borrowed(bytes), false)
}

/// The `user:password` of `Basic` credentials, the scheme's name left out; none if they are not base64.
pub fn decode_basic(encoded: &[u8]) -> Option<Vec<u8>> {
    BASIC.decode(encoded.trim_ascii()).ok()
}
