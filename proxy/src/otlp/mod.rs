//! Audit records and spans for an OpenTelemetry collector, by OTLP over HTTP in protobuf.
//!
//! The messages are opentelemetry-proto's. The SDK's processors are not used: they read the environment by themselves, keep threads of their own, dial by
//! themselves, and drop in silence when the collector is slow; here what is dropped is counted, and everything that leaves goes through `dial`.

mod logs;
mod queue;
mod spans;
mod transport;
mod value;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};
use keyferry_dial::OwnListeners;
use opentelemetry_proto::tonic::resource::v1::Resource;

pub(crate) use queue::Ended;
use queue::Queue;
pub(crate) use spans::Told;
use transport::Transport;

use crate::metrics::OtlpCounters;
use crate::trace::Sampler;

/// What is told to a collector, and to which.
#[derive(Clone, Debug, Default)]
pub struct OtlpSettings {
    /// Audit records, as log records.
    pub logs: Option<OtlpEndpoint>,
    /// A span for each tunnel and request.
    pub traces: Option<OtlpEndpoint>,
    /// Which traces.
    pub sampler: Sampler,
    /// Attributes of the resource; `service.name` is among them.
    pub resource: Vec<(String, String)>,
}

/// Where one kind of signal goes.
#[derive(Clone, Debug)]
pub struct OtlpEndpoint {
    /// `http` or `https`, with a host and the whole path.
    pub url: Uri,
    /// Sent with every request; values are marked sensitive.
    pub headers: HeaderMap,
    /// How long one request may take.
    pub timeout: Duration,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// A PEM file with authorities beside the system's.
    pub certificate: Option<PathBuf>,
}

/// Why nothing could be told.
#[derive(Debug, thiserror::Error)]
#[error(
    "the OpenTelemetry collector cannot be spoken to: {0}\n  hint: see docs/observability.md, or set OTEL_SDK_DISABLED=true"
)]
pub struct OtlpError(pub(crate) String);

/// The running exporters.
#[derive(Debug)]
pub(crate) struct Otlp {
    logs: Option<Queue<Ended>>,
    spans: Option<Queue<Told>>,
    sampler: Sampler,
}

impl Otlp {
    /// Starts what the settings ask for. A collector that is down is found out later.
    pub(crate) fn start(
        settings: &OtlpSettings,
        own: &OwnListeners,
        counters: &OtlpCounters,
    ) -> Result<Self, OtlpError> {
        let resource = Arc::new(resource(settings));
        let transport = |endpoint: &OtlpEndpoint| Transport::new(endpoint.clone(), own.clone());
        let logs = settings.logs.as_ref().map(transport).transpose()?;
        let traces = settings.traces.as_ref().map(transport).transpose()?;
        let counted = |counters| (Arc::clone(&resource), Clone::clone(counters));
        Ok(Self {
            logs: logs.map(|transport| Queue::start(transport, counted(&counters.logs))),
            spans: traces.map(|transport| Queue::start(transport, counted(&counters.spans))),
            sampler: settings.sampler,
        })
    }

    /// None where no traces are told.
    pub(crate) fn sampler(&self) -> Option<&Sampler> {
        self.spans.is_some().then_some(&self.sampler)
    }

    /// A request has ended.
    pub(crate) fn ended(&self, ended: Ended) {
        match (&self.logs, &self.spans) {
            (logs, Some(spans)) if ended.trace.is_some() => {
                if let Some(logs) = logs {
                    logs.offer(ended.clone());
                }
                spans.offer(Told::Request(Box::new(ended)));
            }
            (Some(logs), _) => logs.offer(ended),
            (None, _) => {}
        }
    }

    pub(crate) fn told(&self, told: Told) {
        if let Some(spans) = &self.spans {
            spans.offer(told);
        }
    }

    /// Sends what is left, at most for `limit`.
    pub(crate) async fn finish(&self, limit: Duration) {
        let logs = async {
            if let Some(logs) = &self.logs {
                logs.finish(limit).await;
            }
        };
        let spans = async {
            if let Some(spans) = &self.spans {
                spans.finish(limit).await;
            }
        };
        tokio::join!(logs, spans);
    }
}

fn resource(settings: &OtlpSettings) -> Resource {
    let mut attributes: Vec<_> =
        settings.resource.iter().map(|(name, text)| value::text(name, text.as_str())).collect();
    if !settings.resource.iter().any(|(name, _)| name == "service.version") {
        attributes.push(value::text("service.version", env!("CARGO_PKG_VERSION")));
    }
    Resource { attributes, ..Resource::default() }
}
