//! What a running proxy counts.
//!
//! Every handle is resolved when the process starts, so that a request only adds to atomics: no look-up by label, no lock, no allocation. Labels
//! are ours alone, never a host, path, principal or header that a sandbox chose: what it sends cannot grow the page (T46, T78).
//!
//! `prometheus` and not `prometheus-client` or `metrics`: its histograms are atomics (the others lock, or keep every observation until somebody
//! asks), and it writes the text format that every scraper reads.

mod scrape;

use std::time::Duration;

use keyferry_config::policy::Reason;
use keyferry_contract::audit::Action;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::audit::{Entry, Outcome};
use crate::upstream::Phase;

pub(crate) use scrape::{CONTENT_TYPE, scrape};

/// From a tenth of a millisecond to the five minutes that a model may think.
const SECONDS: [f64; 16] =
    [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// All of it.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// One page at a time: what is read when it is asked for stands still while it is written.
    scraping: std::sync::Mutex<()>,
    requests: ByAction,
    /// By the number of the reason.
    refusals: Box<[IntCounter]>,
    request_seconds: Histogram,
    swaps: IntCounter,
    injections: IntCounter,
    redactions: IntCounter,
    bytes_in: IntCounter,
    bytes_out: IntCounter,
    pub(crate) requests_active: IntGauge,
    tunnels_active: IntGauge,
    websockets_active: IntGauge,
    pub(crate) connections: Connections,
    pub(crate) handshakes: Handshakes,
    pub(crate) leafs: LeafCounters,
    pub(crate) pool: PoolCounters,
    phases: ByPhase<Histogram>,
    failures: ByPhase<IntCounter>,
    pub(crate) reloads: Reloads,
    pub(crate) audit_dropped: IntCounter,
    pub(crate) otlp: OtlpCounters,
    /// What is looked up when the page is asked for.
    seen: Seen,
}

/// Requests by what became of them.
#[derive(Debug)]
struct ByAction {
    forwarded: IntCounter,
    refused: IntCounter,
    failed: IntCounter,
    aborted: IntCounter,
}

/// Connections, by listener and by what became of them.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) accepted: IntCounter,
    /// Over a limit, and told so.
    pub(crate) refused: IntCounter,
    /// Over a limit, and closed without a word.
    pub(crate) dropped: IntCounter,
    pub(crate) metrics: IntCounter,
    pub(crate) management: IntCounter,
}

/// TLS with clients, and sessions resumed on both sides.
#[derive(Debug)]
pub(crate) struct Handshakes {
    pub(crate) ok: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) client_resumed: IntCounter,
    pub(crate) upstream_resumed: IntCounter,
}

/// Leaf certificates.
#[derive(Clone, Debug)]
pub(crate) struct LeafCounters {
    pub(crate) mints: IntCounter,
    pub(crate) hits: IntCounter,
}

/// Connections to upstreams.
#[derive(Debug)]
pub(crate) struct PoolCounters {
    pub(crate) hits: IntCounter,
    pub(crate) misses: IntCounter,
    pub(crate) evictions: IntCounter,
}

/// Documents read again.
#[derive(Debug)]
pub(crate) struct Reloads {
    pub(crate) ok: IntCounter,
    pub(crate) failed: IntCounter,
}

/// What is sent to an OpenTelemetry collector.
#[derive(Debug)]
pub(crate) struct OtlpCounters {
    pub(crate) logs: OtlpSignal,
    pub(crate) spans: OtlpSignal,
}

/// One kind of it.
#[derive(Clone, Debug)]
pub(crate) struct OtlpSignal {
    pub(crate) sent: IntCounter,
    /// The queue was full, or the collector did not take it.
    pub(crate) dropped: IntCounter,
}

#[derive(Debug)]
struct Seen {
    generation: IntGauge,
    applied: IntGauge,
    attempted: IntGauge,
    connections_open: IntGauge,
    pool_idle: IntGauge,
    fetches_ok: IntCounter,
    fetches_failed: IntCounter,
    audit_queue: IntGauge,
    audit_capacity: IntGauge,
    audit_stalls: IntCounter,
    audit_sampled: IntCounter,
    audit_rotation_failures: IntCounter,
    audit_failing: IntGauge,
}

#[derive(Debug)]
struct ByPhase<T> {
    dns: T,
    connect: T,
    tls: T,
    header: T,
}

