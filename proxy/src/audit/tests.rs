use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use keyferry_contract::audit::{Action, Message};
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::*;
use crate::drain::Drain;

fn entry(ids: &RequestIds) -> Entry {
    Entry {
        id: ids.next(),
        began: SystemTime::UNIX_EPOCH,
        duration: Duration::ZERO,
        message: Message::Request,
        action: Action::Allow,
        principal: "local".into(),
        generation: 1,
        target: Target::Unknown,
        method: None,
        path: None,
        mode: Mode::Mitm,
        sni: None,
        reason: None,
        error: None,
        rule: None,
        warned: false,
        status: None,
        bytes_in: 0,
        bytes_out: 0,
        upstream: None,
        remote: (Ipv4Addr::LOCALHOST, 1).into(),
        client_protocol: None,
        tunnel: None,
        secrets: SmallVec::new(),
        redacted: 0,
    }
}

/// What holds a request's recorder is its connection's task, so this is how a fault of ours ends.
#[tokio::test]
async fn t89_a_panic_ends_its_connection_alone_and_its_request_is_recorded_as_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let (audit, writer) = Audit::open(&AuditTarget::File(path.clone())).unwrap();
    let (ids, drain) = (RequestIds::new(), Drain::default());
    let recorder = || Recorder::new(entry(&ids), audit.reserve().expect("an empty queue"));

    let (failing, mut other) = (recorder(), recorder());
    drain.spawn(async move {
        let _recorder = failing;
        panic!("a mistake of ours");
    });
    drain.spawn(async move {
        tokio::task::yield_now().await;
        other.entry().status = Some(200);
    });
    drain.drain(Duration::from_secs(10)).await;
    drop(audit);
    tokio::task::spawn_blocking(move || writer.finish(Duration::from_secs(10))).await.unwrap();

    let text = std::fs::read_to_string(path).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<Value> = records
        .iter()
        .map(|record| json!([record["audit"]["action"], record["audit"]["status_code"], record["error"]]))
        .collect();
    assert_eq!(
        said,
        [json!(["error", null, "the proxy failed on this request"]), json!(["client_cancel", 200, null])]
    );
}
