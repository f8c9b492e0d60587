//! Names of headers: those that are set on a request, and patterns that find them.

use http::HeaderName;
use http::header;
use regex::RegexBuilder;

use super::place::{At, shortened};

/// Reports a header that cannot be set on a request.
pub(super) fn check_settable(name: &str, at: &At<'_>) {
    // These say where a message goes or where it ends; a secret there would change the request's meaning (invariant 3).
    const OWN: [HeaderName; 9] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::PROXY_AUTHORIZATION,
        header::EXPECT,
    ];
    match HeaderName::from_bytes(name.as_bytes()) {
        Err(_) => {
            at.error(format!("not a header name: {}", at.shown()), "write a name such as Authorization");
        }
        Ok(name) if OWN.contains(&name) => {
            at.error(format!("the proxy itself decides about this header: {}", at.shown()), ());
        }
        Ok(_) => {}
    }
}

/// Reports what is neither a header's name nor a regular expression between slashes.
pub(super) fn check_pattern(pattern: &str, at: &At<'_>) {
    if let Some(pattern) = pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        if RegexBuilder::new(pattern).case_insensitive(true).build().is_err() {
            at.error(
                format!("not a regular expression: {}", at.shown()),
                "backreferences and lookaround are not supported",
            );
        }
    } else if HeaderName::from_bytes(pattern.as_bytes()).is_err() {
        at.error(
            format!("not a header name: {}", at.shown()),
            "write a name, or a regular expression between slashes",
        );
    }
}

/// The same for a header's name that is a key of the file.
pub(super) fn check_key(name: &str, at: &At<'_>) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        at.error(format!("not a header name: {:?}", shortened(name)), "write a name such as Authorization");
    }
}

/// Reports what is not a header's name.
pub(super) fn check_name(name: &str, at: &At<'_>) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        at.error(format!("not a header name: {}", at.shown()), "write a name such as X-Request-Id");
    }
}
