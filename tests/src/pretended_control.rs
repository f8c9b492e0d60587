//! What a proxy takes for a control service, and which says whatever a test wants.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers every connection by the head of its request, for as long as the test runs; where it is.
///
/// # Panics
/// When loopback has no free port.
pub async fn start(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _ = stream.write_all(answer(&String::from_utf8_lossy(&head)).as_bytes()).await;
            // A stream stays open.
            open.push(stream);
        }
    });
    format!("http://{address}")
}

/// The head of a stream of states.
pub const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// A message in it.
pub fn event(message: &Value) -> String {
    format!("data: {message}\n\n")
}
