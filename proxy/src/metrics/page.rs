//! `docs/metrics.md` is written from the metrics themselves; a page that is stale fails here.
//!
//! `KEYFERRY_REGENERATE=1 cargo test -p keyferry-proxy metrics::page` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use keyferry_config::policy::Reason;
use prometheus::proto::{MetricFamily, MetricType};

use super::Metrics;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

const INTRODUCTION: &str = "\
# Metrics

`metrics.listen` serves `/metrics` in Prometheus' text format (version 0.0.4), beside `/healthz` and `/readyz`. It is plain HTTP without a
password: keep it on loopback or a private network. Sandboxes cannot reach it through the proxy.

No label ever holds what a sandbox chose (a host, a path, a header): the number of lines is fixed when the proxy starts, and every line is there
from the start, with 0 where nothing has happened. Which request, and to which host, is in the [audit records](audit.md).

Counters begin at 0 with the process; those of `keyferry_audit_…` also begin anew when a reload moves the audit log.
";

fn page() -> String {
    let families = Metrics::new().registry.gather();
    let (process, ours): (Vec<_>, Vec<_>) =
        families.iter().partition(|family| family.name().starts_with("process_"));
    let mut page = INTRODUCTION.to_owned();
    for (title, families) in [("What keyferry does", ours), ("The process", process)] {
        write!(page, "\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n").unwrap();
        for family in families {
            let (name, help) = (family.name(), family.help().trim_end_matches('.'));
            writeln!(page, "| `{name}` | {} | {} | {help} |", kind(family), labels(family)).unwrap();
        }
    }
    page
}

fn kind(family: &MetricFamily) -> &'static str {
    match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => unreachable!("we have none"),
    }
}

fn labels(family: &MetricFamily) -> String {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for pair in family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label) {
        labels.entry(pair.name()).or_default().insert(pair.value());
    }
    let described = labels.iter().map(|(name, values)| match *name {
        "reason" => "`reason`: a code of [errors.md](errors.md)".to_owned(),
        "version" => "`version`".to_owned(),
        name => {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{name}`: {}", values.join(", "))
        }
    });
    described.collect::<Vec<_>>().join("; ")
}

#[test]
fn the_page_tells_every_metric() {
    let page = page();
    if std::env::var_os("KEYFERRY_REGENERATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md is stale: run this test with KEYFERRY_REGENERATE=1 and commit the page"
    );
}

#[test]
fn every_reason_has_its_own_counter() {
    let metrics = Metrics::new();
    for (index, &reason) in Reason::ALL.iter().enumerate() {
        metrics.unrecorded(reason);
        let counted: Vec<u64> = metrics.refusals.iter().map(prometheus::IntCounter::get).collect();
        let expected: Vec<u64> = (0..Reason::ALL.len()).map(|other| u64::from(other <= index)).collect();
        assert_eq!(counted, expected, "{reason}");
    }
}
