//! A parsed request: does it name the destination that its connection is for, and what of it is meant for the proxy alone?

use http::header::{
    CONNECTION, CONTENT_LENGTH, Entry, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use keyferry_config::policy::{Destination, Host, HostError, Reason, Refusal, Scheme};

/// RFC 9209.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Every name that the request gives for its destination names `to` (invariant 3; T02 to T05). `authority` is `to`'s own spelling.
pub(crate) fn agrees(parts: &Parts, to: &Destination, authority: &HeaderValue) -> Result<(), Refusal> {
    match parts.method {
        Method::CONNECT => return Err(malformed("a tunnel inside a tunnel is not opened")),
        // It hands the request back to its sender, and with it what was put into it (RFC 9110 section 9.3.8).
        Method::TRACE => return Err(Refusal::new(Reason::MethodNotAllowed, "TRACE is never forwarded")),
        Method::OPTIONS => {}
        _ if parts.uri.path() == "*" => return Err(malformed("only OPTIONS may ask for `*`")),
        _ => {}
    }
    if let Some(named) = parts.uri.authority() {
        same(named.as_str(), to)?;
        match parts.uri.scheme_str() {
            Some(scheme) if scheme == to.scheme.as_str() => {}
            Some(_) => return Err(mismatch(format!("the request names another scheme than {to}"))),
            None => return Err(malformed("only CONNECT asks for HOST:PORT")),
        }
    } else if parts.version == Version::HTTP_2 {
        return Err(malformed("the request has no :authority"));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host == authority => Ok(()),
        (Some(host), None) => same(host.to_str().map_err(|_| malformed("the Host header is not text"))?, to),
        (Some(_), Some(_)) => Err(Refusal::new(Reason::AmbiguousRequest, "the request has two Host headers")),
        (None, _) if parts.version == Version::HTTP_11 => Err(malformed("the request has no Host header")),
        (None, _) => Ok(()),
    }
}

/// The host and port of a CONNECT (RFC 9112 section 3.2.3).
pub(crate) fn connect_target(parts: &Parts) -> Result<(Host, u16), Refusal> {
    let authority = parts.uri.authority().filter(|_| parts.uri.scheme().is_none());
    let Some(authority) = authority else { return Err(malformed("CONNECT needs HOST:PORT")) };
    let (host, port) = Host::parse_authority(authority.as_str()).map_err(|error| bad_host(&error))?;
    let port = port.unwrap_or(443);
    for named in parts.headers.get_all(HOST) {
        let named = named.to_str().map_err(|_| malformed("the Host header is not text"))?;
        let (other, other_port) = Host::parse_authority(named).map_err(|error| bad_host(&error))?;
        if other != host || other_port.is_some_and(|other| other != port) {
            return Err(mismatch(format!(
                "CONNECT is for {host}:{port}, its Host header names another destination"
            )));
        }
    }
    Ok((host, port))
}

/// The destination of an absolute-form request (RFC 9112 section 3.2.2).
pub(crate) fn absolute_form(parts: &Parts) -> Result<Destination, Refusal> {
    let Some(authority) = parts.uri.authority() else {
        return Err(malformed("this is a proxy: send CONNECT for https, or the absolute URL for http"));
    };
    if parts.uri.scheme_str() != Some("http") {
        return Err(malformed(
            "an https URL needs CONNECT: the proxy does not fetch it over a connection in cleartext",
        ));
    }
    let (host, port) = Host::parse_authority(authority.as_str()).map_err(|error| bad_host(&error))?;
    Ok(Destination { scheme: Scheme::Http, host, port: port.unwrap_or(80) })
}

/// Removes what concerns one connection only: the fields that `Connection` lists, and those that every proxy must not pass on (RFC 9110
/// section 7.6.1). Done before anything is injected, so that no list can remove an injected field (T30).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(|value| lists(value, "trailers"));
    if let Entry::Occupied(listed) = headers.entry(CONNECTION) {
        let (_, values) = listed.remove_entry_mult();
        let names: Vec<HeaderName> = values
            .flat_map(|value| tokens(&value).filter_map(|name| name.parse().ok()).collect::<Vec<_>>())
            .collect();
        // `Host` and the framing are not the connection's to remove.
        for name in names.into_iter().filter(|name| !matches!(*name, HOST | CONTENT_LENGTH)) {
            headers.remove(name);
        }
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHORIZATION,
        &PROXY_AUTHENTICATE,
        &TE,
        &TRANSFER_ENCODING,
        &UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        // gRPC wants to hear it at every hop, and we do pass trailers on.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The same for a response; `Trailer` stays, since trailers are passed on.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(TE);
    // The sandbox has no way out but this proxy, and HTTP/3 is not one (T22).
    headers.remove(http::header::ALT_SVC);
    // An upstream must not speak in our name.
    if headers.get_all(PROXY_STATUS).iter().any(|value| contains(value.as_bytes(), b"keyferry")) {
        headers.remove(PROXY_STATUS);
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

/// Whether the framing of a response is one that all readers agree on. hyper goes by Transfer-Encoding where there is a Content-Length as well,
/// and hands both on (RFC 9112 section 6.3).
pub(crate) fn has_one_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    }
}

/// Whether a request asks for a WebSocket (RFC 6455 section 4.1). Other upgrades are ordinary requests: a server may ignore them.
pub(crate) fn wants_websocket(parts: &Parts) -> bool {
    parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && parts.headers.get_all(UPGRADE).iter().any(|value| lists(value, "websocket"))
        && parts.headers.get_all(CONNECTION).iter().any(|value| lists(value, "upgrade"))
}

/// Whether a comma-separated list holds `token`, in any case.
pub(crate) fn lists(value: &HeaderValue, token: &str) -> bool {
    tokens(value).any(|listed| listed.eq_ignore_ascii_case(token))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

fn same(named: &str, to: &Destination) -> Result<(), Refusal> {
    match to.is_named_by(named) {
        Ok(true) => Ok(()),
        Ok(false) => Err(mismatch(format!(
            "the request names another destination than {to}, which this connection is for"
        ))),
        Err(error) => Err(bad_host(&error)),
    }
}

fn bad_host(error: &HostError) -> Refusal {
    malformed(&error.to_string())
}

fn malformed(message: &str) -> Refusal {
    Refusal::new(Reason::MalformedRequest, message)
}

fn mismatch(message: String) -> Refusal {
    Refusal::new(Reason::DestinationMismatch, message)
}
