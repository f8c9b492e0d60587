//! What we demand of upstreams: a certificate that the system or the operator trusts, and never one of our own making.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{H2_AND_HTTP1, HTTP1_ONLY, alpn, crypto_provider};

/// How upstreams are spoken to. Verification cannot be switched off (T55).
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    h2_or_http1: Arc<ClientConfig>,
    http1_only: Arc<ClientConfig>,
}

/// Why upstreams could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// The file could not be read.
    #[error("tls.upstream_ca: {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate in the file.
    #[error("tls.upstream_ca: there is no certificate in {}\nhint: it must hold PEM blocks that begin with -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in the file cannot be read.
    #[error("tls.upstream_ca: certificate {number} in {} cannot be read: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Our own authority would vouch for upstreams.
    #[error("tls.upstream_ca: {} contains keyferry's own certificate authority\nhint: name the file with the upstreams' authorities; the bundle of `keyferry ca bundle` is for sandboxes", path.display())]
    OwnAuthority {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to verify against.
    #[error(
        "no root certificates were found on this system{}\nhint: install the package ca-certificates, or name a PEM file in tls.upstream_ca",
        reasons(errors)
    )]
    NoRoots {
        /// What went wrong on the way.
        errors: Vec<String>,
    },
    /// The TLS library refused.
    #[error("the TLS side towards upstreams cannot be set up: {0}")]
    Setup(String),
}

impl UpstreamTls {
    /// Trusts the system's roots and the certificates in `extra_ca`, and never `own_ca`. Reads files: call it off the event
    /// loop.
    pub fn new(extra_ca: Option<&Path>, own_ca: &CertificateDer<'_>) -> Result<Self, UpstreamTlsError> {
        let system = rustls_native_certs::load_native_certs();
        let errors = system.errors.iter().map(ToString::to_string).collect();
        Self::with_system_roots(system.certs, errors, extra_ca, own_ca)
    }

    fn with_system_roots(
        system: Vec<CertificateDer<'static>>,
        errors: Vec<String>,
        extra_ca: Option<&Path>,
        own_ca: &CertificateDer<'_>,
    ) -> Result<Self, UpstreamTlsError> {
        let own = OwnKey::of(own_ca)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system);
        // SSL_CERT_FILE may name the bundle that we make for sandboxes; our authority in there is no upstream's (T55). By key
        // and not by certificate: a renewed certificate over the same key is as much ours.
        roots.roots.retain(|root| !own.is_key_of(root));
        if let Some(path) = extra_ca {
            for root in read_extra(path)?.roots {
                if own.is_key_of(&root) {
                    return Err(UpstreamTlsError::OwnAuthority { path: path.to_owned() });
                }
                roots.roots.push(root);
            }
        }
        if roots.is_empty() {
            return Err(UpstreamTlsError::NoRoots { errors });
        }

        let setup = |error: &dyn std::fmt::Display| UpstreamTlsError::Setup(error.to_string());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto_provider())
            .build()
            .map_err(|error| setup(&error))?;
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(Verifier { webpki, own });
        // One store: a session that one configuration opened with a server, the other may resume.
        let sessions = Arc::new(ClientSessionMemoryCache::new(1024));
        let config = |protocols: &[&[u8]]| -> Result<Arc<ClientConfig>, UpstreamTlsError> {
            let mut config = ClientConfig::builder_with_provider(crypto_provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| setup(&error))?
                .dangerous()
                // "Dangerous" is replacing the verifier; this one is webpki's and refuses more.
                .with_custom_certificate_verifier(Arc::clone(&verifier))
                .with_no_client_auth();
            config.alpn_protocols = alpn(protocols);
            config.resumption = Resumption::store(Arc::clone(&sessions) as _);
            Ok(Arc::new(config))
        };
        Ok(Self { h2_or_http1: config(&H2_AND_HTTP1)?, http1_only: config(&HTTP1_ONLY)? })
    }

    /// For requests: offers HTTP/2 and HTTP/1.1.
    pub fn h2_or_http1(&self) -> &Arc<ClientConfig> {
        &self.h2_or_http1
    }

    /// For upgrades, which HTTP/2 does not have: offers HTTP/1.1 alone.
    pub fn http1_only(&self) -> &Arc<ClientConfig> {
        &self.http1_only
    }
}

/// webpki's verifier, and our own authority refused wherever it stands: the roots do not hold it, but where it is itself signed
/// by a root that the system trusts, a server could present it as an intermediate.
#[derive(Debug)]
struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    own: OwnKey,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if intermediates.iter().any(|certificate| self.own.is_within(certificate)) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// The public key of our own authority, as it stands in a certificate.
#[derive(Debug)]
struct OwnKey(Vec<u8>);

impl OwnKey {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, UpstreamTlsError> {
        let mut store = RootCertStore::empty();
        store.add(certificate.clone()).map_err(|error| UpstreamTlsError::Setup(error.to_string()))?;
        Ok(Self(store.roots.iter().flat_map(|root| root.subject_public_key_info.to_vec()).collect()))
    }

    fn is_key_of(&self, root: &rustls_pki_types::TrustAnchor<'_>) -> bool {
        root.subject_public_key_info.as_ref() == self.0
    }

    /// A search and not a parse: a key is one run of bytes in every encoding, and no parser can disagree with a search.
    fn is_within(&self, certificate: &CertificateDer<'_>) -> bool {
        certificate.windows(self.0.len()).any(|window| window == self.0)
    }
}

fn read_extra(path: &Path) -> Result<RootCertStore, UpstreamTlsError> {
    let pem = std::fs::read(path)
        .map_err(|source| UpstreamTlsError::Unreadable { path: path.to_owned(), source })?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let malformed =
            |reason: String| UpstreamTlsError::Malformed { path: path.to_owned(), number: index + 1, reason };
        roots
            .add(certificate.map_err(|error| malformed(error.to_string()))?)
            .map_err(|error| malformed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(UpstreamTlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(roots)
}

fn reasons(errors: &[String]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

#[cfg(test)]
mod tests;
