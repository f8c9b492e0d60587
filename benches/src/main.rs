//! Plays one part of the bench; `scripts/bench` starts it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use keyferry_benches::{compare, load, upstream, yardstick};

#[derive(Parser)]
#[command(name = "keyferry-bench", about = "Measures keyferry beside a bare proxy, its peers, and no proxy")]
enum Part {
    Upstream(upstream::Options),
    Yardstick(yardstick::Options),
    Load(load::Options),
    Compare(compare::Options),
}

fn main() -> ExitCode {
    match play(Part::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not its Debug: a backtrace tells nobody which port was taken. Each message holds those of its causes.
            let _ = writeln!(std::io::stderr(), "keyferry-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(part: Part) -> anyhow::Result<()> {
    match part {
        // One thread each for load and upstream: they are to take little, and the same, from every proxy.
        Part::Upstream(options) => one_thread()?.block_on(upstream::serve(options))?,
        Part::Yardstick(options) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(yardstick::serve(options))?,
        Part::Load(options) => {
            let outcome = one_thread()?.block_on(load::run(options))?;
            serde_json::to_writer(std::io::stdout(), &outcome)?;
        }
        Part::Compare(options) => one_thread()?.block_on(compare::run(options))?,
    }
    Ok(())
}

fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
