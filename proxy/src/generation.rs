//! From a document to everything that requests need, reusing what a new document leaves as it was.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use keyferry_config::document::{self, Document, Source, SourceKind, Unsupported};
use keyferry_config::policy::Policy;
use keyferry_dial::{Dialer, Guard, OwnListeners, Resolver, ResolverOptions};
use keyferry_source::{SecretHandle, SecretValue, Sources};

use crate::audit::{Audit, AuditTarget, Writer};
use crate::data_plane::{Base, Generation, Limits};
use crate::identity::Credentials;
use crate::start::StartError;
use crate::telemetry::Telemetry;
use crate::tls::{Authority, LeafCache, LeafSettings, UpstreamTls};
use crate::upstream::{Connector, LoopMark, Pool};

/// Makes generations, one after the other.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) sources: Arc<Sources>,
    /// The addresses that nothing may dial.
    pub(crate) own: OwnListeners,
    telemetry: Arc<Telemetry>,
    mark: LoopMark,
    before: Option<Built>,
    /// Of audit logs that may still have records to write.
    pub(crate) writers: Vec<Writer>,
}

/// The parts that outlive a reload which does not concern them, each with what it was made of.
#[derive(Debug)]
struct Built {
    number: u64,
    leafs: Made<LeafOrigin, LeafCache>,
    pool: Made<PoolOrigin, Pool>,
    audit: Made<AuditTarget, Audit>,
    /// What the document asks of it beside where it is.
    audit_settings: document::Audit,
}

/// Something, and what it was made of.
#[derive(Debug)]
struct Made<Origin, T> {
    of: Origin,
    it: Arc<T>,
}

