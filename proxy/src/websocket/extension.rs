//! The one extension that is known: permessage-deflate (RFC 7692). Any other is taken out of the offer.

use std::fmt;

use http::HeaderMap;
use http::header::{Entry, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

/// What both sides have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deflate {
    pub(super) server_no_context_takeover: bool,
    pub(super) client_no_context_takeover: bool,
    /// As powers of two.
    pub(super) server_max_window_bits: Option<u8>,
    pub(super) client_max_window_bits: Option<u8>,
}

/// What a client would accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    asked: Deflate,
    /// It lets the server choose the client's window, up to `asked.client_max_window_bits`.
    client_window: bool,
}

const NAME: &str = "permessage-deflate";

/// Takes the offers that are understood out of a request, in the client's order; one with parameters that the RFC does not have is
/// declined by leaving it out (RFC 7692 section 5.1). An error if the field cannot be read.
pub(super) fn take_offers(headers: &mut HeaderMap) -> Result<Vec<Offer>, &'static str> {
    let Entry::Occupied(field) = headers.entry(SEC_WEBSOCKET_EXTENSIONS) else { return Ok(Vec::new()) };
    let (_, values) = field.remove_entry_mult();
    let mut offers = Vec::new();
    for value in values {
        for extension in listed(&value)? {
            if extension.name.eq_ignore_ascii_case(NAME) {
                offers.extend(Offer::of(&extension.parameters));
            }
        }
    }
    Ok(offers)
}

/// The offers as they go on; nothing if there are none.
pub(super) fn offered(offers: &[Offer]) -> Option<HeaderValue> {
    let texts: Vec<String> = offers.iter().map(Offer::to_string).collect();
    HeaderValue::try_from(texts.join(", ")).ok().filter(|_| !offers.is_empty())
}

/// What the server has chosen. An error if that was not on offer.
pub(super) fn chosen(headers: &HeaderMap, offers: &[Offer]) -> Result<Option<Deflate>, String> {
    let mut chosen = None;
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        for extension in listed(value)? {
            if !extension.name.eq_ignore_ascii_case(NAME) {
                return Err("it answers with an extension that was not offered".to_owned());
            }
            let answer = Offer::of(&extension.parameters)
                .filter(|answer| answer.client_window == answer.asked.client_max_window_bits.is_some())
                .ok_or("its permessage-deflate has parameters that no answer may have")?;
            if chosen.replace(answer.asked).is_some() {
                return Err("it answers with permessage-deflate twice".to_owned());
            }
        }
    }
    match chosen {
        Some(answer) if !offers.iter().any(|offer| offer.admits(&answer)) => {
            Err(format!("it answers with {answer}, which was not offered"))
        }
        Some(_) | None => Ok(chosen),
    }
}

impl Offer {
    fn of(parameters: &[(&str, Option<&str>)]) -> Option<Self> {
        let mut offer = Self::default();
        for (nth, (name, value)) in parameters.iter().enumerate() {
            let name = name.to_ascii_lowercase();
            if parameters[..nth].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(&name)) {
                return None;
            }
            let asked = &mut offer.asked;
            match (name.as_str(), value) {
                ("server_no_context_takeover", None) => asked.server_no_context_takeover = true,
                ("client_no_context_takeover", None) => asked.client_no_context_takeover = true,
                ("server_max_window_bits", Some(bits)) => asked.server_max_window_bits = Some(window(bits)?),
                ("client_max_window_bits", bits) => {
                    if let Some(bits) = bits {
                        asked.client_max_window_bits = Some(window(bits)?);
                    }
                    offer.client_window = true;
                }
                _ => return None,
            }
        }
        Some(offer)
    }

    /// RFC 7692 section 7.1.
    fn admits(&self, answer: &Deflate) -> bool {
        let within = |limit: Option<u8>, bits: Option<u8>| bits.unwrap_or(15) <= limit.unwrap_or(15);
        (answer.server_no_context_takeover || !self.asked.server_no_context_takeover)
            && within(self.asked.server_max_window_bits, answer.server_max_window_bits)
            && match answer.client_max_window_bits {
                Some(bits) => self.client_window && within(self.asked.client_max_window_bits, Some(bits)),
                None => true,
            }
    }
}

/// 8 to 15, without leading zeros.
fn window(text: &str) -> Option<u8> {
    text.parse().ok().filter(|bits: &u8| (8..=15).contains(bits) && !text.starts_with(['0', '+']))
}

