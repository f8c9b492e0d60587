//! The commands, one file each.

pub(crate) mod ca;
mod check;
mod completions;
mod config_print;
mod control;
mod control_options;
mod demo;
mod doctor;
mod egress;
mod explain;
mod grant;
mod keyring;
mod log;
mod man;
mod perms;
mod policy;
mod preset;
mod principal;
mod proxies;
mod proxy;
mod run;
mod sandbox;
pub(crate) mod sandbox_init;
mod schema;
pub(crate) mod secret;
mod secret_value;
mod shown;
mod status;
mod target;
mod up;

use std::process::ExitCode;

use crate::failure::Failure;
pub(crate) use control::serve_failure;
pub(crate) use proxy::start_failure;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Run(run::Run),
    Up(up::Up),
    Proxy(proxy::Proxy),
    Control(control::Control),
    Secret(secret::Secret),
    Grant(grant::Grant),
    Revoke(grant::Revoke),
    Allow(egress::Allow),
    Deny(egress::Deny),
    #[command(subcommand)]
    Preset(preset::Preset),
    Principal(principal::Principal),
    Proxies(proxies::Proxies),
    Sandbox(sandbox::Sandbox),
    Status(status::Status),
    Perms(perms::Perms),
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
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
    Schema(schema::Schema),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let done = match self {
            Self::Run(run) => return run.run(),
            Self::Doctor(doctor) => return doctor.run(),
            Self::Up(up) => up.run(),
            Self::Proxy(proxy) => proxy.run(),
            Self::Control(control) => control.run(),
            Self::Secret(secret) => secret.run(),
            Self::Grant(grant) => grant.run(),
            Self::Revoke(revoke) => revoke.run(),
            Self::Allow(allow) => allow.run(),
            Self::Deny(deny) => deny.run(),
            Self::Preset(preset) => preset.run(),
            Self::Principal(principal) => principal.run(),
            Self::Proxies(proxies) => proxies.run(),
            Self::Sandbox(sandbox) => sandbox.run(),
            Self::Status(status) => status.run(),
            Self::Perms(perms) => perms.run(),
            Self::Check(check) => check.run(),
            Self::Explain(explain) => explain.run(),
            Self::Log(log) => log.run(),
            Self::Policy(policy) => policy.run(),
            Self::Config(config) => config.run(),
            Self::Ca(ca) => ca.run(),
            Self::Keyring(keyring) => keyring.run(),
            Self::Demo(demo) => demo.run(),
            Self::Schema(schema) => schema.run(),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}
