//! `./scripts/soak`: prints the figures of a long run, and ends with 1 when one of them is not what it must be.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use keyferry_tests::soak::{Plan, run};

/// Many clients for long, while the configuration changes and services die.
#[derive(Parser)]
struct Arguments {
    /// The binary to run.
    #[arg(long)]
    keyferry: PathBuf,
    /// How long.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// How long, for more than an evening.
    #[arg(long, conflicts_with = "minutes")]
    hours: Option<f64>,
    /// How many tunnels are opened and closed at least.
    #[arg(long, default_value_t = 10_000)]
    tunnels: u64,
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what it is for")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let minutes = arguments.hours.map_or(arguments.minutes, |hours| hours * 60.0);
    let report = run(&Plan {
        keyferry: arguments.keyferry,
        warm_up: Duration::from_secs(30),
        duration: Duration::from_secs_f64(minutes * 60.0),
        tunnels: arguments.tunnels,
    })
    .await;
    println!("{}", report.table());
    let faults = report.faults();
    for fault in &faults {
        eprintln!("soak: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
