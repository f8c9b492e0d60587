//! Tunnels and requests as spans: a tunnel, in it its requests, in each of them its phases. Names of attributes are OpenTelemetry's for HTTP where it
//! has one. No header, query or body is ever among them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use keyferry_config::policy::Host;
use keyferry_contract::audit::Action;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::queue::{Ended, Signal};
use super::value::{self, nanoseconds, number, seconds, text};
use crate::audit::{Entry, Target};
use crate::data_plane::Protocol;
use crate::trace::{Context, SpanId, Trace, TunnelSpan, span_id};
use crate::upstream::Dialled;

const SCOPE: &str = "keyferry";

/// What becomes spans.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Request(Box<Ended>),
    Tunnel(Box<TunnelSpan>),
}

impl Signal for Told {
    const NAME: &'static str = "traces";

    fn request(resource: &Arc<Resource>, batch: &[Self]) -> Vec<u8> {
        let mut spans = Vec::new();
        for told in batch {
            match told {
                Self::Tunnel(tunnel) => spans.push(of_tunnel(tunnel)),
                Self::Request(ended) => {
                    if let Some(trace) = &ended.trace {
                        of_request(&ended.entry, trace, &mut spans);
                    }
                }
            }
        }
        let scope_spans = vec![ScopeSpans { scope: value::scope(SCOPE), spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans {
            resource: Some(Resource::clone(resource)),
            scope_spans,
            ..ResourceSpans::default()
        }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    fn rejected(response: &[u8]) -> Option<(u64, String)> {
        let partial = ExportTraceServiceResponse::decode(response).ok()?.partial_success?;
        Some((u64::try_from(partial.rejected_spans).unwrap_or(0), partial.error_message))
    }
}

fn of_tunnel(tunnel: &TunnelSpan) -> Span {
    let clock = Clock { began: tunnel.began, started: tunnel.started };
    Span {
        attributes: vec![
            text("http.request.method", "CONNECT"),
            text("keyferry.tunnel.target", &*tunnel.target),
            text("keyferry.principal", &*tunnel.principal),
        ],
        ..span(
            "CONNECT",
            SpanKind::Server,
            tunnel.context,
            tunnel.context.span,
            tunnel.parent,
            clock,
            tunnel.started,
            tunnel.ended,
        )
    }
}

fn of_request(entry: &Entry, trace: &Trace, spans: &mut Vec<Span>) {
    let clock = Clock { began: entry.began, started: trace.started };
    let ended = trace.started + entry.duration;
    let status = (entry.action == Action::Error).then(|| Status {
        code: StatusCode::Error.into(),
        message: entry.reason.map(|reason| reason.code().to_owned()).unwrap_or_default(),
    });
    let links = trace.tunnel.into_iter().map(link).collect();
    let (context, own) = (trace.context, trace.context.span);
    spans.push(Span {
        attributes: attributes(entry),
        links,
        status,
        ..span(method(entry), SpanKind::Server, context, own, trace.parent, clock, trace.started, ended)
    });
    let mut phase = |name, kind, from, to, attributes| {
        let span = span(name, kind, context, span_id(), Some(own), clock, from, to);
        spans.push(Span { attributes, ..span });
    };
    let decided = trace.decided.unwrap_or(ended);
    phase("policy", SpanKind::Internal, trace.started, decided, Vec::new());
    if let Some(dialled) = &trace.dialled {
        phase("upstream connect", SpanKind::Client, dialled.began, dialled.ended, phases(dialled));
    }
    if let Some(answered) = trace.answered {
        let sent = trace.dialled.as_ref().map_or(decided, |dialled| dialled.ended);
        phase("upstream request", SpanKind::Client, sent, answered, Vec::new());
        phase("response", SpanKind::Internal, answered, ended, Vec::new());
    }
}

/// A name that few requests have is no name for a span.
fn method(entry: &Entry) -> &str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    entry.method.as_ref().filter(|method| KNOWN.contains(method)).map_or("HTTP", Method::as_str)
}

fn attributes(entry: &Entry) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("keyferry.request_id", entry.id.to_string()),
        text("keyferry.principal", &*entry.principal),
        number("http.request.body.size", entry.bytes_in),
        number("http.response.body.size", entry.bytes_out),
        number("keyferry.generation", entry.generation),
    ];
    if let Some(remote) = entry.remote {
        attributes.push(text("client.address", remote.ip().to_string()));
        attributes.push(number("client.port", remote.port()));
    }
    let name = match method(entry) {
        "HTTP" => "_OTHER",
        known => known,
    };
    attributes.push(text("http.request.method", name));
    let (host, port) = match &entry.target {
        Target::Unknown => (None, None),
        Target::Tunnel(host, port) => (Some(host), Some(*port)),
        Target::Destination(to) => {
            attributes.push(text("url.scheme", to.scheme.as_str()));
            (Some(&to.host), Some(to.port))
        }
    };
    attributes.extend(host.map(|host| match host {
        Host::Name(name) => text("server.address", name.as_str()),
        Host::Ip(ip) => text("server.address", ip.to_string()),
    }));
    attributes.extend(port.map(|port| number("server.port", port)));
    attributes.extend(entry.path.as_ref().map(|path| text("url.path", path.path())));
    attributes.extend(entry.status.map(|status| number("http.response.status_code", status)));
    attributes.extend(entry.reason.map(|reason| text("error.type", reason.code())));
    attributes.extend(entry.rule.as_ref().map(|rule| text("keyferry.rule", rule.as_str())));
    attributes.extend(entry.client_protocol.map(|protocol| {
        let version = match protocol {
            Protocol::H1 => "1.1",
            Protocol::H2 => "2",
        };
        text("network.protocol.version", version)
    }));
    if let Some((address, _)) = entry.upstream {
        attributes.push(text("network.peer.address", address.ip().to_string()));
        attributes.push(number("network.peer.port", address.port()));
    }
    attributes
}

fn phases(dialled: &Dialled) -> Vec<KeyValue> {
    let timed = |key, took: Option<Duration>| took.map(|took| seconds(key, took.as_secs_f64()));
    let phases = [
        timed("keyferry.dns.seconds", dialled.dns),
        timed("keyferry.connect.seconds", Some(dialled.connect)),
        timed("keyferry.tls.seconds", dialled.tls),
    ];
    phases.into_iter().flatten().collect()
}

/// What a monotonic time is on the wall.
#[derive(Clone, Copy)]
struct Clock {
    began: SystemTime,
    started: Instant,
}

impl Clock {
    fn at(self, instant: Instant) -> u64 {
        nanoseconds(self.began + instant.saturating_duration_since(self.started))
    }
}

#[expect(clippy::too_many_arguments, reason = "what every span has")]
fn span(
    name: &str,
    kind: SpanKind,
    context: Context,
    own: SpanId,
    parent: Option<SpanId>,
    clock: Clock,
    from: Instant,
    to: Instant,
) -> Span {
    Span {
        trace_id: context.trace.0.to_vec(),
        span_id: own.0.to_vec(),
        parent_span_id: parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        flags: u32::from(context.sampled),
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: clock.at(from),
        end_time_unix_nano: clock.at(to.max(from)),
        ..Span::default()
    }
}

fn link(to: Context) -> Link {
    Link {
        trace_id: to.trace.0.to_vec(),
        span_id: to.span.0.to_vec(),
        flags: u32::from(to.sampled),
        ..Link::default()
    }
}
