//! A proxy of the shipping kind beside the streams: how long until it enforces what was changed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry_config::document::{Document, Options, parse};
use keyferry_control::Server;
use keyferry_dial::ServiceUrl;
use keyferry_proxy::tls::{Authority, NewAuthority};
use keyferry_proxy::{Configuration, ManagedOptions, Proxy, Settings};
use keyferry_source::Environment;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{CHANGES, Service, row};

/// A principal and how a sandbox of it shows who it is.
pub(crate) struct Served {
    pub(crate) principal: Value,
    credentials: String,
}

impl Served {
    pub(crate) async fn new(service: &Service, principal: Value) -> Self {
        let sandbox = service.make("sandboxes", json!({ "name": "x", "principal_id": principal })).await;
        let text = |key: &str| sandbox[key].as_str().expect("it is shown once").to_owned();
        let credentials = STANDARD.encode(format!("{}:{}", text("id"), text("token")));
        Self { principal, credentials }
    }
}

/// Starts one in this process, with the policies of all that are served.
pub(crate) async fn start(service: &Service, folder: &Path, token: &str) -> (Proxy, SocketAddr) {
    let socket = folder.join("control.sock");
    let server = Server::open_for_owner(&socket).expect("a socket");
    tokio::spawn(server.run(service.router.clone(), std::future::pending()));
    let made =
        Authority::generate(&NewAuthority { name: "bench".to_owned(), days: 1 }).expect("an authority");
    let file = |name: &str| folder.join(name).display().to_string();
    std::fs::write(file("ca.crt"), made.certificate.as_bytes()).expect("written");
    std::fs::write(file("ca.key"), made.key.as_bytes()).expect("written");
    let text = format!(
        "proxy: {{ tunnel_listen: \"127.0.0.1:0\" }}\ntls: {{ ca_cert: {}, ca_key: {} }}\n\
         audit: {{ sink: file, path: {} }}\n",
        file("ca.crt"),
        file("ca.key"),
        file("audit.jsonl")
    );
    let loaded = parse("bench", &text, &|_| None, Options::default()).expect("a document");
    let managed = ManagedOptions {
        control: ServiceUrl::socket(socket),
        token: token.to_owned().into(),
        kept: None,
        address: None,
        sandbox_sockets: None,
    };
    let settings = Settings {
        document: loaded.document,
        configuration: Arc::new(Unchanging),
        environment: Environment::new(|_| None),
        managed: Some(managed),
        otlp: None,
    };
    let proxy = Proxy::start(settings).await.expect("it starts");
    proxy.has_policy().await;
    let address = proxy.tunnel_addresses().await[0];
    (proxy, address)
}

/// Grants a secret to one after the other, and takes it back: until its sandbox has a tunnel, until that tunnel is closed.
pub(crate) async fn grant_and_revoke(
    service: &Service,
    proxy: SocketAddr,
    served: &[Served],
    secret: &Value,
) {
    let (mut granted, mut revoked) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let Served { principal, credentials } = &served[(n * 11) % served.len()];
        let began = Instant::now();
        let grant = json!({ "principal_id": principal, "static_secret_id": secret });
        let grant = service.make("grants", grant).await["id"].clone();
        let mut tunnel = loop {
            if let Some(tunnel) = tunnel(proxy, credentials).await {
                break tunnel;
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        };
        granted.push(began.elapsed());
        let began = Instant::now();
        let path = format!("/api/v1/grants/{}", grant.as_str().expect("an id"));
        service.call(&service.key, "DELETE", &path, None).await;
        // Whether it ends or is reset
        let _ = tunnel.read_to_end(&mut Vec::new()).await;
        revoked.push(began.elapsed());
    }
    row("grant to a tunnel through a proxy", granted);
    row("revocation to that tunnel closed", revoked);
}

async fn tunnel(proxy: SocketAddr, credentials: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    let request = format!(
        "CONNECT extra.test:443 HTTP/1.1\r\nHost: extra.test:443\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    match head.get(9..12) {
        Some(b"200") => Some(stream),
        Some(b"403") => None,
        _ => panic!("{}", String::from_utf8_lossy(&head)),
    }
}

#[derive(Debug)]
struct Unchanging;

impl Configuration for Unchanging {
    fn load(&self) -> Result<Document, String> {
        Err("it stays as it is".to_owned())
    }

    fn applied(&self, _: &Document) {}
}
