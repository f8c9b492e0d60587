//! The certificate authority of the origin servers, made anew by each test process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// An issuer of server certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// When a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From an hour ago until a day from now.
    Current,
    /// It ended an hour ago.
    Expired,
    /// It begins an hour from now.
    NotYet,
}

impl Validity {
    fn range(self) -> (OffsetDateTime, OffsetDateTime) {
        let now = OffsetDateTime::now_utc();
        let (from, until) = match self {
            Self::Current => (-1, 24),
            Self::Expired => (-48, -1),
            Self::NotYet => (1, 24),
        };
        (now + Duration::hours(from), now + Duration::hours(until))
    }
}

impl Authority {
    /// The one that every proxy under test is told to trust.
    pub fn trusted() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(|| Self::named("keyferry test origins"))
    }

    /// An authority that nobody has been told to trust, unless a test does so.
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names to refuse");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = Validity::Current.range();
        let key = KeyPair::generate().expect("a P-256 key");
        let pem = params.self_signed(&key).expect("a self-signed authority").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The authority in two PEM files, such as the proxy's own.
    ///
    /// # Panics
    /// When they do not hold one.
    pub fn from_files(certificate: &Path, key: &Path) -> Self {
        let pem = std::fs::read_to_string(certificate).expect("read the authority's certificate");
        let key = std::fs::read_to_string(key).expect("read the authority's key");
        let key = KeyPair::from_pem(&key).expect("a private key in PEM");
        Self { issuer: Issuer::from_ca_cert_pem(&pem, key).expect("a certificate in PEM"), pem }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for a DNS name or an address.
    pub fn issue(&self, name: &str, validity: Validity) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name or an address");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity.range();
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        Leaf {
            chain: vec![certificate.der().clone()],
            key_der: key.serialize_der(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// A server certificate and its key.
pub struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
    certificate_pem: String,
    key_pem: String,
}

impl Leaf {
    /// What a TLS server of ours needs.
    pub fn server_config(self, alpn: &[&str]) -> Arc<rustls::ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der));
        let mut config = rustls::ServerConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain, key)
            .expect("a key that fits its certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Certificate and key as files, for a server in another process.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
        std::fs::write(&certificate, &self.certificate_pem).expect("write the server's certificate");
        std::fs::write(&key, &self.key_pem).expect("write the server's key");
        (certificate, key)
    }
}

/// The cryptography that both ends of our own test connections use.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
