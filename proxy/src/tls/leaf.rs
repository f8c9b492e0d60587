//! Leaf certificates, minted on demand for the hosts that sandboxes call, and kept.

use std::sync::Arc;
use std::time::Duration;

use keyferry_config::policy::Host;
use moka::future::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SubjectPublicKeyInfo,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::metrics::LeafCounters;

use super::generate::{BACKDATE, random_serial};
use super::{Authority, H2_AND_HTTP1, Moment, alpn, crypto_provider};

/// The leafs of one authority. Clones share them.
#[derive(Clone)]
pub struct LeafCache {
    leafs: Cache<Host, Leaf>,
    minter: Arc<Minter>,
    counters: Option<LeafCounters>,
}

/// How many leafs are kept, and for how long each holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafSettings {
    /// `tls.cert_cache_size`: a bound against floods of names (T77).
    pub capacity: u64,
    /// `tls.leaf_cert_expiry_hours`.
    pub lifetime: Duration,
}

/// Why there is no leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// A leaf never outlives its authority, so there is nothing to mint.
    #[error(
        "the certificate authority expired at {}, so no certificate for {host} can be made\nhint: make a new pair with `keyferry ca init` and give the sandboxes the new certificate",
        Moment(*not_after)
    )]
    AuthorityExpired {
        /// The host that asked.
        host: Host,
        /// When the authority ended.
        not_after: OffsetDateTime,
    },
    /// Signing failed.
    #[error("no certificate for {host} could be made: {reason}")]
    Signing {
        /// The host that asked.
        host: Host,
        /// What the library said.
        reason: String,
    },
    /// The process has no key or no ticket key.
    #[error("the TLS side towards sandboxes cannot be set up: {0}")]
    Setup(String),
}

impl LeafCache {
    /// An empty cache over `authority`.
    pub fn new(authority: Authority, settings: LeafSettings) -> Result<Self, LeafError> {
        Self::with_clock(authority, settings, OffsetDateTime::now_utc)
    }

    fn with_clock(
        authority: Authority,
        settings: LeafSettings,
        clock: impl Fn() -> OffsetDateTime + Send + Sync + 'static,
    ) -> Result<Self, LeafError> {
        let minter = Minter::new(authority, settings.lifetime, Box::new(clock))?;
        let leafs =
            Cache::builder().max_capacity(settings.capacity).time_to_live(settings.lifetime / 2).build();
        Ok(Self { leafs, minter: Arc::new(minter), counters: None })
    }

    /// The same, counting what is made and what was there.
    pub(crate) fn counted(self, counters: LeafCounters) -> Self {
        Self { counters: Some(counters), ..self }
    }

    /// The TLS configuration that shows `host`'s leaf. The first caller mints, all others wait for it. Call it only for hosts
    /// that policy lets through (T77).
    pub async fn server_config(&self, host: &Host) -> Result<Arc<ServerConfig>, LeafError> {
        let leaf = self.get_or_mint(host).await?;
        if leaf.is_fresh((self.minter.clock)()) {
            return Ok(leaf.config);
        }
        // The cache counts monotonic time, certificates the wall clock's: after a jump only this notices (T88).
        self.leafs.invalidate(host).await;
        Ok(self.get_or_mint(host).await?.config)
    }

    async fn get_or_mint(&self, host: &Host) -> Result<Leaf, LeafError> {
        let mut is_new = false;
        let leaf = self
            .leafs
            .try_get_with_by_ref(host, async {
                is_new = true;
                let minter = Arc::clone(&self.minter);
                if !minter.authority.signs_slowly() {
                    return minter.mint(host);
                }
                let owned = host.clone();
                tokio::task::spawn_blocking(move || minter.mint(&owned)).await.unwrap_or_else(|error| {
                    Err(LeafError::Signing { host: host.clone(), reason: error.to_string() })
                })
            })
            .await
            .map_err(Arc::unwrap_or_clone)?;
        if let Some(LeafCounters { mints, hits }) = &self.counters {
            if is_new { mints } else { hits }.inc();
        }
        Ok(leaf)
    }
}

impl std::fmt::Debug for LeafCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeafCache").field("leafs", &self.leafs.entry_count()).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    not_before: OffsetDateTime,
    renew_at: OffsetDateTime,
}

