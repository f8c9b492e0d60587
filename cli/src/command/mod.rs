//! The commands, one file each.

mod ca;
mod check;
mod demo;
mod explain;
mod proxy;

use crate::failure::Failure;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Proxy(proxy::Proxy),
    Check(check::Check),
    Explain(explain::Explain),
    #[command(subcommand)]
    Ca(ca::Ca),
    Demo(demo::Demo),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Proxy(proxy) => proxy.run(),
            Self::Check(check) => check.run(),
            Self::Explain(explain) => explain.run(),
            Self::Ca(ca) => ca.run(),
            Self::Demo(demo) => demo.run(),
        }
    }
}
