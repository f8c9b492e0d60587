//! `keyferry doctor`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use owo_colors::Stream;

use super::log::printable;
use super::proxy::Shutdown;
use super::run::variable;
use super::shown;
use crate::doctor::{self, Report, State, Wanted};
use crate::failure::Failure;
use crate::terminal;

/// Try the clients of this machine in a sandbox, and tell what is missing where one does not get through
///
/// Starts a keyferry of its own and a TLS service on loopback, makes sandboxes as `keyferry run` does, and lets each client that is there
/// call the service with a placeholder. One is ok where its request came through the proxy with the real credential. Of the others it
/// says which variable or switch they lack. Nothing of it stays, and no other network is used.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry doctor
  keyferry doctor --only curl --only git
  keyferry doctor --ro ~/.nvm/versions/node/v24 --env PATH=$HOME/.nvm/versions/node/v24/bin:/usr/bin:/bin
  keyferry doctor --json

Exit codes: 0 all clients that are there are ok, or work as well as they can; 1 one of them fails, or there can be no sandbox; 2 the
command line is wrong.")]
pub(crate) struct Doctor {
    /// Try this client alone; more than one may be named
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(doctor::names()))]
    only: Vec<String>,
    /// A variable for the clients, as for `keyferry run`
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    variables: Vec<OsString>,
    /// A file or directory that the clients may read, as for `keyferry run`
    #[arg(long = "ro", value_name = "PATH")]
    read_only: Vec<PathBuf>,
    /// How long each client may take
    #[arg(long, value_name = "DURATION", value_parser = shown::duration, default_value = "30s")]
    time: Duration,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    /// Tell what can be reached past the proxy, with a service on this port of the host
    #[arg(long, value_name = "PORT", hide = true)]
    from_inside: Option<u16>,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if let Some(port) = self.from_inside {
            return doctor::tell_ways_out(port);
        }
        if keyferry_sandbox::is_inside() {
            return Err(Failure::fatal(
                "this is a sandbox of keyferry, and there are none in it\nhint: run `keyferry doctor` outside of it",
            ));
        }
        let wanted = Wanted {
            only: self.only,
            read_only: self.read_only,
            variables: self.variables.into_iter().map(variable).collect::<Result<_, _>>()?,
            time: self.time,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::fatal(format!("the runtime cannot be started: {error}")))?;
        let report = runtime.block_on(async {
            let shutdown = Shutdown::listen()?;
            doctor::examine(&wanted, shutdown.requested()).await
        })?;
        if self.json {
            let mut value = serde_json::to_value(&report).map_err(Failure::fatal)?;
            value["ok"] = report.is_good().into();
            shown::json(&value)?;
        } else {
            tell(&report)?;
        }
        Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A line for each, and below it what to do.
fn tell(report: &Report) -> Result<(), Failure> {
    for check in &report.checks {
        tell_one(check.name, check.state, &check.what)?;
    }
    for client in &report.clients {
        let remedy = match (&client.set, &client.switch) {
            (Some(set), Some(switch)) => format!("\nset {set}, or give it {switch}"),
            (Some(set), None) => format!("\nset {set}"),
            (None, Some(switch)) => format!("\ngive it {switch}"),
            (None, None) => String::new(),
        };
        tell_one(client.name, client.state, &format!("{}{remedy}", client.what))?;
    }
    Ok(())
}

fn tell_one(name: &str, state: State, what: &str) -> Result<(), Failure> {
    let word = format!("{:<6}", state.word());
    let mut word = match state {
        State::Ok => terminal::good(Stream::Stdout, &word),
        State::Note => terminal::strong(Stream::Stdout, &word),
        State::Failed => terminal::bad(Stream::Stdout, &word),
        State::Absent => terminal::faint(Stream::Stdout, &word),
    };
    let mut name = name;
    for line in what.lines() {
        // What a client says may hold more than text (T86).
        terminal::data(format!("{name:<15}  {word:<6}  {}", printable::text(line)))?;
        (name, word) = ("", String::new());
    }
    Ok(())
}
