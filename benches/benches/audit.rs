//! What an audit record costs the writer: as serde writes it, as it is written, and with its place in the chain.

use std::borrow::Cow;

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher};
use jiff::Timestamp;
use keyferry_config::policy::Location;
use keyferry_contract::audit::{
    Action, Annotations, Audit, Level, Message, Record, Renderer, RequestId, SecretUse, TransformTrace,
    Tunnel,
};
use keyferry_contract::chain::Head;
use smallvec::smallvec;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// The record of a request with one secret swapped.
fn record(locations: &[Location]) -> Record<'_> {
    Record {
        time: Timestamp::new(1_795_350_600, 125_873_991).expect("a time"),
        level: Level::Info,
        msg: Message::Request,
        audit: Audit {
            request_id: RequestId { process: 0x01a2_0354_4cd0_73b7, number: 6 },
            principal: "local".into(),
            sandbox: None,
            generation: 1,
            host: "api.bench.localhost".into(),
            port: Some(8443),
            scheme: Some("https".into()),
            method: "GET".into(),
            path: "/v1/messages".into(),
            sni: Some("api.bench.localhost".into()),
            mode: "mitm".into(),
            action: Action::Allow,
            reason: None,
            rule: Some("allowlist.rules[0]".into()),
            status_code: Some(200),
            duration_ms: 0.412,
            bytes_in: 0,
            bytes_out: 1024,
            upstream_addr: Some(([127, 0, 0, 1], 8443).into()),
            remote_addr: Some(([127, 0, 0, 1], 50812).into()),
            client_protocol: Some("h1".into()),
            upstream_protocol: Some("h1".into()),
            trace_id: None,
        },
        tunnel: Some(Tunnel { target: "api.bench.localhost:8443".into() }),
        rejected_by: None,
        error: None,
        retried: false,
        request_transforms: smallvec![TransformTrace {
            name: "secrets".into(),
            action: "allow".into(),
            annotations: Annotations {
                swapped: smallvec![SecretUse {
                    secret: "BENCH_API_KEY".into(),
                    locations: Cow::Borrowed(locations),
                }],
                ..Annotations::default()
            },
        }],
        response_transforms: Vec::new(),
    }
}

fn bench(bencher: Bencher<'_, '_>, mut write: impl FnMut(&Record<'_>, &mut Vec<u8>)) {
    let locations = [Location::Header(http::header::AUTHORIZATION)];
    let mut out = Vec::with_capacity(4096);
    write(&record(&locations), &mut out);
    bencher.counter(BytesCount::new(out.len())).bench_local(|| {
        out.clear();
        // Made for each, as the writer makes it of what a request left.
        write(&record(divan::black_box(&locations)), &mut out);
        out.len()
    });
}

#[divan::bench]
fn with_serde(bencher: Bencher<'_, '_>) {
    bench(bencher, |record, out| serde_json::to_writer(out, record).expect("a record is plain data"));
}

#[divan::bench]
fn as_it_is_written(bencher: Bencher<'_, '_>) {
    let mut renderer = Renderer::default();
    bench(bencher, |record, out| renderer.render(record, out));
}

#[divan::bench]
fn written_and_sealed(bencher: Bencher<'_, '_>) {
    let (mut renderer, mut head) = (Renderer::default(), Head::default());
    bench(bencher, |record, out| {
        renderer.render(record, out);
        head.seal(out, 0);
    });
}
