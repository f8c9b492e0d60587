//! keyferry's command line: reads flags and the environment, composes the services, decides nothing itself.

mod command;
mod configuration;
mod control_client;
mod demo;
mod doctor;
mod environment;
mod failure;
mod lines;
mod log;
mod opentelemetry;
mod perms;
mod replay;
mod sandboxed;
mod service;
mod terminal;
mod tls_service;
mod tools;
mod up;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::command::sandbox_init::{self, SandboxInit};

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
  keyferry doctor                           which clients work in such a sandbox, and what the others need
  keyferry up                               run control and a proxy, and say how to use them
  keyferry ca init                          make ca.crt and ca.key
  keyferry check keyferry.yaml              say what is wrong with a configuration
  keyferry proxy --config keyferry.yaml     run the proxy

Exit codes: 0 all is well, 1 something failed, 2 the configuration or the command line is wrong.";

/// Runs the command that this process was called with.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    let done = if words.peek().is_some_and(|word| word == sandbox_init::NAME) {
        SandboxInit::try_parse_from(words).map(|stage| stage.run().map(|()| ExitCode::SUCCESS))
    } else {
        Cli::try_parse().map(|cli| cli.command.run())
    };
    match done {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => failure.report(),
        Err(error) => {
            // Help goes to stdout, a complaint to stderr; a reader that left early is not worth a word.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}