/// Something that is going on until this is dropped.
#[derive(Debug)]
pub(crate) struct Active(IntGauge);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let make = Maker(Registry::new());
        let requests = make.counters(
            "keyferry_requests_total",
            "Requests that have ended, each with its audit record, and those refused because none could be written",
            "outcome",
            ["forwarded", "refused", "failed", "aborted"],
        );
        let reasons = make.counter_vec(
            "keyferry_refusals_total",
            "Requests that were refused or failed, by the code of the reason",
            &["reason"],
        );
        let connections = make.counter_vec(
            "keyferry_connections_total",
            "Connections to our listeners: accepted, refused at a limit with an answer, or dropped at a limit without one",
            &["listener", "result"],
        );
        let phases = make.histogram_vec(
            "keyferry_upstream_phase_seconds",
            "How long the name, the connection, TLS and the head of the response took where they came about; `header` counts from the request's beginning, or from the end of dialling where that was needed",
            "phase",
        );
        let [forwarded, refused, failed, aborted] = requests;
        let [handshake_ok, handshake_failed] = make.counters(
            "keyferry_tls_handshakes_total",
            "TLS handshakes with clients",
            "result",
            ["ok", "failed"],
        );
        let [client_resumed, upstream_resumed] = make.counters(
            "keyferry_tls_resumptions_total",
            "TLS handshakes that took up an earlier session",
            "side",
            ["client", "upstream"],
        );
        let failures = make.counters(
            "keyferry_upstream_failures_total",
            "Upstreams that failed or were too slow, by how far the request had come",
            "phase",
            ["dns", "connect", "tls", "header"],
        );
        let [reload_ok, reload_failed] = make.counters(
            "keyferry_config_reloads_total",
            "Attempts to put another configuration in force",
            "result",
            ["ok", "failed"],
        );
        let [fetches_ok, fetches_failed] = make.counters(
            "keyferry_secret_fetches_total",
            "Values asked for at their sources",
            "result",
            ["ok", "failed"],
        );
        let [logs_sent, spans_sent] = make.counters(
            "keyferry_otlp_sent_total",
            "Log records and spans that the OpenTelemetry collector has taken",
            "signal",
            ["logs", "traces"],
        );
        let [logs_dropped, spans_dropped] = make.counters(
            "keyferry_otlp_dropped_total",
            "Log records and spans that the OpenTelemetry collector has not taken: it is down, refuses them, or is too slow",
            "signal",
            ["logs", "traces"],
        );
        make.build_info();
        make.registered(ProcessCollector::for_self());
        Self {
            requests: ByAction { forwarded, refused, failed, aborted },
            refusals: Reason::ALL.iter().map(|reason| reasons.with_label_values(&[reason.code()])).collect(),
            request_seconds: make.histogram(
                "keyferry_request_seconds",
                "From the head of a request to the end of its response",
            ),
            swaps: make.counter("keyferry_swaps_total", "Places in requests where a placeholder became a value"),
            injections: make.counter("keyferry_injections_total", "Values that were set in requests"),
            redactions: make
                .counter("keyferry_redactions_total", "Values that were taken out of responses"),
            bytes_in: make.counter("keyferry_request_bytes_total", "Bytes of request bodies, as clients sent them"),
            bytes_out: make.counter("keyferry_response_bytes_total", "Bytes of response bodies, as clients were sent them"),
            requests_active: make
                .gauge("keyferry_requests_active", "Requests under way, WebSockets among them"),
            tunnels_active: make.gauge("keyferry_tunnels_active", "Tunnels that are open"),
            websockets_active: make.gauge("keyferry_websockets_active", "WebSockets that are open"),
            connections: Connections {
                accepted: connections.with_label_values(&["tunnel", "accepted"]),
                refused: connections.with_label_values(&["tunnel", "refused"]),
                dropped: connections.with_label_values(&["tunnel", "dropped"]),
                metrics: connections.with_label_values(&["metrics", "accepted"]),
                management: connections.with_label_values(&["management", "accepted"]),
            },
            handshakes: Handshakes {
                ok: handshake_ok,
                failed: handshake_failed,
                client_resumed,
                upstream_resumed,
            },
            leafs: LeafCounters {
                mints: make.counter("keyferry_leaf_mints_total", "Leaf certificates that were made"),
                hits: make.counter("keyferry_leaf_cache_hits_total", "Leaf certificates that were there already"),
            },
            pool: PoolCounters {
                hits: make
                    .counter("keyferry_pool_hits_total", "Times that a request got a kept connection"),
                misses: make
                    .counter("keyferry_pool_misses_total", "Times that a connection was made for a request"),
                evictions: make.counter(
                    "keyferry_pool_evictions_total",
                    "Kept connections that were given up: idle for too long, one too many, or found dead",
                ),
            },
            phases: ByPhase::of(["dns", "connect", "tls", "header"].map(|phase| phases.with_label_values(&[phase]))),
            failures: ByPhase::of(failures),
            reloads: Reloads { ok: reload_ok, failed: reload_failed },
            audit_dropped: make.counter(
                "keyferry_audit_dropped_total",
                "Lines that the audit log goes without because its queue was full: announcements of long exchanges",
            ),
            otlp: OtlpCounters {
                logs: OtlpSignal { sent: logs_sent, dropped: logs_dropped },
                spans: OtlpSignal { sent: spans_sent, dropped: spans_dropped },
            },
            seen: Seen {
                generation: make.gauge("keyferry_policy_generation", "The generation of the policy that is in force"),
                applied: make.gauge(
                    "keyferry_config_applied_timestamp_seconds",
                    "When the configuration came into force, in seconds since 1970",
                ),
                attempted: make.gauge(
                    "keyferry_config_attempt_timestamp_seconds",
                    "When a configuration was last read, in seconds since 1970",
                ),
                connections_open: make
                    .gauge("keyferry_connections_open", "Connections of clients to the tunnel listener"),
                pool_idle: make.gauge(
                    "keyferry_pool_idle",
                    "Connections to upstreams that wait for a request, or can take one more",
                ),
                fetches_ok,
                fetches_failed,
                audit_queue: make.gauge(
                    "keyferry_audit_queue",
                    "Places in the audit queue that are taken, by requests under way and by records to be written",
                ),
                audit_capacity: make.gauge("keyferry_audit_queue_capacity", "Places in the audit queue"),
                audit_stalls: make
                    .counter("keyferry_audit_stalls_total", "Times that the audit sink began to fail"),
                audit_sampled: make.counter(
                    "keyferry_audit_sampled_total",
                    "Records that the audit log goes without because `audit.on_full` is `sample`",
                ),
                audit_rotation_failures: make.counter(
                    "keyferry_audit_rotation_failures_total",
                    "Times that the audit file could not give way to a new one",
                ),
                audit_failing: make
                    .gauge("keyferry_audit_failing", "1 while the audit sink fails or its queue is full"),
            },
            registry: make.0,
            scraping: std::sync::Mutex::default(),
        }
    }

    /// A request has ended, as its record says.
    pub(crate) fn ended(&self, entry: &Entry) {
        match entry.action {
            Action::Allow => &self.requests.forwarded,
            Action::Reject => &self.requests.refused,
            Action::Error => &self.requests.failed,
            Action::ClientCancel => &self.requests.aborted,
        }
        .inc();
        if let Some(reason) = entry.reason {
            self.refusals[reason as usize].inc();
        }
        self.request_seconds.observe(entry.duration.as_secs_f64());
        add(&self.bytes_in, entry.bytes_in);
        add(&self.bytes_out, entry.bytes_out);
        add(&self.redactions, entry.redacted);
        for trace in &entry.secrets {
            match &trace.outcome {
                Outcome::Swapped(locations) => self.swaps.inc_by(locations.len() as u64),
                Outcome::Injected(_) => self.injections.inc(),
                Outcome::Unavailable => {}
            }
        }
    }

    /// A request was refused that has no record.
    pub(crate) fn unrecorded(&self, reason: Reason) {
        self.requests.failed.inc();
        self.refusals[reason as usize].inc();
    }

    /// A phase on the way to an upstream is over.
    pub(crate) fn took(&self, phase: Phase, duration: Duration) {
        self.phases.get(phase).observe(duration.as_secs_f64());
    }

    /// An upstream failed in this phase.
    pub(crate) fn failed(&self, phase: Phase) {
        self.failures.get(phase).inc();
    }

    pub(crate) fn tunnel(&self) -> Active {
        active(&self.tunnels_active)
    }

    pub(crate) fn websocket(&self) -> Active {
        active(&self.websockets_active)
    }
}

