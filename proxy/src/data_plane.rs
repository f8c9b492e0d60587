//! What all connections share, and the part of it that a reload replaces.

use std::sync::Arc;
use std::time::Duration;

use keyferry_config::policy::Policy;
use keyferry_source::{FetchCounts, SecretHandle};

use crate::audit::{Audit, RequestIds};
use crate::drain::Drain;
use crate::identity::Identity;
use crate::listener::Admission;
use crate::principal::Principal;
use crate::redact::Redactors;
use crate::sync::Standing;
use crate::telemetry::Telemetry;
use crate::tls::LeafCache;
use crate::upstream::Pool;

/// The running proxy, seen from a connection.
#[derive(Debug)]
pub(crate) struct DataPlane {
    pub(crate) identity: Arc<Identity>,
    /// Whoever speaks before it has shown who it is: the one principal of a file, and nobody in particular elsewhere.
    pub(crate) nobody: Arc<Principal>,
    /// How a managed proxy stands with its control service.
    pub(crate) control: Option<Arc<Standing>>,
    pub(crate) request_ids: RequestIds,
    pub(crate) admission: Admission,
    pub(crate) drain: Drain,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) fetches: Arc<FetchCounts>,
}

/// Everything that counts for one principal. A request keeps the generation that it began with (invariant 11).
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) policy: Arc<Policy>,
    /// By the policy's numbers.
    pub(crate) secrets: Vec<Arc<SecretHandle>>,
    pub(crate) redactors: Redactors,
    pub(crate) leafs: Arc<LeafCache>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) limits: Limits,
    /// `proxy.propagate_trace`.
    pub(crate) propagate_trace: bool,
}

/// The part of it that is everybody's: what the file says beside the policy.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) leafs: Arc<LeafCache>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) limits: Limits,
    pub(crate) propagate_trace: bool,
}

impl Generation {
    pub(crate) fn new(policy: Arc<Policy>, secrets: Vec<Arc<SecretHandle>>, base: &Base) -> Self {
        let Base { leafs, pool, audit, limits, propagate_trace } = base.clone();
        let redactors = Redactors::default();
        Self { policy, secrets, redactors, leafs, pool, audit, limits, propagate_trace }
    }
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
