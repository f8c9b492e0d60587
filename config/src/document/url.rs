//! The address of a service, as the file writes it.

use std::fmt;

use http::Uri;
use serde::{Serialize, Serializer};

use super::field::Field;
use super::place::At;

/// An absolute URL with a host. A user and a password in it are never shown (T46).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceUrl(Uri);

/// What a URL is for, which decides on its scheme.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// A service that is asked over HTTP.
    Service,
    /// A proxy on the way to the upstreams.
    Proxy,
}

impl Use {
    const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Service => &["https", "http"],
            Self::Proxy => &["http", "https", "socks5", "socks5h"],
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::Service => "write https://HOST/PATH",
            Self::Proxy => "write http://HOST:PORT, or the same with https, socks5 or socks5h",
        }
    }
}

impl ServiceUrl {
    /// The URL, with everything that it holds.
    pub fn as_uri(&self) -> &Uri {
        &self.0
    }

    /// Reads the URL at `at`; empty counts as absent.
    pub(super) fn read(written: Field<String>, at: &At<'_>, purpose: Use) -> Field<Self> {
        let text = match written.not_empty() {
            Field::Absent => return Field::Absent,
            Field::Invalid => return Field::Invalid,
            Field::Is(text) => text,
        };
        // The URL is not shown: it may hold a password.
        match parse(&text, purpose) {
            Ok(url) => Field::Is(url),
            Err(message) => {
                at.error(message, purpose.hint());
                Field::Invalid
            }
        }
    }
}

fn parse(text: &str, purpose: Use) -> Result<ServiceUrl, &'static str> {
    if text.contains('#') {
        return Err("a URL of a service has no fragment");
    }
    let uri: Uri = text.parse().map_err(|_| "not a URL")?;
    match uri.scheme_str() {
        Some(scheme) if purpose.schemes().contains(&scheme) => {}
        Some(_) => return Err("a URL of another scheme than belongs here"),
        None => return Err("a URL needs its scheme"),
    }
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(ServiceUrl(uri)),
        Some(_) | None => Err("a URL needs its host"),
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", http::uri::Authority::as_str);
        let path = self.0.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let scheme = self.0.scheme_str().unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}://[redacted]@{host}{path}"),
            None => write!(f, "{scheme}://{authority}{path}"),
        }
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ServiceUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_scheme_and_a_host_and_no_fragment() {
        for (text, expected) in [
            ("https://a.example/v1/mcp?x=1", Ok("https://a.example/v1/mcp?x=1")),
            ("http://[::1]:8080", Ok("http://[::1]:8080/")),
            ("https://user:s3cret@a.example/x", Ok("https://[redacted]@a.example/x")),
            ("ftp://a.example/", Err("a URL of another scheme than belongs here")),
            ("a.example", Err("a URL needs its scheme")),
            ("/path", Err("a URL needs its scheme")),
            ("https:///path", Err("not a URL")),
            ("https://a.example/#top", Err("a URL of a service has no fragment")),
            ("https://a b/", Err("not a URL")),
        ] {
            let read = parse(text, Use::Service);
            assert!(!format!("{read:?}").contains("s3cret"), "{text}");
            assert_eq!(read.map(|url| url.to_string()), expected.map(str::to_owned), "{text}");
        }
    }
}
