//! Authorities and foreign tools for the tests of this module.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::{Authority, NewAuthority};

/// Two files in a folder of their own.
pub(super) struct Pair {
    pub(super) folder: TempDir,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Pair {
    pub(super) fn write(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair =
            Self { certificate: folder.path().join("ca.crt"), key: folder.path().join("ca.key"), folder };
        std::fs::write(&pair.certificate, certificate).unwrap();
        write_secret(&pair.key, key.as_ref());
        pair
    }

    /// As `keyferry ca init` makes it.
    pub(super) fn generated() -> Self {
        Self::named("test authority")
    }

    pub(super) fn named(name: &str) -> Self {
        let pem = Authority::generate(&NewAuthority { name: name.to_owned(), days: 30 }).unwrap();
        Self::write(pem.certificate, pem.key.as_bytes())
    }

    /// A proper authority, changed by `change` before it is signed.
    pub(super) fn changed(change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::keyed(&KeyPair::generate().unwrap(), change)
    }

    pub(super) fn keyed(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params();
        change(&mut params);
        Self::write(params.self_signed(key).unwrap().pem(), key.serialize_pem())
    }

    pub(super) fn load(&self) -> Result<Authority, super::AuthorityError> {
        Authority::load(&self.certificate, &self.key)
    }
}

pub(super) fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::DAY;
    params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
    params
}

/// Runs the real `openssl`.
pub(super) fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().expect("openssl is installed")
}

/// Runs the real `openssl`, which must succeed, for its output.
pub(super) fn openssl_ok(arguments: &[&str]) -> String {
    let output = openssl(arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write_secret(path: &Path, content: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(content).unwrap();
}
