//! Which principal is on a connection. In file mode there is one, `local`, and at most one password.

use std::sync::Arc;

use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use keyferry_config::policy::{Reason, Refusal, decode_basic};
use keyferry_source::SecretValue;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Knows principals by what their connections show.
#[derive(Debug)]
pub(crate) struct Identity {
    local: Arc<str>,
    credentials: Option<Credentials>,
}

#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Arc<SecretValue>,
}

impl Identity {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Self { local: "local".into(), credentials }
    }

    /// The principal of a request to the proxy itself: a CONNECT or an absolute-form request (T64).
    pub(crate) fn of(&self, headers: &HeaderMap) -> Result<Arc<str>, Refusal> {
        let Some(expected) = &self.credentials else { return Ok(Arc::clone(&self.local)) };
        let mut shown = headers.get_all(PROXY_AUTHORIZATION).iter();
        let refusal = |message| Err(Refusal::new(Reason::ProxyAuthRequired, message));
        match (shown.next(), shown.next()) {
            (Some(value), None) if expected.are(value.as_bytes()) => Ok(Arc::clone(&self.local)),
            (None, _) => refusal("no proxy credentials were sent"),
            (Some(_), None) => refusal("the proxy credentials are wrong"),
            (Some(_), Some(_)) => refusal("proxy credentials were sent twice"),
        }
    }

    /// Whoever speaks before it has shown credentials.
    pub(crate) fn nobody(&self) -> Arc<str> {
        Arc::clone(&self.local)
    }
}

impl Credentials {
    /// Compared in a time that tells at most the lengths (T68).
    fn are(&self, value: &[u8]) -> bool {
        let Some((scheme, encoded)) = value.split_at_checked("basic ".len()) else { return false };
        let Some(decoded) = decode_basic(encoded).map(Zeroizing::new) else { return false };
        let Some(colon) = decoded.iter().position(|&byte| byte == b':') else { return false };
        let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
        let same = user.ct_eq(self.user.as_bytes()) & password.ct_eq(self.password.expose().as_bytes());
        scheme.eq_ignore_ascii_case(b"basic ") && bool::from(same)
    }
}
