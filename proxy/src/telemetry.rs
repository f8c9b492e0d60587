//! What the operator sees of a running proxy beside its log and its records.

use std::time::Duration;

use keyferry_dial::OwnListeners;

use crate::audit::Entry;
use crate::metrics::Metrics;
use crate::otlp::{Ended, Otlp, OtlpError, OtlpSettings, Told};
use crate::trace::{Sampler, Trace, TunnelSpan};

/// Shared by everything that has something to tell.
#[derive(Debug)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Metrics,
    otlp: Option<Otlp>,
}

impl Telemetry {
    pub(crate) fn start(settings: Option<&OtlpSettings>, own: &OwnListeners) -> Result<Self, OtlpError> {
        let metrics = Metrics::new();
        let otlp = settings.map(|settings| Otlp::start(settings, own, &metrics.otlp)).transpose()?;
        Ok(Self { metrics, otlp })
    }

    /// Which traces are told; none where no traces are.
    pub(crate) fn sampler(&self) -> Option<&Sampler> {
        self.otlp.as_ref()?.sampler()
    }

    /// A request has ended, and this is its record.
    pub(crate) fn ended(&self, entry: &Entry, trace: Option<Box<Trace>>) {
        self.metrics.ended(entry);
        if let Some(otlp) = &self.otlp {
            otlp.ended(Ended { entry: entry.clone(), trace });
        }
    }

    pub(crate) fn tunnel_ended(&self, span: &TunnelSpan) {
        if let Some(otlp) = &self.otlp {
            otlp.told(Told::Tunnel(Box::new(span.clone())));
        }
    }

    /// Sends what is left to tell, at most for `limit`.
    pub(crate) async fn finish(&self, limit: Duration) {
        if let Some(otlp) = &self.otlp {
            otlp.finish(limit).await;
        }
    }
}
