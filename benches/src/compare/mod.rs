//! Everything side by side: starts upstream and proxies, sends each the same load in turn, and reports medians.
//!
//! A round measures every scenario with every proxy before the next round begins, so that a noisy minute of the machine falls on all of
//! them. All processes run from the start; one that is not measured waits on its sockets and takes nothing.

mod chart;
mod config;
mod measure;
mod part;
mod patience;
mod report;
mod scenario;
mod statistics;
mod world;

use std::path::PathBuf;

use patience::Patience;
use report::Report;
use scenario::Counts;
use world::World;

pub use part::PartError;

/// Starts everything, measures, and prints the tables
#[derive(Clone, Debug, clap::Args)]
// The script sets some, and the person who calls it may set them again.
#[command(args_override_self = true)]
pub struct Options {
    /// The keyferry binary
    #[arg(long)]
    pub keyferry: PathBuf,
    /// Squid's binary; without it, Squid is left out
    #[arg(long, requires = "squid_certgen")]
    pub squid: Option<PathBuf>,
    /// The helper that makes Squid's certificates
    #[arg(long)]
    pub squid_certgen: Option<PathBuf>,
    /// mitmproxy's `mitmdump`; without it, mitmproxy is left out
    #[arg(long)]
    pub mitmdump: Option<PathBuf>,
    /// Where configurations, certificates and logs go
    #[arg(long)]
    pub folder: PathBuf,
    /// Where the figures go, in JSON
    #[arg(long)]
    pub results: PathBuf,
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Milliseconds of each measurement
    #[arg(long, default_value_t = 700)]
    pub duration: u64,
    /// Milliseconds before each measurement that do not count
    #[arg(long, default_value_t = 200)]
    pub warm_up: u64,
    /// Seconds, in all, to wait for others who use the processors, and to repeat what they have disturbed
    #[arg(long, default_value_t = 30)]
    pub patience: u64,
    /// Only the scenarios whose name begins with one of these
    #[arg(long = "only", value_name = "NAME")]
    pub only: Vec<String>,
    /// Leaves out what takes long and tells little
    #[arg(long)]
    pub quick: bool,
    /// What was built, for the report
    #[arg(long, default_value = "unknown")]
    pub revision: String,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A process did not start.
    #[error(transparent)]
    Part(#[from] PartError),
    /// Certificates.
    #[error(transparent)]
    Authority(#[from] crate::authority::AuthorityError),
    /// A file of the bench.
    #[error("{} cannot be written: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No scenario has such a name.
    #[error("no scenario begins with {}\n  hint: they are {}", .0.join(" or "), scenario::names().join(", "))]
    NoScenario(Vec<String>),
    /// Some runs failed that must not. The report says which.
    #[error("{0} runs of keyferry, the yardstick or no proxy failed; the report names them")]
    Failed(usize),
}

/// Measures, prints the report to standard output, and writes the figures.
pub async fn run(options: Options) -> Result<(), CompareError> {
    let scenarios = scenario::chosen(&options);
    if scenarios.is_empty() {
        return Err(CompareError::NoScenario(options.only));
    }
    let machine = report::Machine::look();
    let world = World::start(&options, &scenarios).await?;
    let mut patience = Patience::new(&options);
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        for scenario in scenarios.iter().filter(|scenario| scenario.counts != Counts::Memory || round == 0) {
            samples.extend(measure::round(&world, scenario, &options, &mut patience, round).await);
        }
    }
    let report = Report::new(&options, machine, &world, &scenarios, samples);
    let file = |source| CompareError::File { path: options.results.clone(), source };
    std::fs::write(&options.results, report.json()).map_err(file)?;
    out(&report.markdown());
    match report.failures() {
        0 => Ok(()),
        failures => Err(CompareError::Failed(failures)),
    }
}

/// What a person who waits may want to know.
#[expect(clippy::print_stderr, reason = "the tool's own progress")]
fn say(text: &str) {
    eprintln!("bench: {text}");
}

#[expect(clippy::print_stdout, reason = "the tool's result")]
fn out(text: &str) {
    println!("{text}");
}