impl fmt::Display for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Offer { asked: *self, client_window: self.client_max_window_bits.is_some() }.fmt(f)
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = &self.asked;
        f.write_str(NAME)?;
        if asked.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if asked.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = asked.server_max_window_bits {
            write!(f, "; server_max_window_bits={bits}")?;
        }
        match asked.client_max_window_bits {
            Some(bits) => write!(f, "; client_max_window_bits={bits}"),
            None if self.client_window => f.write_str("; client_max_window_bits"),
            None => Ok(()),
        }
    }
}

struct Extension<'v> {
    name: &'v str,
    parameters: Vec<(&'v str, Option<&'v str>)>,
}

/// The elements of one field (RFC 6455 section 9.1). A quoted value must be a token as well, so no separator can be inside quotes.
fn listed(value: &HeaderValue) -> Result<Vec<Extension<'_>>, &'static str> {
    const MALFORMED: &str = "Sec-WebSocket-Extensions cannot be read";
    let text = value.to_str().map_err(|_| MALFORMED)?;
    let mut extensions = Vec::new();
    for element in text.split(',').map(trim).filter(|element| !element.is_empty()) {
        let mut parts = element.split(';').map(trim);
        let name = parts.next().and_then(token).ok_or(MALFORMED)?;
        let parameters: Option<Vec<_>> = parts
            .map(|part| match part.split_once('=') {
                None => Some((token(part)?, None)),
                Some((name, value)) => {
                    let value = trim(value);
                    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                    Some((token(trim(name))?, Some(token(quoted.unwrap_or(value))?)))
                }
            })
            .collect();
        extensions.push(Extension { name, parameters: parameters.ok_or(MALFORMED)? });
    }
    Ok(extensions)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn token(text: &str) -> Option<&str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!text.is_empty() && text.bytes().all(is_token)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(value).unwrap())])
    }

    fn passed_on(value: &str) -> Result<String, &'static str> {
        let offers = take_offers(&mut headers(value))?;
        Ok(offered(&offers).map_or(String::new(), |value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn only_what_is_understood_is_offered() {
        for (offer, goes_on) in [
            ("permessage-deflate", "permessage-deflate"),
            ("PerMessage-Deflate;Client_Max_Window_Bits", "permessage-deflate; client_max_window_bits"),
            (
                "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits=\"10\"; server_max_window_bits=9",
                "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
            ),
            (
                "permessage-deflate; server_no_context_takeover, permessage-deflate; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover, permessage-deflate; client_no_context_takeover",
            ),
            ("permessage-bzip2; level=9", ""),
            ("permessage-deflate; mystery", ""),
            ("permessage-deflate; server_max_window_bits", ""),
            ("permessage-deflate; server_max_window_bits=7", ""),
            ("permessage-deflate; server_max_window_bits=16", ""),
            ("permessage-deflate; server_max_window_bits=010", ""),
            ("permessage-deflate; client_max_window_bits=+9", ""),
            ("permessage-deflate; server_no_context_takeover=1", ""),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", ""),
            (" , ", ""),
        ] {
            assert_eq!(passed_on(offer).as_deref(), Ok(goes_on), "{offer}");
        }
        for malformed in ["permessage-deflate;", "a b", "a; b=\"c,d\"", "=", "a; =1", "a; b="] {
            assert!(passed_on(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn an_answer_is_one_of_the_offers() {
        let offers = "permessage-deflate; server_max_window_bits=10; client_max_window_bits=12, \
                      permessage-deflate; server_no_context_takeover";
        let offers = take_offers(&mut headers(offers)).unwrap();
        for good in [
            "",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=8; client_max_window_bits=12",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
        ] {
            let answer = chosen(&headers(good), &offers);
            assert_eq!(
                answer.map(|answer| answer.map_or(String::new(), |a| a.to_string())).as_deref(),
                Ok(good)
            );
        }
        for bad in [
            "permessage-deflate",
            "permessage-deflate; server_max_window_bits=11",
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=13",
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover, permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; mystery",
            "x-other",
            "permessage-deflate;;",
        ] {
            assert!(chosen(&headers(bad), &offers).is_err(), "{bad}");
        }
        assert!(chosen(&headers("permessage-deflate"), &[]).is_err());
    }
}