fn active(gauge: &IntGauge) -> Active {
    gauge.inc();
    Active(gauge.clone())
}

/// Most requests have no body and nothing redacted.
fn add(counter: &IntCounter, count: u64) {
    if count > 0 {
        counter.inc_by(count);
    }
}

impl<T> ByPhase<T> {
    fn of([dns, connect, tls, header]: [T; 4]) -> Self {
        Self { dns, connect, tls, header }
    }

    fn get(&self, phase: Phase) -> &T {
        match phase {
            Phase::Dns => &self.dns,
            Phase::Connect => &self.connect,
            Phase::Tls => &self.tls,
            Phase::Header => &self.header,
        }
    }
}

/// Makes metrics and registers them. Names are constants and differ; the test of the page would not run otherwise.
struct Maker(Registry);

const VALID: &str = "the name and the labels are valid, and no other metric has them";

impl Maker {
    fn registered<C: Collector + 'static>(&self, collector: C) {
        self.0.register(Box::new(collector)).expect(VALID);
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(name, help).expect(VALID);
        self.registered(counter.clone());
        counter
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(name, help).expect(VALID);
        self.registered(gauge.clone());
        gauge
    }

    fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
        self.registered(counters.clone());
        counters
    }

    /// One counter for each value of the only label.
    fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: [&str; N],
    ) -> [IntCounter; N] {
        let counters = self.counter_vec(name, help, &[label]);
        values.map(|value| counters.with_label_values(&[value]))
    }

    fn histogram(&self, name: &str, help: &str) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let histogram = Histogram::with_opts(options).expect(VALID);
        self.registered(histogram.clone());
        histogram
    }

    fn histogram_vec(&self, name: &str, help: &str, label: &str) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let histograms = HistogramVec::new(options, &[label]).expect(VALID);
        self.registered(histograms.clone());
        histograms
    }

    fn build_info(&self) {
        let options = Opts::new("keyferry_build_info", "1, with the version of this program")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let gauge = IntGauge::with_opts(options).expect(VALID);
        gauge.set(1);
        self.registered(gauge);
    }
}

#[cfg(test)]
mod page;
