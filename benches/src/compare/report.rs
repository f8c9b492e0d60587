//! What is said of it all, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Options;
use super::chart::Chart;
use super::measure::Sample;
use super::scenario::{Counts, Scenario, Who};
use super::statistics::{Samples, Spread};
use super::world::{DIRECT, KEYFERRY, MITMPROXY, SQUID, World, YARDSTICK};
use crate::load::Outcome;
use crate::table::{Table, number};

/// One table.
struct Figure {
    title: &'static str,
    counts: Counts,
    of: fn(&Outcome) -> Option<f64>,
    pick: fn(Spread) -> f64,
}

const PROCESSOR: Figure = Figure {
    title: "Processor time per request, µs",
    counts: Counts::Requests,
    of: Outcome::processor_per_request,
    pick: |spread| spread.median,
};
/// What other scenarios have left behind only grows.
const PEAK: Figure = Figure { title: "Peak memory, MiB", of: peak, pick: |spread| spread.least, ..PROCESSOR };

const FIGURES: [Figure; 8] = [
    PROCESSOR,
    Figure { title: "Requests per second", of: |outcome| Some(outcome.rate()), ..PROCESSOR },
    Figure { title: "Latency p50, µs", of: |outcome| Some(outcome.p50 as f64), ..PROCESSOR },
    Figure { title: "Latency p99, µs", of: |outcome| Some(outcome.p99 as f64), ..PROCESSOR },
    PEAK,
    Figure {
        title: "Throughput, MiB/s",
        counts: Counts::Bytes,
        of: |outcome| Some(outcome.throughput()),
        ..PROCESSOR
    },
    Figure {
        title: "Processor time per GiB, ms",
        counts: Counts::Bytes,
        of: |outcome| Some(outcome.processor_per_gib()? * 1e3),
        ..PROCESSOR
    },
    Figure { title: "Memory per idle tunnel, KiB", counts: Counts::Memory, of: per_tunnel, ..PROCESSOR },
];

/// The figures and what they are of.
#[derive(Debug)]
pub(super) struct Report {
    machine: Machine,
    rounds: usize,
    duration: u64,
    revision: String,
    targets: Vec<Measured>,
    scenarios: Vec<Scenario>,
    samples: Samples,
}

/// One that was measured.
#[derive(Debug)]
struct Measured {
    name: String,
    who: Who,
    version: String,
    started_in: Option<u128>,
    at_rest: Option<u64>,
}

/// What it ran on.
#[derive(Debug)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// Before anything of ours ran.
    load: String,
}