impl<Origin: PartialEq, T> Made<Origin, T> {
    /// The thing as it was, if it would be made of the same again.
    fn again(before: Option<&Self>, of: &Origin) -> Option<Arc<T>> {
        before.filter(|before| before.of == *of).map(|before| Arc::clone(&before.it))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct LeafOrigin {
    fingerprint: String,
    capacity: u64,
    lifetime: Duration,
}

#[derive(Debug, PartialEq, Eq)]
struct PoolOrigin {
    authority: String,
    /// The content of `tls.upstream_ca`.
    upstream_ca: Option<Vec<u8>>,
    allow: Vec<IpNet>,
    deny: Option<Vec<IpNet>>,
    resolver: Option<std::net::SocketAddr>,
}

impl Builder {
    pub(crate) fn new(sources: Sources, own: OwnListeners, telemetry: Arc<Telemetry>) -> Self {
        let (sources, mark) = (Arc::new(sources), LoopMark::new());
        Self { sources, own, telemetry, mark, before: None, writers: Vec::new() }
    }

    /// Builds what `document` says. Until [`Builder::commit`], nothing of it is in force.
    pub(crate) async fn build(&mut self, document: &Document) -> Result<(Fresh, Candidate), StartError> {
        // Whoever reads documents has said so already, with their places; a control is never left out in silence.
        if let Some(Unsupported { path, what, hint }) = document::unsupported(document).into_iter().next() {
            return Err(StartError::Unsupported { path, what, hint });
        }
        let number = self.before.as_ref().map_or(1, |before| before.number + 1);
        let policy = Policy::compile(document, number)?;
        let (Some(certificate), Some(key), false) =
            (&document.tls.ca_cert, &document.tls.ca_key, document.proxy.tunnel_listen.is_empty())
        else {
            return Err(StartError::NoListener);
        };
        let authority = load_authority(certificate, key)?;
        let credentials = self.credentials(document).await?;
        let pool = self.pool(document, &authority)?;
        let leafs = self.leafs(document, authority)?;
        let (audit, writer) = self.audit(document)?;
        let secrets = policy.secrets().iter().map(|secret| self.sources.get(secret.source())).collect();
        let base = Base {
            leafs: Arc::clone(&leafs.it),
            pool: Arc::clone(&pool.it),
            audit: Arc::clone(&audit.it),
            limits: Limits {
                held_body: document.proxy.max_request_body_bytes,
                response_head: document.proxy.upstream_response_header_timeout,
            },
            propagate_trace: document.proxy.propagate_trace,
        };
        let audit_settings = document.audit.clone();
        let fresh = Fresh { number, policy: Arc::new(policy), secrets, credentials, base };
        Ok((fresh, Candidate { built: Built { number, leafs, pool, audit, audit_settings }, writer }))
    }

    /// The candidate is in force now: the next build starts from it.
    pub(crate) fn commit(&mut self, candidate: Candidate) {
        candidate.built.audit.it.apply(&candidate.built.audit_settings);
        self.before = Some(candidate.built);
        self.writers.retain(|writer| !writer.is_finished());
        self.writers.extend(candidate.writer);
    }

    /// The value of a secret that a control of the proxy needs; read now, so that no control runs without.
    pub(crate) async fn control_secret(
        &self,
        key: &'static str,
        source: &Source,
    ) -> Result<Arc<SecretValue>, StartError> {
        let value = self.sources.get(source).value().await;
        value.map_err(|error| StartError::Control { key, error })
    }

    async fn credentials(&self, document: &Document) -> Result<Option<Credentials>, StartError> {
        let Some(auth) = &document.proxy.auth else { return Ok(None) };
        let password = self.control_secret("proxy.auth.password", &auth.password).await?;
        Ok(Some(Credentials { user: auth.user.clone(), password }))
    }

    fn leafs(
        &self,
        document: &Document,
        authority: Authority,
    ) -> Result<Made<LeafOrigin, LeafCache>, StartError> {
        let settings = LeafSettings {
            capacity: document.tls.cert_cache_size as u64,
            lifetime: Duration::from_secs(u64::from(document.tls.leaf_cert_expiry_hours) * 3600),
        };
        let fingerprint = authority.fingerprint_sha256();
        let origin = LeafOrigin { fingerprint, capacity: settings.capacity, lifetime: settings.lifetime };
        let it = match Made::again(self.before.as_ref().map(|before| &before.leafs), &origin) {
            Some(leafs) => leafs,
            None => {
                let counters = self.telemetry.metrics.leafs.clone();
                Arc::new(LeafCache::new(authority, settings)?.counted(counters))
            }
        };
        Ok(Made { of: origin, it })
    }

    /// A pool is a new one where it could hold a connection that would now be dialled or verified in another way.
    fn pool(&self, document: &Document, authority: &Authority) -> Result<Made<PoolOrigin, Pool>, StartError> {
        let upstream_ca = document.tls.upstream_ca.as_deref();
        let origin = PoolOrigin {
            authority: authority.fingerprint_sha256(),
            upstream_ca: upstream_ca.and_then(|path| fs::read(path).ok()),
            allow: document.proxy.upstream_allow_cidrs.clone(),
            deny: document.proxy.upstream_deny_cidrs.clone(),
            resolver: document.dns.upstream_resolver,
        };
        if let Some(it) = Made::again(self.before.as_ref().map(|before| &before.pool), &origin) {
            return Ok(Made { of: origin, it });
        }
        let tls = UpstreamTls::new(upstream_ca, authority.certificate_der())?;
        let guard = Guard::tenant(origin.allow.clone(), origin.deny.clone());
        let resolver =
            Resolver::new(ResolverOptions { upstream: origin.resolver, ..ResolverOptions::default() });
        let dialer = Dialer::new(guard, resolver, self.own.clone());
        let (telemetry, mark) = (Arc::clone(&self.telemetry), self.mark.clone());
        let pool = Arc::new(Pool::new(Connector { dialer, tls, telemetry, mark }));
        tokio::spawn(Pool::sweep(Arc::downgrade(&pool)));
        Ok(Made { of: origin, it: pool })
    }

    /// The audit log, and its writer if it is a new one.
    fn audit(&self, document: &Document) -> Result<(Made<AuditTarget, Audit>, Option<Writer>), StartError> {
        let target = AuditTarget::from(&document.audit);
        if let Some(it) = Made::again(self.before.as_ref().map(|before| &before.audit), &target) {
            return Ok((Made { of: target, it }, None));
        }
        if let Some(audit) = self.writers.iter().find_map(|writer| writer.again(&target)) {
            return Ok((Made { of: target, it: Arc::new(audit) }, None));
        }
        let (audit, writer) = Writer::start(&target)?;
        Ok((Made { of: target, it: Arc::new(audit) }, Some(writer)))
    }
}

/// What a document says, ready to be put in force.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Counts documents.
    pub(crate) number: u64,
    pub(crate) policy: Arc<Policy>,
    pub(crate) secrets: Vec<Arc<SecretHandle>>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) base: Base,
}

impl Fresh {
    pub(crate) fn generation(&self) -> Generation {
        Generation::new(Arc::clone(&self.policy), self.secrets.clone(), &self.base)
    }
}

/// A generation that has been built and is not in force yet.
#[derive(Debug)]
pub(crate) struct Candidate {
    built: Built,
    writer: Option<Writer>,
}

/// The source of a variable that only the document's keys name.
pub(crate) fn variable(name: &str) -> Source {
    Source { kind: SourceKind::Env { var: name.to_owned() }, json_key: None, ttl: None, failure_ttl: None }
}

fn load_authority(certificate: &Path, key: &Path) -> Result<Authority, StartError> {
    let authority = Authority::load(certificate, key)?;
    for warning in authority.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(authority)
}
