//! Certificates of the bench: an authority in two PEM files, and server certificates under it.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// An issuer of server certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// Two PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error("{} cannot be used: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate itself.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The PEM around it.
    #[error("{} is not PEM: {source}", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
}

impl Authority {
    /// Makes one, in `NAME.crt` and `NAME.key` of `folder`.
    pub fn make(folder: &Path, name: &str) -> Result<(Self, Pair), AuthorityError> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, format!("keyferry bench {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = today();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let pair = write(folder, name, &certificate.pem(), &key.serialize_pem())?;
        Ok((Self { issuer: Issuer::new(params, key), certificate: certificate.der().clone() }, pair))
    }

    /// Loads one.
    pub fn load(pair: &Pair) -> Result<Self, AuthorityError> {
        use rustls_pki_types::pem::PemObject;

        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|source| AuthorityError::File { path: path.clone(), source })
        };
        let pem = read(&pair.certificate)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|source| AuthorityError::Pem { path: pair.certificate.clone(), source })?;
        let key = KeyPair::from_pem(&read(&pair.key)?)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)?, certificate })
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a server certificate for a name, over somebody's key.
    pub fn sign(
        &self,
        name: &str,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        Ok(server(name)?.signed_by(key, &self.issuer)?.der().clone())
    }

    /// Makes a server certificate and its key, in `NAME.crt` and `NAME.key` of `folder`.
    pub fn issue(&self, folder: &Path, name: &str, host: &str) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = server(host)?.signed_by(&key, &self.issuer)?;
        write(folder, name, &certificate.pem(), &key.serialize_pem())
    }
}

fn server(host: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, host);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = today();
    Ok(params)
}

fn today() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::hours(1), now + Duration::hours(24))
}

fn write(folder: &Path, name: &str, certificate: &str, key: &str) -> Result<Pair, AuthorityError> {
    let pair =
        Pair { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
    for (path, text) in [(&pair.certificate, certificate), (&pair.key, key)] {
        std::fs::write(path, text).map_err(|source| AuthorityError::File { path: path.clone(), source })?;
    }
    Ok(pair)
}
