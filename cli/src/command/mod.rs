//! The commands, one file each.

mod ca;
mod check;
mod completions;
mod config_print;
mod control;
mod demo;
mod explain;
mod keyring;
mod log;
mod man;
mod policy;
mod proxy;
mod sandbox_init;
mod schema;

use crate::failure::Failure;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Proxy(proxy::Proxy),
    Control(control::Control),
    Check(check::Check),
    Explain(explain::Explain),
    Log(log::Log),
    #[command(subcommand)]
    Policy(policy::Policy),
    #[command(subcommand)]
    Config(config_print::Config),
    #[command(subcommand)]
    Ca(ca::Ca),
    #[command(subcommand)]
    Keyring(keyring::Keyring),
    #[command(subcommand)]
    SandboxInit(sandbox_init::SandboxInit),
    Demo(demo::Demo),
    Schema(schema::Schema),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Proxy(proxy) => proxy.run(),
            Self::Control(control) => control.run(),
            Self::Check(check) => check.run(),
            Self::Explain(explain) => explain.run(),
            Self::Log(log) => log.run(),
            Self::Policy(policy) => policy.run(),
            Self::Config(config) => config.run(),
            Self::Ca(ca) => ca.run(),
            Self::Keyring(keyring) => keyring.run(),
            Self::SandboxInit(sandbox_init) => sandbox_init.run(),
            Self::Demo(demo) => demo.run(),
            Self::Schema(schema) => schema.run(),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
        }
    }
}
