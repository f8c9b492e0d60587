//! The certificate of our authority: what it says about itself, and whether it may sign.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::AuthorityError;

/// A certificate authority's certificate, without its key.
#[derive(Clone, Debug)]
pub struct AuthorityCertificate {
    path: PathBuf,
    der: CertificateDer<'static>,
    subject: String,
    validity: Validity,
}

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last moment.
    pub not_after: OffsetDateTime,
}

/// A moment as people read it, for example `2026-11-22 12:30:00 UTC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub OffsetDateTime);

/// Something about an authority that works today and deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Other users of this machine can read the key (T84).
    KeyReadableByOthers {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate ends within thirty days.
    ExpiresSoon {
        /// The certificate file.
        path: PathBuf,
        /// When it ends.
        not_after: OffsetDateTime,
    },
}

impl AuthorityCertificate {
    /// Reads the first certificate of a PEM file. An expired one loads, so that it can be shown.
    pub fn load(path: &Path) -> Result<Self, AuthorityError> {
        let pem = std::fs::read(path).map_err(|source| AuthorityError::Unreadable {
            what: "certificate",
            path: path.to_owned(),
            source,
        })?;
        Self::from_pem(path, &pem)
    }

    fn from_pem(path: &Path, pem: &[u8]) -> Result<Self, AuthorityError> {
        let der = match CertificateDer::pem_slice_iter(pem).next() {
            Some(Ok(der)) => der,
            Some(Err(error)) => {
                return Err(AuthorityError::MalformedCertificate {
                    path: path.to_owned(),
                    reason: error.to_string(),
                });
            }
            None => return Err(AuthorityError::NoCertificate { path: path.to_owned() }),
        };
        let parsed = parse(path, &der)?;
        let validity = Validity {
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        };
        let subject = parsed.subject().to_string();
        Ok(Self { path: path.to_owned(), der, subject, validity })
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The subject's distinguished name, for people.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// From when until when it holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The SHA-256 of the DER as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint_sha256(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der);
        let mut text = String::with_capacity(95);
        for byte in digest.as_ref() {
            if !text.is_empty() {
                text.push(':');
            }
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
        text
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn parsed(&self) -> Result<X509Certificate<'_>, AuthorityError> {
        parse(&self.path, &self.der)
    }

    /// Whether clients will take leafs from it: a CA (RFC 5280 section 4.2.1.9) with keyCertSign (4.2.1.3), valid now.
    pub fn check(&self) -> Result<(), AuthorityError> {
        self.check_at(OffsetDateTime::now_utc())
    }

    pub(super) fn check_at(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let path = || self.path.clone();
        let malformed = |error: x509_parser::error::X509Error| AuthorityError::MalformedCertificate {
            path: self.path.clone(),
            reason: error.to_string(),
        };
        let parsed = self.parsed()?;
        if !parsed.basic_constraints().map_err(malformed)?.is_some_and(|extension| extension.value.ca) {
            return Err(AuthorityError::NotAuthority { path: path() });
        }
        // Absent means "any use" in RFC 5280, but clients differ; iron-proxy refuses it too.
        if !parsed.key_usage().map_err(malformed)?.is_some_and(|extension| extension.value.key_cert_sign()) {
            return Err(AuthorityError::MayNotSign { path: path() });
        }
        if now < self.validity.not_before {
            return Err(AuthorityError::NotYetValid { path: path(), not_before: self.validity.not_before });
        }
        if now > self.validity.not_after {
            return Err(AuthorityError::Expired { path: path(), not_after: self.validity.not_after });
        }
        Ok(())
    }

    pub(super) fn expires_soon(&self, now: OffsetDateTime) -> Option<Warning> {
        const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
        let not_after = self.validity.not_after;
        (not_after - now < SOON).then(|| Warning::ExpiresSoon { path: self.path.clone(), not_after })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = self.0.to_utc();
        write!(f, "{} {:02}:{:02}:{:02} UTC", utc.date(), utc.hour(), utc.minute(), utc.second())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyReadableByOthers { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "{path}: the key of the certificate authority is readable by others (mode {mode:04o})"
                )?;
                write!(f, "\nhint: chmod 600 {path}")
            }
            Self::ExpiresSoon { path, not_after } => {
                write!(f, "{}: the certificate authority expires at {}", path.display(), Moment(*not_after))?;
                write!(
                    f,
                    "\nhint: make a new pair with `keyferry ca init` and give the sandboxes the new certificate"
                )
            }
        }
    }
}

fn parse<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, AuthorityError> {
    let malformed = |reason: String| AuthorityError::MalformedCertificate { path: path.to_owned(), reason };
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(malformed("bytes follow the certificate".to_owned())),
        Err(error) => Err(malformed(error.to_string())),
    }
}
