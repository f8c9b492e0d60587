//! Once more after a 401: a credential that was rotated while a request was on its way is no reason for the client to see it (T58).
//!
//! Only where a secret in the request may have another value than the one that was sent, and only where the body is at hand: a body that
//! streamed is gone.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request};
use http_body::Body as _;
use http_body_util::Full;
use keyferry_config::policy::{Plan, Refusal};
use smallvec::SmallVec;

use crate::audit::Recorder;
use crate::body::RequestBody;
use crate::session::Bound;
use crate::transform::secrets;

/// How many copies wait to be used again: as many as requests usually run at once.
const MAX_SPARE: usize = 64;

/// A request's head as it was before values went into it.
pub(crate) struct Head<'a> {
    plan: &'a Plan,
    bound: &'a Bound,
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

/// A request that can be sent again.
pub(crate) struct Second<'a> {
    head: Head<'a>,
    body: Full<Bytes>,
    /// Which values were sent, of the secrets whose source may give another.
    sent: SmallVec<[(u32, u64); 2]>,
}

/// Header maps that were emptied and keep their room, so that a copy allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct SpareHeads(Mutex<Vec<HeaderMap>>);

impl<'a> Head<'a> {
    /// Keeps a copy where the plan has a secret whose value may change.
    pub(crate) fn keep(
        plan: &'a Plan,
        bound: &'a Bound,
        parts: &Parts,
        target: &PathAndQuery,
    ) -> Option<Self> {
        changeable(plan, bound).next()?;
        let mut headers = bound.spare_heads.take();
        for (name, value) in &parts.headers {
            headers.append(name.clone(), value.clone());
        }
        Some(Self { plan, bound, method: parts.method.clone(), target: target.clone(), headers })
    }

    /// The request, if its body is at hand. Its values have just been put in.
    pub(crate) fn with(self, body: &RequestBody) -> Option<Second<'a>> {
        let body = body.again()?;
        let handle = |secret: u32| &self.bound.generation.secrets[secret as usize];
        let sent = changeable(self.plan, self.bound).map(|secret| (secret, handle(secret).latest()));
        let sent = sent.filter(|(_, version)| *version != 0).collect();
        Some(Second { head: self, body, sent })
    }
}

impl Second<'_> {
    /// The request with fresh values; none where all sources give what was sent, or where the old value stands in the body.
    pub(crate) async fn renewed(
        mut self,
        recorder: &mut Recorder,
    ) -> Result<Option<Request<RequestBody>>, Refusal> {
        let Head { plan, bound, .. } = self.head;
        let mut outdated = SmallVec::<[u32; 2]>::new();
        for &(secret, version) in &self.sent {
            if bound.generation.secrets[secret as usize].is_outdated(version).await {
                outdated.push(secret);
            }
        }
        let in_body = |secret: &u32| recorder.request_flow().is_some_and(|flow| flow.holds(*secret));
        if outdated.is_empty() || outdated.iter().any(in_body) {
            return Ok(None);
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.head.method.clone();
        parts.headers = std::mem::take(&mut self.head.headers);
        if let Some(length) = self.body.size_hint().exact().filter(|length| *length > 0) {
            parts.headers.remove(TRANSFER_ENCODING);
            parts.headers.insert(CONTENT_LENGTH, length.into());
        }
        let parts = secrets::apply_again(plan, bound, parts, self.head.target.clone(), recorder).await?;
        recorder.entry().retried = true;
        Ok(Some(Request::from_parts(parts, RequestBody::Whole(self.body.clone()))))
    }
}

impl Drop for Head<'_> {
    fn drop(&mut self) {
        self.bound.spare_heads.give_back(std::mem::take(&mut self.headers));
    }
}

impl SpareHeads {
    fn take(&self) -> HeaderMap {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, mut headers: HeaderMap) {
        headers.clear();
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MAX_SPARE && headers.capacity() > 0 {
            spare.push(headers);
        }
    }
}

/// The secrets of the plan whose sources may give another value.
fn changeable<'a>(plan: &'a Plan, bound: &'a Bound) -> impl Iterator<Item = u32> + 'a {
    plan.secrets().filter(|&secret| bound.generation.secrets[secret as usize].may_change())
}
