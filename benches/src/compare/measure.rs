//! One scenario with every proxy, once.

use std::time::Instant;

use serde::Serialize;

use super::config::{CREDENTIAL, PLACEHOLDER};
use super::part::{command, prepare};
use super::patience::Patience;
use super::scenario::{Counts, Scenario, Sends};
use super::world::{SQUID, Target, World};
use super::{Options, say};
use crate::load::{Outcome, Shape};
use crate::tls::Protocol;

/// The figures of one run, or why it has none.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) scenario: &'static str,
    pub(super) target: String,
    pub(super) round: usize,
    #[serde(flatten)]
    pub(super) result: RunResult,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RunResult {
    Outcome(Outcome),
    Error(String),
}

impl Sample {
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        match &self.result {
            RunResult::Outcome(outcome) => Some(outcome),
            RunResult::Error(_) => None,
        }
    }
}

/// Whether a target is asked to do this at all.
pub(super) fn takes_part(target: &Target, scenario: &Scenario) -> bool {
    // Squid finds names in its hosts file alone, so new ones cannot be made up.
    let unknown_names = scenario.shape == Shape::Cold && target.name == SQUID;
    let h2 = scenario.protocol == Protocol::H2;
    let memory_of_nobody = scenario.counts == Counts::Memory && target.part.is_none();
    target.who == scenario.who && (target.speaks_h2 || !h2) && !unknown_names && !memory_of_nobody
}

/// Measures a scenario with every target, each round in another order.
pub(super) async fn round(
    world: &World,
    scenario: &Scenario,
    options: &Options,
    patience: &mut Patience,
    round: usize,
) -> Vec<Sample> {
    let mut targets: Vec<&Target> =
        world.targets.iter().filter(|target| takes_part(target, scenario)).collect();
    let shift = round % targets.len().max(1);
    targets.rotate_left(shift);
    let mut samples = Vec::new();
    for target in targets {
        let result = match quiet_run(world, scenario, target, options, patience).await {
            Ok(outcome) => RunResult::Outcome(outcome),
            Err(error) => {
                say(&format!("{} with {} failed: {error}", scenario.name, target.name));
                RunResult::Error(error)
            }
        };
        samples.push(Sample { scenario: scenario.name, target: target.name.clone(), round, result });
    }
    samples
}

/// A run that nobody disturbed, as far as patience allows; the least disturbed one, otherwise.
async fn quiet_run(
    world: &World,
    scenario: &Scenario,
    target: &Target,
    options: &Options,
    patience: &mut Patience,
) -> Result<Outcome, String> {
    let mut best: Option<Outcome> = None;
    loop {
        patience.wait().await;
        let began = Instant::now();
        let outcome = run(world, scenario, target, options).await?;
        let repeat = scenario.counts != Counts::Memory && patience.repeat(&outcome, began.elapsed());
        if best.as_ref().is_none_or(|best| outcome.foreign < best.foreign) {
            best = Some(outcome);
        }
        if let Some(best) = best.take_if(|_| !repeat) {
            return Ok(best);
        }
    }
}

async fn run(
    world: &World,
    scenario: &Scenario,
    target: &Target,
    options: &Options,
) -> Result<Outcome, String> {
    let mut load = command(&world.program, &world.folder);
    load.arg("load");
    let mut put = |name: &str, value: String| {
        load.arg(format!("--{name}={value}"));
    };
    if let Some(proxy) = target.proxy {
        put("proxy", proxy.to_string());
    }
    if let Some(pid) = target.part.as_ref().and_then(super::part::Part::pid) {
        put("watch", pid.to_string());
    }
    if let Some(pid) = world.upstream.pid() {
        put("beside", pid.to_string());
    }
    for root in &target.roots {
        put("root", root.display().to_string());
    }
    put("host", scenario.host.to_owned());
    put("port", world.port(scenario.upstream).to_string());
    put("path", scenario.path.to_owned());
    put("protocol", value_name(scenario.protocol));
    put("shape", value_name(scenario.shape));
    put("connections", scenario.connections.to_string());
    put("streams", scenario.streams.to_string());
    put("warm-up", options.warm_up.to_string());
    put("duration", options.duration.to_string());
    match scenario.sends {
        Sends::Nothing => {}
        Sends::Header => {
            let token = if target.swaps { PLACEHOLDER } else { CREDENTIAL };
            put("authorization", format!("Bearer {token}"));
        }
        Sends::Body => {
            let name = if target.swaps { "placeholder.json" } else { "credential.json" };
            put("body", world.folder.join(name).display().to_string());
        }
        Sends::Bytes(length) => put("upload", length.to_string()),
    }
    let said = prepare(load).await.map_err(|error| match error {
        super::PartError::Preparation { said, .. } => said.trim().to_owned(),
        other => other.to_string(),
    })?;
    serde_json::from_str(&said).map_err(|error| format!("the load said {said:?}: {error}"))
}

fn value_name(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