impl Machine {
    pub(super) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            processor: after(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl Report {
    pub(super) fn new(
        options: &Options,
        machine: Machine,
        world: &World,
        scenarios: &[Scenario],
        samples: Vec<Sample>,
    ) -> Self {
        let target = |target: &super::world::Target| Measured {
            name: target.name.clone(),
            who: target.who,
            version: target.version.clone(),
            started_in: target.part.as_ref().map(|part| part.started_in.as_millis()),
            at_rest: target.at_rest,
        };
        Self {
            machine,
            rounds: options.rounds,
            duration: options.duration,
            revision: options.revision.clone(),
            targets: world.targets.iter().map(target).collect(),
            scenarios: scenarios.to_vec(),
            samples: Samples(samples),
        }
    }

    /// How many runs failed that must not. A peer that fails is a line of the report.
    pub(super) fn failures(&self) -> usize {
        let ours = |sample: &&Sample| !matches!(sample.target.as_str(), SQUID | MITMPROXY);
        self.samples.0.iter().filter(ours).filter(|sample| sample.outcome().is_none()).count()
    }

    pub(super) fn json(&self) -> String {
        let Machine { processor, cores, memory_gib, kernel, load } = &self.machine;
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|target| {
                let Measured { name, version, started_in, at_rest, .. } = target;
                json!({ "name": name, "version": version, "start_ms": started_in, "at_rest_kib": at_rest })
            })
            .collect();
        let report = json!({
            "machine": {
                "processor": processor, "cores": cores, "memory_gib": memory_gib, "kernel": kernel, "load_before": load,
            },
            "revision": self.revision,
            "rounds": self.rounds,
            "duration_ms": self.duration,
            "targets": targets,
            "samples": self.samples.0,
        });
        format!("{report:#}\n")
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        let Machine { processor, cores, memory_gib, kernel, load } = &self.machine;
        let _ = writeln!(
            text,
            "{processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}; load {load} before the run. Revision {}. Medians of {} rounds of {} ms; {} of {} measurements were disturbed by others.\n",
            self.revision,
            self.rounds,
            self.duration,
            self.samples.disturbed(),
            self.samples.0.len()
        );
        for Measured { name, who, version, .. } in &self.targets {
            if *who == Who::Proxies && !version.is_empty() {
                let _ = writeln!(text, "- {name}: {version}");
            }
        }
        for figure in &FIGURES {
            let table = self.table(figure);
            if !table.is_empty() {
                let _ = write!(text, "\n### {}\n\n{table}", figure.title);
            }
        }
        if let Some(policies) = self.policies() {
            let _ = write!(text, "\n### keyferry by the size of its policy\n\n{policies}");
        }
        for chart in self.charts().iter().filter(|chart| !chart.is_empty()) {
            let _ = write!(text, "\n{chart}");
        }
        let _ = write!(text, "\n### Budgets\n\n{}", self.budgets());
        for sample in &self.samples.0 {
            if let super::measure::RunResult::Error(error) = &sample.result {
                let _ = writeln!(text, "\nfailed: {} with {}: {error}", sample.scenario, sample.target);
            }
        }
        text
    }

    /// Scenarios down, targets across.
    fn table(&self, figure: &Figure) -> Table {
        let scenarios = || {
            self.scenarios
                .iter()
                .filter(|scenario| scenario.who == Who::Proxies && scenario.counts == figure.counts)
        };
        let has_it = |name: &&String| {
            scenarios().any(|scenario| {
                let figure = self.samples.figure(scenario.name, name, figure.of);
                figure.is_some() || self.samples.failed(scenario.name, name)
            })
        };
        let proxies = self.targets.iter().filter(|target| target.who == Who::Proxies);
        let names: Vec<&String> = proxies.map(|target| &target.name).filter(has_it).collect();
        let mut table =
            Table::new(std::iter::once(String::new()).chain(names.iter().map(|&name| name.clone())));
        for scenario in scenarios() {
            let cells = names.iter().map(|name| self.cell(scenario.name, name, figure));
            table.row(std::iter::once(scenario.title.to_owned()).chain(cells));
        }
        table
    }

    fn cell(&self, scenario: &str, target: &str, figure: &Figure) -> String {
        match self.samples.figure(scenario, target, figure.of) {
            Some(spread) => number((figure.pick)(spread)),
            None if self.samples.failed(scenario, target) => "failed".to_owned(),
            None => "–".to_owned(),
        }
    }

    fn policies(&self) -> Option<Table> {
        let mut table = Table::new(
            ["policy", "keep-alive, µs per request", "new tunnel, µs", "memory, MiB", "start, ms"]
                .map(str::to_owned),
        );
        for Measured { name, who, started_in, .. } in &self.targets {
            if *who == Who::Policies {
                table.row([
                    name.clone(),
                    self.cell("policy", name, &PROCESSOR),
                    self.cell("policy-tunnel", name, &PROCESSOR),
                    self.cell("policy", name, &PEAK),
                    started_in.map_or_else(String::new, |ms| number(ms as f64)),
                ]);
            }
        }
        (!table.is_empty()).then_some(table)
    }

    /// The figures that tell most. Processor time is without mitmproxy, beside which the others would be too small to see.
    fn charts(&self) -> [Chart; 4] {
        let median = |scenario: &str, target: &str, figure: fn(&Outcome) -> Option<f64>| {
            self.samples.figure(scenario, target, figure).map(|spread: Spread| spread.median)
        };
        let mut keep_alive =
            Chart::bars("Processor time per request, µs: keep-alive, 16 connections, h1 (less is better)");
        let mut tunnel = Chart::bars("Processor time per new tunnel, TLS and request, µs (less is better)");
        let mut rate = Chart::bars("Requests per second: keep-alive, 16 connections, h1 (more is better)");
        for Measured { name, .. } in self.targets.iter().filter(|target| target.who == Who::Proxies) {
            if name != MITMPROXY {
                keep_alive.point(name, median("h1-16", name, Outcome::processor_per_request));
                tunnel.point(name, median("tunnel", name, Outcome::processor_per_request));
            }
            rate.point(name, median("h1-16", name, |outcome| Some(outcome.rate())));
        }
        let mut policies = Chart::line("Processor time per request, µs, as rules and secrets grow");
        for Measured { name, .. } in self.targets.iter().filter(|target| target.who == Who::Policies) {
            policies.point(name, median("policy", name, Outcome::processor_per_request));
        }
        [keep_alive, tunnel, rate, policies]
    }

    /// What the architecture asks for, beside what was measured.
    fn budgets(&self) -> Table {
        let mut table = Table::new(["budget", "asked", "measured", "met"].map(str::to_owned));
        let mut row = |what: &str, at_most: bool, bound: f64, unit: &str, measured: Option<f64>| {
            let Some(measured) = measured else { return };
            let sign = if at_most { "≤" } else { "≥" };
            let met = if at_most { measured <= bound } else { measured >= bound };
            table.row([
                what.to_owned(),
                format!("{sign} {bound}{unit}"),
                format!("{}{unit}", number(measured)),
                if met { "yes" } else { "no" }.to_owned(),
            ]);
        };
        let median = |scenario: &str, target: &str, figure: fn(&Outcome) -> Option<f64>| {
            self.samples.figure(scenario, target, figure).map(|spread: Spread| spread.median)
        };
        let processor = |scenario, target| median(scenario, target, Outcome::processor_per_request);
        let rate = |scenario, target| median(scenario, target, |outcome| Some(outcome.rate()));
        let throughput = |scenario, target| median(scenario, target, |outcome| Some(outcome.throughput()));
        let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
        let less = |a: Option<f64>, b: Option<f64>| Some(a? - b?);

        for (name, of) in [("h1-16", "h1, 16 connections"), ("h1-64", "h1, 64 connections")] {
            let ours = processor(name, KEYFERRY);
            row(&format!("processor time per keep-alive request, {of}"), true, 25.0, " µs", ours);
            row("… beside the yardstick", true, 1.25, " ×", ratio(ours, processor(name, YARDSTICK)));
            let ours = rate(name, KEYFERRY);
            row("… requests per second beside Squid", false, 2.2, " ×", ratio(ours, rate(name, SQUID)));
            row("… beside mitmproxy", false, 30.0, " ×", ratio(ours, rate(name, MITMPROXY)));
            row("… beside no proxy", false, 0.5, " ×", ratio(ours, rate(name, DIRECT)));
        }
        let added = |target, figure: fn(&Outcome) -> Option<f64>| {
            less(median("h1-1", target, figure), median("h1-1", DIRECT, figure))
        };
        let (p50, p99) =
            (|outcome: &Outcome| Some(outcome.p50 as f64), |outcome: &Outcome| Some(outcome.p99 as f64));
        row("added latency, one connection, p50", true, 60.0, " µs", added(KEYFERRY, p50));
        row(
            "… beside what the yardstick adds",
            true,
            1.3,
            " ×",
            ratio(added(KEYFERRY, p50), added(YARDSTICK, p50)),
        );
        row("added latency, one connection, p99", true, 200.0, " µs", added(KEYFERRY, p99));
        row(
            "processor time per new tunnel, TLS and request",
            true,
            220.0,
            " µs",
            processor("tunnel", KEYFERRY),
        );
        let download = ratio(throughput("download", KEYFERRY), throughput("download", DIRECT));
        row("large download beside no proxy", false, 0.8, " ×", download);
        let scanned = ratio(throughput("download-secret", KEYFERRY), throughput("download-secret", DIRECT));
        row("… from a host with a bound secret", false, 0.6, " ×", scanned);
        let at_rest =
            self.targets.iter().find(|target| target.name == KEYFERRY).and_then(|target| target.at_rest);
        row("memory at rest", true, 40.0, " MB", at_rest.map(|kib| kib as f64 * 1024.0 / 1e6));
        row("memory per idle tunnel", true, 32.0, " KiB", median("idle", KEYFERRY, per_tunnel));
        table
    }
}

fn peak(outcome: &Outcome) -> Option<f64> {
    Some(outcome.watched?.peak as f64 / 1024.0)
}

/// The first tunnel was open before; the last requests of the rest came after.
fn per_tunnel(outcome: &Outcome) -> Option<f64> {
    let watched = outcome.watched?;
    Some(
        watched.resident_after.saturating_sub(watched.resident_before) as f64 / (outcome.requests - 1) as f64,
    )
}