impl Leaf {
    fn is_fresh(&self, now: OffsetDateTime) -> bool {
        (self.not_before..self.renew_at).contains(&now)
    }
}

/// Everything that leafs share, so that one costs a signature and a few hundred bytes.
struct Minter {
    authority: Authority,
    lifetime: Duration,
    clock: Box<dyn Fn() -> OffsetDateTime + Send + Sync>,
    provider: Arc<CryptoProvider>,
    /// One key for all leafs of the process: it never leaves it, and a key per host would cost more than the signature.
    key: Arc<dyn rustls::sign::SigningKey>,
    public_key: SubjectPublicKeyInfo,
    /// One ticketer for all configurations: resumption without a session store in each.
    ticketer: Arc<dyn ProducesTickets>,
    #[cfg(test)]
    minted: std::sync::atomic::AtomicUsize,
}

impl Minter {
    fn new(
        authority: Authority,
        lifetime: Duration,
        clock: Box<dyn Fn() -> OffsetDateTime + Send + Sync>,
    ) -> Result<Self, LeafError> {
        use rcgen::PublicKeyData;

        let setup = |error: &dyn std::fmt::Display| LeafError::Setup(error.to_string());
        let pair = Zeroizing::new(KeyPair::generate().map_err(|error| setup(&error))?);
        let public_key =
            SubjectPublicKeyInfo::from_der(&pair.subject_public_key_info()).map_err(|error| setup(&error))?;
        let der = Zeroizing::new(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der())));
        Ok(Self {
            key: rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(|error| setup(&error))?,
            ticketer: rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| setup(&error))?,
            provider: crypto_provider(),
            authority,
            lifetime,
            clock,
            public_key,
            #[cfg(test)]
            minted: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    fn mint(&self, host: &Host) -> Result<Leaf, LeafError> {
        #[cfg(test)]
        self.minted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);

        let now = (self.clock)();
        let authority = self.authority.validity();
        if now >= authority.not_after {
            return Err(LeafError::AuthorityExpired { host: host.clone(), not_after: authority.not_after });
        }
        let signing = |error: &dyn std::fmt::Display| LeafError::Signing {
            host: host.clone(),
            reason: error.to_string(),
        };
        let not_before = (now - BACKDATE).max(authority.not_before);
        let not_after = now
            .saturating_add(self.lifetime.try_into().unwrap_or(time::Duration::MAX))
            .min(authority.not_after);
        let params = params(host, not_before, not_after).map_err(|error| signing(&error))?;
        let leaf = self.authority.sign(&params, &self.public_key).map_err(|error| signing(&error))?;
        let config = self.config(leaf).map_err(|error| signing(&error))?;
        Ok(Leaf { config: Arc::new(config), not_before, renew_at: now + (not_after - now) / 2 })
    }

    fn config(&self, leaf: CertificateDer<'static>) -> Result<ServerConfig, rustls::Error> {
        // The authority goes along: some clients look for the issuer in the chain before they look in their store.
        let chain = vec![leaf, self.authority.certificate_der().clone()];
        let certified = CertifiedKey::new(chain, Arc::clone(&self.key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = alpn(&H2_AND_HTTP1);
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::clone(&self.ticketer);
        config.send_tls13_tickets = 1;
        // Early data can be replayed, and a replayed request would carry a real credential again (T40).
        config.max_early_data_size = 0;
        Ok(config)
    }
}

fn params(
    host: &Host,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(random_serial()?);
    params.not_before = not_before;
    params.not_after = not_after;
    params.distinguished_name = DistinguishedName::new();
    let (san, text) = match host {
        Host::Name(name) => (SanType::DnsName(name.as_str().try_into()?), name.as_str().to_owned()),
        Host::Ip(ip) => (SanType::IpAddress(*ip), ip.to_string()),
    };
    // A common name holds 64 characters (RFC 5280, ub-common-name). Clients read the SAN; the subject is for people, but an
    // empty one would make the SAN critical, which not every client knows how to read.
    if text.len() <= 64 {
        params.distinguished_name.push(DnType::CommonName, text);
    } else {
        params.distinguished_name.push(DnType::OrganizationName, "keyferry");
    }
    params.subject_alt_names = vec![san];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

#[cfg(test)]
mod tests;
