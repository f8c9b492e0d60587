//! The clients.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::World;
use crate::raw_origin::RawConnection;
use crate::sandbox::Sandbox;
use crate::tunnel::{self, Hello};
use crate::{http1, parts};

/// Requests of one connection that is kept.
const KEPT: usize = 50;
/// No answer within this is a fault of the proxy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn spawn_all(world: &Arc<World>, clients: &mut JoinSet<()>) {
    for _ in 0..4 {
        clients.spawn(short_tunnels(Arc::clone(world)));
        clients.spawn(keep_alive(Arc::clone(world)));
    }
    for _ in 0..2 {
        clients.spawn(multiplexed(Arc::clone(world)));
        clients.spawn(dying_upstream(Arc::clone(world)));
    }
    clients.spawn(programs(Arc::clone(world)));
    clients.spawn(git(Arc::clone(world)));
    clients.spawn(web_socket(Arc::clone(world)));
}

/// The upstream that dies: before, in and after the head, and in the body.
pub(super) async fn die(mut connection: RawConnection) {
    let number = connection.head().len();
    match number % 4 {
        0 => {}
        1 => connection.send("HTTP/1.1 200 OK\r\nContent-Le").await,
        2 => connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf").await,
        _ => {
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
            connection.finish_sending().await;
            return;
        }
    }
    connection.reset();
}

/// A tunnel for each request.
async fn short_tunnels(world: Arc<World>) {
    let authority = world.api.authority();
    while !world.is_over() {
        if let Ok(mut stream) = open(&world, &authority, Hello::http1("api.example")).await {
            let _ = ask(&world, &mut stream, &authority, "").await;
            world.tunnels.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Tunnels with many requests each, with the secret that is revoked and granted.
async fn keep_alive(world: Arc<World>) {
    let authority = world.api.authority();
    while !world.is_over() {
        let Ok(mut stream) = open(&world, &authority, Hello::http1("api.example")).await else { continue };
        for _ in (0..KEPT).take_while(|_| !world.is_over()) {
            let fields = "Authorization: Bearer SERVICE_TOKEN\r\nX-Revoked: REVOKED_TOKEN\r\n";
            if ask(&world, &mut stream, &authority, fields).await.is_err() {
                break;
            }
            // A steady load rather than the most: this is about what is left, not about speed.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// HTTP/2: several requests at once on one connection, some given up by the client.
async fn multiplexed(world: Arc<World>) {
    let authority = world.api.authority();
    while !world.is_over() {
        let Ok(stream) = open(&world, &authority, Hello::http2("api.example")).await else { continue };
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let Ok((sender, connection)) = handshake else { continue };
        let connection = tokio::spawn(connection);
        let mut requests = JoinSet::new();
        for nth in 0..KEPT {
            let (number, path) = world.ledger.send();
            let request = Request::post(format!("https://{authority}{path}"))
                .header(header::AUTHORIZATION, "Bearer SERVICE_TOKEN")
                .body(Full::new(Bytes::from_static(b"some body")));
            let (mut sender, world) = (sender.clone(), Arc::clone(&world));
            requests.spawn(async move {
                let asking = async {
                    let response = sender.send_request(request.expect("a request")).await.ok()?;
                    response.into_body().collect().await.ok()
                };
                // Every eighth is given up.
                let patience = if nth % 8 == 7 { Duration::from_millis(1) } else { PATIENCE };
                if let Ok(Some(_)) = tokio::time::timeout(patience, asking).await {
                    world.ledger.answered(number);
                }
            });
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        requests.join_all().await;
        drop(sender);
        connection.abort();
    }
}

async fn dying_upstream(world: Arc<World>) {
    let authority = world.dying.authority();
    while !world.is_over() {
        if let Ok(mut stream) = open(&world, &authority, Hello::http1("dying.example")).await {
            for nth in 0..4 {
                let padding = format!("X-Padding: {}\r\n", "x".repeat(nth));
                if ask(&world, &mut stream, &authority, &padding).await.is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// curl and Python's clients.
async fn programs(world: Arc<World>) {
    let sandbox = Sandbox::of(&world.proxy);
    while !world.is_over() {
        for version in ["--http1.1", "--http2"].into_iter().take_while(|_| !world.is_over()) {
            let (number, path) = world.ledger.send();
            let key = ["-H", "Authorization: Bearer SERVICE_TOKEN"];
            let ran = sandbox.curl(["-f", version, key[0], key[1], &world.api.url(&path)]).await;
            count(&world, number, ran.status.success());
        }
        for protocol in ["h1", "h2"].into_iter().take_while(|_| !world.is_over()) {
            let (number, path) = world.ledger.send();
            let ran =
                sandbox.python("httpx_client.py", [&world.api.url(&path), "SERVICE_TOKEN", protocol]).await;
            count(&world, number, ran.status.success());
        }
    }
}

fn count(world: &World, number: u64, answered: bool) {
    world.programs.fetch_add(1, Ordering::Relaxed);
    if answered {
        world.ledger.answered(number);
    }
}

async fn git(world: Arc<World>) {
    let sandbox = Sandbox::of(&world.proxy);
    let url = world.git.url("git", "SERVICE_TOKEN");
    while !world.is_over() {
        sandbox.run("git", ["clone", "-q", &url, "copy"]).await.success();
        std::fs::remove_dir_all(sandbox.home().join("copy")).expect("the clone");
        world.programs.fetch_add(1, Ordering::Relaxed);
    }
}

async fn web_socket(world: Arc<World>) {
    let sandbox = Sandbox::of(&world.proxy);
    let url = format!("wss://chat.example:{}/socket", world.chat);
    while !world.is_over() {
        let arguments = [
            parts::script("websocket_client.py").display().to_string(),
            url.clone(),
            "SERVICE_TOKEN".to_owned(),
        ];
        sandbox.run(parts::python(), arguments).await.success();
        world.programs.fetch_add(1, Ordering::Relaxed);
    }
}

async fn open(world: &World, authority: &str, hello: Hello<'_>) -> io::Result<TlsStream<TcpStream>> {
    let tunnel = tunnel::open(&world.proxy, authority).await;
    tunnel::secure(&world.proxy, tunnel, hello).await
}

/// One request. An error says that the connection is over, whatever became of the request.
async fn ask(
    world: &World,
    stream: &mut TlsStream<TcpStream>,
    authority: &str,
    fields: &str,
) -> io::Result<()> {
    let (number, path) = world.ledger.send();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 4\r\n{fields}\r\nbody");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let answer = tokio::time::timeout(PATIENCE, http1::read_answer(stream)).await.expect("an answer in time");
    // A head without the end of its body is an answer too; nothing of it is an end of the connection.
    match answer {
        Ok(answer) => {
            world.ledger.answered(number);
            match answer.header("connection") {
                Some("close") => Err(io::ErrorKind::ConnectionReset.into()),
                _ => Ok(()),
            }
        }
        Err(error) => {
            let _ = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await;
            Err(error)
        }
    }
}
