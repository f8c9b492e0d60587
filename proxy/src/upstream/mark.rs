//! How a request is known that comes back: through a proxy that a service of the operator's stands behind, and whose way out is this one
//! (T19).
//!
//! A mark in `CDN-Loop` (RFC 8586), which proxies pass on, and no `Via` (RFC 9110 section 7.6.3): servers compress and cache otherwise
//! where they see one. It goes only to addresses that are not public, as nothing else is likely to come back: nobody on the Internet learns
//! that there is a proxy, or can tell which of its sandboxes share one.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Peer;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// The mark of this process, new with each start.
#[derive(Clone, Debug)]
pub(crate) struct LoopMark(HeaderValue);

impl LoopMark {
    pub(crate) fn new() -> Self {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).expect("the system has randomness");
        let text = format!("keyferry-{:016x}", u64::from_be_bytes(random));
        Self(HeaderValue::try_from(text).expect("letters and digits"))
    }

    /// Marks a request on its way to `peer`; once, however often it is sent.
    pub(crate) fn put(&self, headers: &mut HeaderMap, peer: Peer) {
        if peer.is_inside && !self.is_in(headers) {
            headers.append(CDN_LOOP, self.0.clone());
        }
    }

    /// Whether a request has been here already.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.get_all(CDN_LOOP).iter().any(|value| {
            let nodes = value.as_bytes().split(|&byte| byte == b',');
            // Another node may have joined the lines, and parameters may stand behind each name.
            let mut names = nodes.map(|node| node.split(|&byte| byte == b';').next().unwrap_or_default());
            names.any(|name| name.trim_ascii().eq_ignore_ascii_case(self.0.as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: &str = "10.0.0.1:443";
    const OUTSIDE: &str = "192.0.1.1:443";

    fn peer(address: &str, is_inside: bool) -> Peer {
        Peer { address: address.parse().unwrap(), is_inside }
    }

    #[test]
    fn t19_a_mark_is_put_once_beside_those_of_others_and_never_on_the_way_to_the_internet() {
        let mark = LoopMark::new();
        let mut headers = HeaderMap::new();
        headers.append(CDN_LOOP, HeaderValue::from_static("other; loops=1"));
        let theirs = headers.clone();
        mark.put(&mut headers, peer(OUTSIDE, false));
        assert_eq!(headers, theirs);

        mark.put(&mut headers, peer(INSIDE, true));
        mark.put(&mut headers, peer(INSIDE, true));
        let marks: Vec<_> = headers.get_all(CDN_LOOP).iter().cloned().collect();
        assert_eq!(marks, [HeaderValue::from_static("other; loops=1"), mark.0.clone()]);
    }

    #[test]
    fn t19_it_is_found_however_proxies_on_the_way_have_written_it_and_another_process_has_another() {
        let mark = LoopMark::new();
        let text = mark.0.to_str().unwrap();
        for (value, found) in [
            (text.to_owned(), true),
            (format!("other, {text} ; loops=1"), true),
            (text.to_uppercase(), true),
            (format!("{text}0"), false),
            (LoopMark::new().0.to_str().unwrap().to_owned(), false),
            (String::new(), false),
        ] {
            let headers = HeaderMap::from_iter([(CDN_LOOP, HeaderValue::try_from(&value).unwrap())]);
            assert_eq!(mark.is_in(&headers), found, "{value}");
        }
    }
}
