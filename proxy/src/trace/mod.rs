//! The trace that a request belongs to. The client's context is continued in ours; upstream goes neither, unless `proxy.propagate_trace` says so.

mod context;
mod sampler;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use aws_lc_rs::rand;
use http::HeaderMap;

pub(crate) use context::{Context, SpanId, TraceId};
use context::{TRACEPARENT, TRACESTATE};
pub use sampler::Sampler;

use crate::telemetry::Telemetry;
use crate::upstream::Dialled;

/// A request's span, while the request runs. There is one only where it will be told.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) context: Context,
    /// The client's span, or the tunnel's.
    pub(crate) parent: Option<SpanId>,
    /// The tunnel, where the client's span is the parent.
    pub(crate) tunnel: Option<Context>,
    pub(crate) started: Instant,
    /// The policy has allowed it.
    pub(crate) decided: Option<Instant>,
    pub(crate) dialled: Option<Dialled>,
    /// The head of the response is there.
    pub(crate) answered: Option<Instant>,
}

/// What a request's trace comes to.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    /// The client's, or ours where there is one.
    pub(crate) id: Option<TraceId>,
    pub(crate) trace: Option<Box<Trace>>,
}

/// Takes the trace out of a request's head, and puts in what is to go upstream.
pub(crate) fn begin(
    headers: &mut HeaderMap,
    propagate: bool,
    sampler: Option<&Sampler>,
    tunnel: Option<&Context>,
    started: Instant,
) -> Begun {
    let client = Context::of(headers);
    if !propagate {
        headers.remove(&TRACEPARENT);
        headers.remove(&TRACESTATE);
    }
    let Some(sampler) = sampler else {
        return Begun { id: client.map(|client| client.trace), trace: None };
    };
    let above = client.as_ref().or(tunnel);
    let context = continued(sampler, above);
    if propagate {
        headers.insert(TRACEPARENT, context.header());
        if client.is_none() {
            // It belongs to a context that is not valid (section 3.3.1.1).
            headers.remove(&TRACESTATE);
        }
    }
    let trace = context.sampled.then(|| {
        Box::new(Trace {
            context,
            parent: above.map(|above| above.span),
            tunnel: tunnel.filter(|_| client.is_some()).copied(),
            started,
            decided: None,
            dialled: None,
            answered: None,
        })
    });
    Begun { id: Some(context.trace), trace }
}

/// A tunnel's span. It is told when this is dropped.
#[derive(Debug)]
pub(crate) struct TunnelTrace {
    pub(crate) span: TunnelSpan,
    telemetry: Arc<Telemetry>,
}

/// What is told of it.
#[derive(Clone, Debug)]
pub(crate) struct TunnelSpan {
    pub(crate) context: Context,
    pub(crate) parent: Option<SpanId>,
    pub(crate) target: Arc<str>,
    pub(crate) principal: Arc<str>,
    pub(crate) began: SystemTime,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
}

impl TunnelTrace {
    /// None where no traces are told.
    pub(crate) fn begin(
        telemetry: &Arc<Telemetry>,
        client: Option<&Context>,
        target: &Arc<str>,
        principal: &Arc<str>,
    ) -> Option<Self> {
        let context = continued(telemetry.sampler()?, client);
        let started = Instant::now();
        let span = TunnelSpan {
            context,
            parent: client.map(|client| client.span),
            target: Arc::clone(target),
            principal: Arc::clone(principal),
            began: SystemTime::now(),
            started,
            ended: started,
        };
        Some(Self { span, telemetry: Arc::clone(telemetry) })
    }
}

impl Drop for TunnelTrace {
    fn drop(&mut self) {
        if self.span.context.sampled {
            self.span.ended = Instant::now();
            self.telemetry.tunnel_ended(&self.span);
        }
    }
}

fn continued(sampler: &Sampler, above: Option<&Context>) -> Context {
    let trace = above.map_or_else(|| TraceId(random()), |above| above.trace);
    Context { trace, span: span_id(), sampled: sampler.decide(above, trace) }
}

pub(crate) fn span_id() -> SpanId {
    SpanId(random())
}

/// Random bytes that are not all zeros.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // It cannot fail once the process has its seed; zeros are no id, a constant is an odd one.
    if rand::fill(&mut bytes).is_err() || bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

#[cfg(test)]
mod tests;
