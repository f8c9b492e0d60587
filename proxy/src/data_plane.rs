//! What all connections share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use keyferry_config::policy::Policy;
use keyferry_source::{SecretHandle, Sources};

use crate::audit::{Audit, RequestIds};
use crate::drain::Drain;
use crate::identity::Identity;
use crate::tls::LeafCache;
use crate::upstream::Pool;

/// The running proxy, seen from a connection.
#[derive(Debug)]
pub(crate) struct DataPlane {
    pub(crate) generation: ArcSwap<Generation>,
    pub(crate) identity: Identity,
    pub(crate) leafs: LeafCache,
    pub(crate) pool: Arc<Pool>,
    pub(crate) audit: Audit,
    pub(crate) request_ids: RequestIds,
    pub(crate) drain: Drain,
    pub(crate) limits: Limits,
}

/// One policy and the values that it may use. A request keeps the one that it began with (invariant 11).
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) policy: Arc<Policy>,
    /// By the policy's numbers.
    pub(crate) secrets: Vec<Arc<SecretHandle>>,
}

/// How much and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of a body that must be held whole; `None` is no limit.
    pub(crate) held_body: Option<u64>,
    /// From the end of the request's head to the head of the response.
    pub(crate) response_head: Duration,
}

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    H1,
    H2,
}

impl Generation {
    pub(crate) fn new(policy: Policy, sources: &Sources) -> Self {
        let secrets = policy.secrets().iter().map(|secret| sources.get(secret.source())).collect();
        Self { policy: Arc::new(policy), secrets }
    }
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }

    pub(crate) fn of(version: http::Version) -> Self {
        if version == http::Version::HTTP_2 { Self::H2 } else { Self::H1 }
    }
}
