//! What a request costs in records, metrics and traces: with metrics alone, and told to a collector on loopback that takes everything.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use divan::{AllocProfiler, Bencher};
use http::{HeaderMap, HeaderValue};
use keyferry_proxy::benching::Requests;
use keyferry_proxy::{OtlpEndpoint, OtlpSettings, Sampler};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench]
fn record_and_metrics(bencher: Bencher<'_, '_>) {
    bench(bencher, None, None);
}

#[divan::bench]
fn told_as_log_records(bencher: Bencher<'_, '_>) {
    let settings = OtlpSettings { logs: Some(collector()), ..OtlpSettings::default() };
    bench(bencher, Some(settings), None);
}

#[divan::bench]
fn traced_and_not_sampled(bencher: Bencher<'_, '_>) {
    bench(bencher, Some(traces(0.0)), None);
}

#[divan::bench]
fn traced(bencher: Bencher<'_, '_>) {
    bench(bencher, Some(traces(1.0)), None);
}

#[divan::bench]
fn traced_in_the_clients_trace(bencher: Bencher<'_, '_>) {
    let client = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    bench(bencher, Some(traces(1.0)), Some(client));
}

fn bench(bencher: Bencher<'_, '_>, settings: Option<OtlpSettings>, client: Option<HeaderValue>) {
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let requests = Requests::new(settings.as_ref(), client);
    bencher.bench_local(|| requests.one());
}

fn traces(ratio: f64) -> OtlpSettings {
    let sampler = Sampler { ratio, ..Sampler::default() };
    OtlpSettings { traces: Some(collector()), sampler, ..OtlpSettings::default() }
}

/// Answers 200 to whatever it is sent.
fn collector() -> OtlpEndpoint {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                while take(&mut stream).is_some()
                    && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
                {
                }
            });
        }
    });
    OtlpEndpoint {
        url: format!("http://127.0.0.1:{port}/v1/signals").parse().expect("a URL"),
        headers: HeaderMap::new(),
        timeout: Duration::from_secs(10),
        gzip: false,
        certificate: None,
    }
}

/// Reads one request; none when there is no other.
fn take(stream: &mut impl Read) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    std::io::copy(&mut stream.take(length.unwrap_or(0)), &mut std::io::sink()).ok()?;
    Some(())
}
