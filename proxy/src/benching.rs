//! What a request costs beside its way, for `benches/` and nobody else: built with the feature `benching` alone.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use keyferry_config::document::{self, OnFull};
use keyferry_config::policy::{Destination, Location, Scheme};
use keyferry_contract::audit::{Action, Message};
use keyferry_dial::OwnListeners;
use smallvec::smallvec;

use crate::audit::{
    Audit, AuditTarget, Entry, Mode, Outcome, Recorder, RequestIds, SecretTrace, Target, Writer,
};
use crate::data_plane::Protocol;
use crate::otlp::OtlpSettings;
use crate::telemetry::Telemetry;
use crate::trace;

/// Requests as their records, their metrics and their traces see them: they go nowhere, and each is answered at once.
#[derive(Debug)]
pub struct Requests {
    telemetry: Arc<Telemetry>,
    audit: Audit,
    ids: RequestIds,
    entry: Entry,
    client: Option<HeaderValue>,
    _writer: Writer,
}

impl Requests {
    /// Records go to `/dev/null`, and to a collector where there is one. `client`: the `traceparent` that each comes with.
    ///
    /// # Panics
    /// When `/dev/null` cannot be written, or the collector's address is none.
    pub fn new(otlp: Option<&OtlpSettings>, client: Option<HeaderValue>) -> Self {
        let telemetry = Telemetry::start(otlp, &OwnListeners::default()).expect("a collector's address");
        let target = AuditTarget::File(PathBuf::from("/dev/null"));
        let (audit, _writer) = Writer::start(&target).expect("/dev/null");
        // The writer may be slower than requests that go nowhere.
        audit.apply(&document::Audit { on_full: OnFull::Sample, ..document::Audit::default() });
        let ids = RequestIds::new();
        let entry = entry(&ids);
        Self { telemetry: Arc::new(telemetry), audit, ids, entry, client, _writer }
    }

    /// One of them, from its head to its record.
    pub fn one(&self) {
        let mut headers = HeaderMap::new();
        headers
            .extend(self.client.clone().map(|client| (http::HeaderName::from_static("traceparent"), client)));
        let Some(permit) = self.audit.reserve() else { return };
        let mut entry = self.entry.clone();
        (entry.id, entry.began) = (self.ids.next(), SystemTime::now());
        let mut recorder = Recorder::new(entry, permit, Arc::clone(&self.telemetry));
        recorder.under_way();
        let (sampler, started) = (self.telemetry.sampler(), recorder.started());
        recorder.traced(trace::begin(&mut headers, false, sampler, None, started));
        if let Some(trace) = recorder.trace() {
            (trace.decided, trace.answered) = (Some(Instant::now()), Some(Instant::now()));
        }
        recorder.finish();
    }
}

/// With one secret swapped, in a tunnel.
fn entry(ids: &RequestIds) -> Entry {
    let host = "api.bench.localhost".parse().expect("a name");
    let destination = Destination { scheme: Scheme::Https, host, port: 8443 };
    let outcome = Outcome::Swapped(smallvec![Location::Header(http::header::AUTHORIZATION)]);
    Entry {
        id: ids.next(),
        began: SystemTime::now(),
        duration: Duration::ZERO,
        message: Message::Request,
        action: Action::Allow,
        principal: "local".into(),
        sandbox: None,
        generation: 1,
        target: Target::Destination(Arc::new(destination)),
        method: Some(Method::GET),
        path: Some(PathAndQuery::from_static("/v1/messages")),
        mode: Mode::Mitm,
        sni: Some("api.bench.localhost".into()),
        reason: None,
        error: None,
        rule: None,
        warned: false,
        status: Some(200),
        retried: false,
        bytes_in: 0,
        bytes_out: 1024,
        upstream: Some(((Ipv4Addr::LOCALHOST, 8443).into(), Protocol::H1)),
        remote: Some((Ipv4Addr::LOCALHOST, 50812).into()),
        client_protocol: Some(Protocol::H1),
        tunnel: Some("api.bench.localhost:8443".into()),
        secrets: smallvec![SecretTrace { secret: "BENCH_API_KEY".into(), outcome }],
        foreign: None,
        redacted: 0,
        trace_id: None,
    }
}
