//! Which principal is on a connection: the one that everybody is, or the one that a sandbox belongs to.

mod failures;
mod sandbox;
mod socket;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;
use keyferry_config::policy::{Reason, Refusal, decode_basic};
use keyferry_source::SecretValue;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::principal::Principal;
use failures::Failures;
pub(crate) use sandbox::Sandbox;
pub use socket::SocketsError;
pub(crate) use socket::{Opened, Sockets};

/// Knows principals by what their connections show.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Read once for a CONNECT; written while a state of the control plane comes into force, so that it does so at once.
    who: RwLock<Who>,
    failures: Failures,
}

/// Who connects.
#[derive(Debug)]
pub(crate) enum Who {
    /// This one, whoever connects; with these credentials, if there are some.
    One(Arc<Principal>, Option<Credentials>),
    /// Whoever a sandbox belongs to. By their ids.
    Sandboxes(HashMap<Box<str>, Arc<Sandbox>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Arc<SecretValue>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Whoever comes from there, and shows who it is.
    At(SocketAddr),
    /// The sandbox whose own socket it came through, which is all that it takes.
    Sandbox(Arc<Sandbox>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => write!(f, "{address}"),
            Self::Sandbox(sandbox) => f.write_str(&sandbox.id),
        }
    }
}

/// Whose request it is.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    pub(crate) sandbox: Option<Arc<Sandbox>>,
}

impl Caller {
    fn of(sandbox: &Arc<Sandbox>) -> Self {
        Self { principal: Arc::clone(&sandbox.principal), sandbox: Some(Arc::clone(sandbox)) }
    }
}

/// It could not be told whose request it is.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) refusal: Refusal,
    /// How long the answer waits (T68).
    pub(crate) wait: Duration,
}

impl Identity {
    pub(crate) fn new(who: Who) -> Self {
        Self { who: RwLock::new(who), failures: Failures::default() }
    }

    /// Whose a request to the proxy itself is: a CONNECT or an absolute-form request (T64).
    pub(crate) fn of(&self, headers: &HeaderMap, client: IpAddr) -> Result<Caller, Stranger> {
        let refusal = |message: &str| Refusal::new(Reason::ProxyAuthRequired, message);
        let who = self.who.read().unwrap_or_else(PoisonError::into_inner);
        if let Who::One(principal, None) = &*who {
            return Ok(Caller { principal: Arc::clone(principal), sandbox: None });
        }
        let mut shown = headers.get_all(PROXY_AUTHORIZATION).iter();
        let value = match (shown.next(), shown.next()) {
            (Some(value), None) => value,
            // A client that was not asked yet: no attempt.
            (None, _) => {
                let refusal = refusal("no proxy credentials were sent");
                return Err(Stranger { refusal, wait: Duration::ZERO });
            }
            (Some(_), Some(_)) => {
                let refusal = refusal("proxy credentials were sent twice");
                return Err(Stranger { refusal, wait: Duration::ZERO });
            }
        };
        let found = match (&*who, Basic::read(value.as_bytes())) {
            (_, None) => Err("the proxy credentials are not Basic credentials"),
            (Who::One(principal, credentials), Some(basic)) => {
                match credentials.as_ref().is_none_or(|expected| expected.are(&basic)) {
                    true => Ok(Caller { principal: Arc::clone(principal), sandbox: None }),
                    false => Err("the proxy credentials are wrong"),
                }
            }
            (Who::Sandboxes(sandboxes), Some(basic)) => {
                let known = str::from_utf8(basic.user()).ok().and_then(|id| sandboxes.get(id));
                sandbox::admit(known, basic.password(), client).map(Caller::of)
            }
        };
        found.map_err(|message| Stranger { refusal: refusal(message), wait: self.failures.another(client) })
    }

    /// To change who is known. Nobody is told apart meanwhile.
    pub(crate) fn change(&self) -> RwLockWriteGuard<'_, Who> {
        self.who.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decoded credentials, wiped when they have been compared.
struct Basic {
    decoded: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Basic {
    fn read(value: &[u8]) -> Option<Self> {
        let (scheme, encoded) = value.split_at_checked("basic ".len())?;
        let decoded = Zeroizing::new(decode_basic(encoded)?);
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        scheme.eq_ignore_ascii_case(b"basic ").then_some(Self { decoded, colon })
    }

    fn user(&self) -> &[u8] {
        &self.decoded[..self.colon]
    }

    fn password(&self) -> &[u8] {
        &self.decoded[self.colon + 1..]
    }
}

impl Credentials {
    /// Compared in a time that tells at most the lengths (T68).
    fn are(&self, basic: &Basic) -> bool {
        let same = basic.user().ct_eq(self.user.as_bytes())
            & basic.password().ct_eq(self.password.expose().as_bytes());
        bool::from(same)
    }
}
