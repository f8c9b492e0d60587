//! keyferry's command line: reads flags and the environment, composes the services, decides nothing itself.

mod command;
mod configuration;
mod control_client;
mod demo;
mod environment;
mod failure;
mod log;
mod opentelemetry;
mod perms;
mod replay;
mod sandboxed;
mod service;
mod terminal;
mod tools;
mod up;
mod watch;

use std::process::ExitCode;

use clap::Parser;

/// An egress proxy that swaps placeholders for real credentials.
///
/// A sandbox holds placeholders only. keyferry is its one way out: it puts the real credential into the requests that the
/// policy grants, to the hosts that the policy names, and lets nothing else pass.
#[derive(Parser)]
#[command(name = "keyferry", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: command::Command,
}

const EXAMPLES: &str = "\
Examples:
  keyferry demo                             see it work, on this machine alone
  keyferry run -- claude                    run a command in a sandbox that holds no key
  keyferry up                               run control and a proxy, and say how to use them
  keyferry ca init                          make ca.crt and ca.key
  keyferry check keyferry.yaml              say what is wrong with a configuration
  keyferry proxy --config keyferry.yaml     run the proxy

Exit codes: 0 all is well, 1 something failed, 2 the configuration or the command line is wrong.";

/// Runs the command that this process was called with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, a complaint to stderr; a reader that left early is not worth a word.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.command.run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
