//! `keyferry ca show`.

use std::path::PathBuf;

use keyferry_proxy::tls::{AuthorityCertificate, Moment};

use crate::failure::Failure;
use crate::terminal;

/// Show whose a certificate authority is, how long it holds, and its fingerprint
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry ca show
  keyferry ca show --cert /etc/keyferry/ca.crt")]
pub(crate) struct Show {
    /// The certificate
    #[arg(long, value_name = "FILE", default_value = "ca.crt")]
    cert: PathBuf,
}

impl Show {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let certificate = AuthorityCertificate::load(&self.cert).map_err(Failure::fatal)?;
        let validity = certificate.validity();
        terminal::data(format!("subject      {}", certificate.subject()))?;
        terminal::data(format!("valid from   {}", Moment(validity.not_before)))?;
        terminal::data(format!("valid until  {}", Moment(validity.not_after)))?;
        terminal::data(format!("SHA-256      {}", certificate.fingerprint_sha256()))?;
        if let Err(reason) = certificate.check() {
            terminal::warning(&reason.to_string());
        }
        Ok(())
    }
}
