//! Tens of thousands of sandboxes in one proxy: what each costs, and that each is who it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry_tests::origin::sha256_hex;
use keyferry_tests::pretended_control::{self, STREAM, event};
use keyferry_tests::proxy::Proxy;
use keyferry_tests::{http1, within};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const SANDBOXES: usize = 20_000;
const PRINCIPALS: usize = 100;
/// Its id, the hash of its token, whose it is; the maps that find it.
const MOST_BYTES_OF_ONE: usize = 2_048;

fn token(sandbox: usize) -> String {
    format!("sbxt_{sandbox:064x}")
}

/// Everything that a shared proxy is told: principal N may reach the port 10000 + N of one address, and no other.
fn state(number: u64, sandboxes: usize) -> String {
    let mut text = event(&json!({ "type": "begin", "reach": "everything", "serves": "shared" }));
    for principal in 0..PRINCIPALS {
        text += &event(&json!({
            "type": "policy", "id": format!("prn_{principal}"), "config_hash": format!("sha256:{principal}"),
            "status": "assigned", "principal_id": format!("prn_{principal}"), "secrets": [], "transforms": [], "postgres": [],
            "rules": [{ "cidr": "127.0.0.1/32", "ports": [10_000 + principal] }],
        }));
    }
    for sandbox in 0..sandboxes {
        text += &event(&json!({
            "type": "sandbox", "id": format!("sbx_{sandbox}"), "policy": format!("prn_{}", sandbox % PRINCIPALS),
            "token_sha256": sha256_hex(token(sandbox).as_bytes()), "transport": "token",
        }));
    }
    text + &event(&json!({ "type": "commit", "generation": { "epoch": "e", "number": number } }))
}

/// The status of a CONNECT to a port by whoever has these credentials.
async fn connect(proxy: &Proxy, sandbox: usize, token: &str, port: usize) -> u16 {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connect");
    let shown = STANDARD.encode(format!("sbx_{sandbox}:{token}"));
    let request = format!(
        "CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nProxy-Authorization: Basic {shown}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("send");
    within("the answer", http1::read_answer_head(&mut stream)).await.expect("an answer").status
}

fn resident(proxy: &Proxy) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("its state");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<usize>().ok()).expect("VmRSS in kB") * 1024
}

async fn told(state: String) -> Proxy {
    let control = pretended_control::start(move |head| {
        if head.starts_with("GET /api/v1/proxy/stream") {
            format!("{STREAM}{state}")
        } else {
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned()
        }
    });
    let token = format!("iprx_{}", "1".repeat(64));
    Proxy::builder(KEYFERRY).managed(&control.await, &token).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_sandboxes_are_told_apart_and_cost_two_kib_each_at_most() {
    let few = told(state(1, PRINCIPALS)).await;
    let before = resident(&few);
    drop(few);
    let proxy = told(state(1, SANDBOXES)).await;

    // Each has the policy of its own principal, and its own token alone.
    for sandbox in [0, 1, 99, 100, 7_777, SANDBOXES - 1] {
        let port = 10_000 + sandbox % PRINCIPALS;
        assert_eq!(connect(&proxy, sandbox, &token(sandbox), port).await, 200, "{sandbox}");
        assert_eq!(connect(&proxy, sandbox, &token(sandbox), port + 1).await, 403, "{sandbox}");
    }
    assert_eq!(connect(&proxy, 5, &token(6), 10_005).await, 407);
    assert_eq!(connect(&proxy, SANDBOXES, &token(SANDBOXES), 10_000).await, 407);

    let each = resident(&proxy).saturating_sub(before) / SANDBOXES;
    assert!(each <= MOST_BYTES_OF_ONE, "{each} bytes for each sandbox");
}
