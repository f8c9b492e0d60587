//! Our certificate authority: the pair of files that sandboxes trust and that every leaf is signed with.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::certificate::{AuthorityCertificate, Moment, Validity, Warning};

/// A certificate authority that may sign leafs: its certificate and its key, which match.
pub struct Authority {
    certificate: AuthorityCertificate,
    issuer: Issuer<'static, AuthorityKey>,
    warnings: Vec<Warning>,
}

/// Why a pair of files is not an authority that can sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read.
    #[error("{}: the authority's {what} cannot be read: {source}{}", path.display(), unreadable_hint(source))]
    Unreadable {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate in the file.
    #[error("{}: there is no certificate in this file\nhint: it must hold a PEM block that begins with -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that cannot be read.
    #[error("{}: the authority's certificate cannot be read: {reason}", path.display())]
    MalformedCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No private key in the file.
    #[error("{}: there is no private key in this file\nhint: it must hold an unencrypted PEM key (PKCS#8, PKCS#1 or SEC1)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key needs a pass phrase.
    #[error("{}: the key is encrypted, and nobody is there to type its pass phrase\nhint: openssl pkey -in {} -out ca.key", path.display(), path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// A private key that cannot be read, or of a kind that we cannot sign with.
    #[error("{}: the key cannot be read\nhint: RSA (2048 bits or more), P-256, P-384, P-521 and Ed25519 keys work, as PKCS#8, PKCS#1 or SEC1", path.display())]
    MalformedKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is not a CA's.
    #[error("{}: this certificate is not a certificate authority's (basicConstraints does not say CA)\nhint: make a pair with `keyferry ca init`", path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The certificate's key usage does not allow signing certificates.
    #[error("{}: this certificate may not sign others (keyUsage lacks keyCertSign)\nhint: make a pair with `keyferry ca init`", path.display())]
    MayNotSign {
        /// The file.
        path: PathBuf,
    },
    /// The certificate has ended.
    #[error("{}: the certificate authority expired at {}\nhint: make a new pair with `keyferry ca init` and give the sandboxes the new certificate", path.display(), Moment(*not_after))]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it ended.
        not_after: OffsetDateTime,
    },
    /// The certificate has not begun.
    #[error("{}: the certificate authority is not valid before {}\nhint: check this machine's clock", path.display(), Moment(*not_before))]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it begins.
        not_before: OffsetDateTime,
    },
    /// Certificate and key are not a pair.
    #[error("{}: this key does not belong to the certificate {}\nhint: tls.ca_cert and tls.ca_key must be the two files of one `keyferry ca init`", key.display(), certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// Leafs could not name this issuer byte by byte.
    #[error("{}: the subject of the certificate authority repeats an attribute or joins several, which leafs cannot repeat exactly\nhint: use an authority whose subject names each attribute once, as `keyferry ca init` does", path.display())]
    UnsupportedSubject {
        /// The file.
        path: PathBuf,
    },
}

impl Authority {
    /// Reads a pair of PEM files and proves that leafs signed with it will hold. Reads files: call it off the event loop.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let certificate = AuthorityCertificate::load(certificate)?;
        certificate.check_at(now)?;

        let mut warnings = Vec::new();
        let (pem, mode) = read_key(key).map_err(|source| AuthorityError::Unreadable {
            what: "key",
            path: key.to_owned(),
            source,
        })?;
        if mode & 0o077 != 0 {
            warnings.push(Warning::KeyReadableByOthers { path: key.to_owned(), mode });
        }
        warnings.extend(certificate.expires_soon(now));

        let pair = parse_key(key, &pem)?;
        if certificate.parsed()?.public_key().subject_public_key.data != pair.der_bytes() {
            return Err(AuthorityError::Mismatch {
                certificate: certificate.path().to_owned(),
                key: key.to_owned(),
            });
        }
        let unsupported = || AuthorityError::UnsupportedSubject { path: certificate.path().to_owned() };
        let issuer =
            Issuer::from_ca_cert_der(certificate.der(), AuthorityKey(pair)).map_err(|_| unsupported())?;
        let authority = Self { issuer, warnings, certificate: certificate.clone() };
        if !authority.names_itself_exactly()? {
            return Err(unsupported());
        }
        Ok(authority)
    }

    /// The certificate.
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// The SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint_sha256(&self) -> String {
        self.certificate.fingerprint_sha256()
    }

    /// From when until when the authority holds; no leaf goes beyond.
    pub fn validity(&self) -> Validity {
        self.certificate.validity()
    }

    /// What deserves a look although it works.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// RSA signatures take a millisecond and more; everything else is done within a few dozen microseconds.
    pub(super) fn signs_slowly(&self) -> bool {
        self.issuer.key().algorithm() == &rcgen::PKCS_RSA_SHA256
    }

    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        subject: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        Ok(params.signed_by(subject, &self.issuer)?.into())
    }

    /// Clients find the issuer by comparing names byte by byte (RFC 5280 section 6.1.3), and rcgen keeps one value per
    /// attribute: with `DC=corp, DC=example` every leaf would be an orphan. One probe tells.
    fn names_itself_exactly(&self) -> Result<bool, AuthorityError> {
        let own = self.certificate.parsed()?;
        let Ok(probe) = self.sign(&CertificateParams::default(), self.issuer.key()) else { return Ok(false) };
        Ok(x509_parser::parse_x509_certificate(&probe)
            .is_ok_and(|(_, probe)| probe.issuer().as_raw() == own.subject().as_raw()))
    }
}

/// Without the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The signing key; its serialised form is wiped when dropped (T84).
struct AuthorityKey(Zeroizing<KeyPair>);

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&*self.0)
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// The content and the permission bits, of one open file: a second look by path might see another.
fn read_key(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    // Reserved at once: a buffer that grows leaves copies of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    file.read_to_end(&mut content)?;
    Ok((content, metadata.permissions().mode() & 0o777))
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<Zeroizing<KeyPair>, AuthorityError> {
    let contains = |needle: &[u8]| pem.windows(needle.len()).any(|window| window == needle);
    if contains(b"BEGIN ENCRYPTED PRIVATE KEY") || contains(b"Proc-Type: 4,ENCRYPTED") {
        return Err(AuthorityError::EncryptedKey { path: path.to_owned() });
    }
    let malformed = || AuthorityError::MalformedKey { path: path.to_owned() };
    let der = match PrivateKeyDer::pem_slice_iter(pem).next() {
        Some(Ok(der)) => Zeroizing::new(der),
        Some(Err(_)) => return Err(malformed()),
        None => return Err(AuthorityError::NoKey { path: path.to_owned() }),
    };
    // By content and not by the block's label, which tools get wrong: PKCS#8, else PKCS#1, else SEC1.
    KeyPair::try_from(der.secret_der()).map(Zeroizing::new).map_err(|_| malformed())
}

fn unreadable_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "\nhint: make a pair with `keyferry ca init`",
        io::ErrorKind::PermissionDenied => "\nhint: the user that runs keyferry must be able to read it",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
