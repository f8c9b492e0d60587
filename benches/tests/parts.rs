//! The parts of the bench with each other: a load that counts what it should not would make every figure a lie.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use keyferry_benches::authority::Authority;
use keyferry_benches::load::{self, Outcome, Shape};
use keyferry_benches::tls::Protocol;
use keyferry_benches::{upstream, yardstick};
use tempfile::TempDir;

const CREDENTIAL: &str = "the-real-one";

struct Bench {
    folder: TempDir,
    h1: u16,
    h2: u16,
    yardstick: u16,
}

impl Bench {
    /// An upstream and a yardstick before it, in this process.
    async fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let (authority, pair) = Authority::make(folder.path(), "upstream-ca").expect("an authority");
        let server = authority.issue(folder.path(), "upstream", "*.bench.localhost").expect("a certificate");
        let (_, peer) = Authority::make(folder.path(), "peer").expect("an authority");
        let [h1, h2, port] = [(); 3].map(|()| free_port());
        tokio::spawn(upstream::serve(upstream::Options {
            h1_port: h1,
            h2_port: h2,
            certificate: server.certificate,
            key: server.key,
            credential: CREDENTIAL.to_owned(),
        }));
        tokio::spawn(yardstick::serve(yardstick::Options {
            port,
            certificate: peer.certificate,
            key: peer.key,
            upstream_ca: pair.certificate,
            socket: None,
        }));
        for port in [h1, h2, port] {
            while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
        Self { folder, h1, h2, yardstick: port }
    }

    fn load(&self) -> load::Options {
        load::Options {
            proxy: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, self.yardstick))),
            roots: vec![self.file("peer.crt")],
            host: "api.bench.localhost".to_owned(),
            port: self.h1,
            path: "/v1/models".to_owned(),
            authorization: Some(format!("Bearer {CREDENTIAL}")),
            body: None,
            upload: None,
            protocol: Protocol::H1,
            shape: Shape::KeepAlive,
            connections: 2,
            streams: 1,
            warm_up: 50,
            duration: 200,
            watch: None,
            beside: None,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn answered(outcome: &Outcome) {
    assert!(outcome.requests > 0 && outcome.p50 > 0 && outcome.p50 <= outcome.p99, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_of_load_is_answered_through_the_yardstick_and_without() {
    let bench = Bench::start().await;
    let direct =
        |options| load::Options { proxy: None, roots: vec![bench.file("upstream-ca.crt")], ..options };
    for shape in [Shape::KeepAlive, Shape::Tunnel, Shape::Idle] {
        let options = load::Options { shape, ..bench.load() };
        answered(&load::run(options.clone()).await.unwrap());
        answered(&load::run(direct(options)).await.unwrap());
    }
    let cold = load::Options {
        shape: Shape::Cold,
        host: "*.bench.localhost".to_owned(),
        path: "/open".to_owned(),
        ..bench.load()
    };
    answered(&load::run(cold).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_http_pass_on_both_sides() {
    let bench = Bench::start().await;
    for (protocol, port) in [(Protocol::H1, bench.h2), (Protocol::H2, bench.h1), (Protocol::H2, bench.h2)] {
        let streams = if protocol == Protocol::H2 { 4 } else { 1 };
        answered(&load::run(load::Options { protocol, port, streams, ..bench.load() }).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_count_in_both_directions() {
    let bench = Bench::start().await;
    let download = load::Options { path: "/bytes/1000000".to_owned(), ..bench.load() };
    let upload = load::Options { path: "/sink".to_owned(), upload: Some(1_000_000), ..bench.load() };
    for options in [download, upload] {
        let outcome = load::run(options).await.unwrap();
        assert!(outcome.bytes > 1_000_000, "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_not_answered_well_fails_the_run() {
    let bench = Bench::start().await;
    let stranger = load::Options { authorization: Some("Bearer kf_placeholder".to_owned()), ..bench.load() };
    let said = load::run(stranger).await.unwrap_err().to_string();
    assert!(said.contains("401"), "{said}");
    let lost = load::Options { path: "/nowhere".to_owned(), ..bench.load() };
    let said = load::run(lost).await.unwrap_err().to_string();
    assert!(said.contains("404"), "{said}");
    let nobody =
        load::Options { proxy: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))), ..bench.load() };
    let said = load::run(nobody).await.unwrap_err().to_string();
    assert!(said.contains("cannot be connected to"), "{said}");
    let unknown = load::Options { roots: vec![bench.file("upstream-ca.crt")], ..bench.load() };
    let said = load::run(unknown).await.unwrap_err().to_string();
    assert!(said.contains("TLS handshake failed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstream_wants_the_credential_in_a_swapped_body() {
    let bench = Bench::start().await;
    for (name, body, works) in
        [("real.json", format!(r#"{{"key":"{CREDENTIAL}"}}"#), true), ("not.json", "{}".to_owned(), false)]
    {
        std::fs::write(bench.file(name), body).unwrap();
        let options =
            load::Options { path: "/swap".to_owned(), body: Some(bench.file(name)), ..bench.load() };
        assert_eq!(load::run(options).await.is_ok(), works, "{name}");
    }
}
