//! A new certificate authority.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::Authority;

/// Wishes for a new authority.
#[derive(Clone, Debug)]
pub struct NewAuthority {
    /// The common name that people see in a trust store, 1 to 64 characters.
    pub name: String,
    /// For how many days it holds, at least one.
    pub days: u32,
}

/// The two files of a new authority.
pub struct GeneratedPem {
    /// The certificate, which everybody may see.
    pub certificate: String,
    /// The key in PKCS#8, wiped when dropped (T84).
    pub key: Zeroizing<String>,
}

/// Why no authority was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// RFC 5280 bounds a common name (`ub-common-name`).
    #[error("the name of a certificate authority has 1 to 64 characters, none of them a control character")]
    Name,
    /// Zero days, or more than a certificate can say.
    #[error("the lifetime of a certificate authority is 1 to 36500 days")]
    Days,
    /// The cryptography library failed.
    #[error("the certificate authority could not be made: {0}")]
    Crypto(String),
}

/// How far into the past certificates begin, for clients whose clock is behind (T88).
pub(super) const BACKDATE: Duration = Duration::HOUR;

impl Authority {
    /// Makes a P-256 authority that may sign leafs and nothing below them.
    pub fn generate(wishes: &NewAuthority) -> Result<GeneratedPem, GenerateError> {
        if wishes.name.is_empty()
            || wishes.name.chars().count() > 64
            || wishes.name.chars().any(char::is_control)
        {
            return Err(GenerateError::Name);
        }
        if !(1..=36_500).contains(&wishes.days) {
            return Err(GenerateError::Days);
        }
        let crypto = |error: rcgen::Error| GenerateError::Crypto(error.to_string());
        let now = OffsetDateTime::now_utc();
        let key = Zeroizing::new(KeyPair::generate().map_err(crypto)?);

        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, wishes.name.as_str());
        params.serial_number = Some(random_serial().map_err(crypto)?);
        params.not_before = now - BACKDATE;
        params.not_after = now + Duration::days(i64::from(wishes.days));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&*key).map_err(crypto)?;
        Ok(GeneratedPem { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) })
    }
}

/// 127 random bits: issuer and serial together name a certificate, and clients that cache by them (NSS) refuse two that share
/// one (RFC 5280 section 4.1.2.2).
pub(super) fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, and never shorter than 16 bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}
