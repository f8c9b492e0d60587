//! `keyferry ca`: the certificate authority that sandboxes trust.

pub(crate) mod bundle;
pub(crate) mod init;
mod show;

use crate::failure::Failure;

/// Make, bundle and show the certificate authority that sandboxes trust
#[derive(clap::Subcommand)]
pub(crate) enum Ca {
    Init(init::Init),
    Bundle(bundle::Bundle),
    Show(show::Show),
}

impl Ca {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(),
            Self::Bundle(bundle) => bundle.run(),
            Self::Show(show) => show.run(),
        }
    }
}
