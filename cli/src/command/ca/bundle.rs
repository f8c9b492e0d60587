//! `keyferry ca bundle`.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyferry_proxy::tls::AuthorityCertificate;
use pem::{EncodeConfig, LineEnding, Pem};

use crate::failure::Failure;
use crate::terminal;

/// Print the system's root certificates and ours as one PEM file
///
/// SSL_CERT_FILE, CURL_CA_BUNDLE and their like replace a client's roots instead of adding to them, so a sandbox needs both
/// in one file.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry ca bundle > bundle.pem
  keyferry ca bundle --cert /etc/keyferry/ca.crt --out /srv/sandbox/bundle.pem")]
pub(crate) struct Bundle {
    /// Our certificate
    #[arg(long, value_name = "FILE", default_value = "ca.crt")]
    cert: PathBuf,
    /// Write to this file, which is replaced whole, and not to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Bundle {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let text = text(&self.cert)?;
        match self.out {
            None => terminal::data(text.trim_end()),
            Some(path) => write(&path, &text),
        }
    }
}

/// The system's roots and ours, PEM.
pub(crate) fn text(cert: &Path) -> Result<String, Failure> {
    let ours = AuthorityCertificate::load(cert).map_err(Failure::fatal)?;
    ours.check().map_err(Failure::fatal)?;

    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        terminal::warning(&error.to_string());
    }
    if system.certs.is_empty() {
        terminal::warning(
            "no root certificates were found on this system\nhint: install the package ca-certificates",
        );
    }
    // Where SSL_CERT_FILE names an older bundle, ours is among the system's already.
    let mut certificates: Vec<&[u8]> =
        system.certs.iter().map(AsRef::as_ref).filter(|der: &&[u8]| *der != ours.der().as_ref()).collect();
    certificates.push(ours.der());

    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let blocks: Vec<String> =
        certificates.iter().map(|der| pem::encode_config(&Pem::new("CERTIFICATE", *der), config)).collect();
    Ok(blocks.concat())
}

/// Puts a bundle where clients read it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    replace(path, text.as_bytes())
        .map_err(|error| Failure::fatal(format!("{}: cannot be written: {error}", path.display())))
}

/// A client that reads the bundle at this moment sees the old one or the new one, and never half of one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
