//! `keyferry demo`.

use crate::demo;
use crate::failure::Failure;

/// See it work: a service, the proxy and a sandbox's clients, on this machine alone
///
/// Starts a TLS service and a proxy on loopback, then calls the service as a sandbox would: with curl, Python and git, an
/// empty environment and placeholders. Then `keyferry up`: two sandboxes, a grant to one of them, and its revocation while a
/// download runs. Ends with a verdict; the exit code says whether all went as it should. Needs curl, git and python3, no DNS
/// and no network.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry demo
  keyferry demo --keep      leave the configuration, the certificates and the records to look at")]
pub(crate) struct Demo {
    /// Keep the folder with the configuration, the certificates and the audit records
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Result<(), Failure> {
        demo::run(self.keep)
    }
}
