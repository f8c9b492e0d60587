//! A sandbox that control told us of, and what it must show.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use keyferry_config::policy::{Reason, Refusal};
use keyferry_contract::sync::{SandboxIdentity, Transport};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use super::socket::OwnSocket;
use super::{Caller, Stranger};
use crate::principal::Principal;

/// Known by the hash of its token, or by a socket of its own.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: Arc<str>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) told: Arc<SandboxIdentity>,
    token: [u8; 32],
    ended: CancellationToken,
    socket: Mutex<Option<OwnSocket>>,
}

impl Sandbox {
    /// `None` where what was told is no hash of a token.
    pub(crate) fn new(told: SandboxIdentity, principal: Arc<Principal>) -> Option<Arc<Self>> {
        let token = hash(&told.token_sha256)?;
        let id = told.id.as_str().into();
        let (told, ended, socket) = (Arc::new(told), CancellationToken::new(), Mutex::default());
        Some(Arc::new(Self { id, principal, told, token, ended, socket }))
    }

    /// Who is asking, where it came through its own socket.
    pub(crate) fn caller(self: &Arc<Self>) -> Result<Caller, Stranger> {
        if !self.is_over() {
            return Ok(Caller::of(self));
        }
        let refusal = Refusal::new(Reason::ProxyAuthRequired, ENDED);
        Err(Stranger { refusal, wait: Duration::ZERO })
    }

    /// Where its socket is kept for as long as it is open.
    pub(crate) fn socket(&self) -> MutexGuard<'_, Option<OwnSocket>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has ended: nothing is admitted any more, and what is open ends (T67).
    pub(crate) fn end(self: &Arc<Self>) {
        self.ended.cancel();
        if let Some(socket) = self.socket().take() {
            socket.remove();
        }
        self.principal.open.close_of(self);
    }

    /// Completes when it ends.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.ended.is_cancelled()
    }

    fn is_over(&self) -> bool {
        self.told.not_after.is_some_and(|end| end <= Timestamp::now()) || self.is_gone()
    }
}

const ENDED: &str = "the sandbox has ended";

/// The sandbox, if it shows its token, from where it may (T65), in time. What is wrong stands in the record alone.
pub(super) fn admit<'a>(
    known: Option<&'a Arc<Sandbox>>,
    token: &[u8],
    client: IpAddr,
) -> Result<&'a Arc<Sandbox>, &'static str> {
    // Also for nobody, so that the time does not tell which sandboxes there are (T68).
    let shown = digest(&SHA256, token);
    let expected = known.map_or([0; 32], |sandbox| sandbox.token);
    let same = bool::from(shown.as_ref().ct_eq(&expected));
    let sandbox = known.filter(|_| same).ok_or("the sandbox or its token is not known")?;
    if sandbox.told.transport != Transport::Token {
        return Err("the sandbox proves who it is by a socket of its own");
    }
    let sources = &sandbox.told.source_cidrs;
    let client = client.to_canonical();
    if !sources.is_empty() && !sources.iter().any(|source| source.contains(&client)) {
        return Err("the token is not good from this address");
    }
    if sandbox.is_over() { Err(ENDED) } else { Ok(sandbox) }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
