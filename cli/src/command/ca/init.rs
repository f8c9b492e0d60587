//! `keyferry ca init`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keyferry_proxy::tls::{Authority, AuthorityCertificate, Moment, NewAuthority};
use owo_colors::Stream;

use crate::failure::Failure;
use crate::terminal;

/// Make a certificate authority: a certificate for the sandboxes and a key for keyferry alone
///
/// The key is a P-256 key in a file of mode 0600. A file that exists is never overwritten.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry ca init
  keyferry ca init --name 'Example egress' --days 365
  keyferry ca init --cert /etc/keyferry/ca.crt --key /etc/keyferry/ca.key")]
pub(crate) struct Init {
    /// Where the certificate goes
    #[arg(long, value_name = "FILE", default_value = "ca.crt")]
    cert: PathBuf,
    /// Where the key goes
    #[arg(long, value_name = "FILE", default_value = "ca.key")]
    key: PathBuf,
    /// The name that people see in a trust store
    #[arg(long, value_name = "NAME", default_value = "keyferry")]
    name: String,
    /// For how many days it holds
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    days: u32,
}

impl Init {
    pub(crate) fn run(self) -> Result<(), Failure> {
        make(&self.cert, &self.key, NewAuthority { name: self.name, days: self.days })?;
        let made = AuthorityCertificate::load(&self.cert).map_err(Failure::fatal)?;
        let strong = |text: &str| terminal::strong(Stream::Stderr, text);
        let (cert, key) = (self.cert.display(), self.key.display());
        terminal::talk(format!("Made the certificate authority {}", strong(made.subject())));
        terminal::talk(format!("  certificate  {cert}  (for the sandboxes)"));
        terminal::talk(format!("  key          {key}  (for keyferry alone, mode 0600)"));
        terminal::talk(format!("  valid until  {}", Moment(made.validity().not_after)));
        terminal::talk(format!("  SHA-256      {}", made.fingerprint_sha256()));
        terminal::talk(terminal::with_hints(&format!("hint: tls: {{ ca_cert: {cert}, ca_key: {key} }}")));
        Ok(())
    }
}

/// Makes both files, or neither.
pub(crate) fn make(cert: &Path, key: &Path, authority: NewAuthority) -> Result<(), Failure> {
    let pem = Authority::generate(&authority).map_err(Failure::config)?;
    create(key, 0o600, pem.key.as_bytes())?;
    if let Err(failure) = create(cert, 0o644, pem.certificate.as_bytes()) {
        // Half a pair is of no use, and would stop the next attempt.
        let _ = fs::remove_file(key);
        return Err(failure);
    }
    Ok(())
}

/// Creates a file that must not exist yet (O_EXCL: a link that somebody put there is not followed), whole or not at all.
fn create(path: &Path, mode: u32, content: &[u8]) -> Result<(), Failure> {
    let failure = |error: io::Error| {
        let path = path.display();
        Failure::fatal(match error.kind() {
            ErrorKind::AlreadyExists => {
                format!(
                    "{path}: exists, and is not overwritten\nhint: choose other files with --cert and --key"
                )
            }
            _ => format!("{path}: cannot be created: {error}"),
        })
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failure)?;
    let written = write(&mut file, content);
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.map_err(failure)
}

fn write(file: &mut File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()
}
