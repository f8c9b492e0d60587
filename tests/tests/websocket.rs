//! WebSockets, once both sides have switched: messages are checked, swapped and redacted as they stream (T38).

use keyferry_tests::websocket::{
    TOKEN, close, collected, listening, masked, plain, proxy, read_frame, read_frames, switched,
};
use keyferry_tests::within;
use serde_json::json;
use tokio::io::AsyncWriteExt;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
/// A placeholder that is bound to another host.
const ELSEWHERE: &str = "kf_00112233445566778899aabbccddeeff";

#[tokio::test(flavor = "multi_thread")]
async fn t38_messages_are_swapped_and_redacted_also_across_fragments_and_the_record_says_so() {
    let greeting = [
        // The first frames of the new protocol travel with the 101 itself.
        plain(0x01, b"welcome, real-ch"),
        plain(0x89, b"alive?"),
        plain(0x80, b"at-token"),
        plain(0x82, b"\xffreal-chat-token\xff"),
    ]
    .concat();
    let (origin, mut frames) = listening(greeting).await;
    let proxy = proxy(KEYFERRY, &origin).await;
    let mut stream = switched(&proxy, &origin).await;

    let mut heard = Vec::new();
    let mut text = Vec::new();
    for _ in 0..4 {
        let (first, payload) = within("a frame", read_frame(&mut stream)).await.expect("a frame");
        heard.push(first);
        text.extend(payload);
    }
    assert_eq!(
        (heard.as_slice(), text.as_slice()),
        ([0x01, 0x89, 0x80, 0x82].as_slice(), b"welcome, alive?CHAT_TOKEN\xffCHAT_TOKEN\xff".as_slice(),)
    );
    for frame in [
        masked(0x01, b"{\"auth\":\"CHAT_"),
        masked(0x8a, b"alive?"),
        masked(0x80, b"TOKEN\"}"),
        masked(0x82, b"CHAT_TOKEN in binary"),
        masked(0x88, &close(1000, "bye")),
    ] {
        stream.write_all(&frame).await.expect("send");
        stream.flush().await.expect("send");
    }
    let got = collected(&mut frames, 5).await;
    let expected = [
        (0x01, b"{\"auth\":\"".to_vec()),
        (0x8a, b"alive?".to_vec()),
        (0x80, b"real-chat-token\"}".to_vec()),
        (0x82, b"CHAT_TOKEN in binary".to_vec()),
        (0x88, close(1000, "bye")),
    ];
    assert_eq!(got, expected);
    drop(stream);

    let ended = proxy.stop().await;
    ended.assert_never_wrote(TOKEN);
    assert!(ended.audit.contains("\"request_open\""), "{}", ended.audit);
    let record = ended.only_record();
    let audit = &record["audit"];
    assert_eq!(
        json!([
            audit["status_code"],
            audit["action"],
            audit["upstream_protocol"],
            record["response_transforms"]
        ]),
        json!([101, "allow", "h1", [{ "name": "redact", "action": "allow", "annotations": { "redacted": 2 } }]])
    );
    assert_eq!(
        record["request_transforms"][0]["annotations"]["swapped"],
        json!([{ "secret": "CHAT_TOKEN", "locations": ["header:authorization", "body"] }])
    );
    assert!(audit["bytes_in"].as_u64() > Some(60) && audit["bytes_out"].as_u64() > Some(40), "{record:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_what_breaks_the_protocol_closes_both_sides_with_its_code_and_is_recorded() {
    let from_client = [
        (plain(0x81, b"not masked"), 1002, "not masked"),
        (masked(0xf1, b"RSV"), 1002, "RSV2"),
        (masked(0xc1, b"compressed"), 1002, "RSV1"),
        (masked(0x83, b"opcode"), 1002, "reserved"),
        (masked(0x09, b"fragmented"), 1002, "fragmented"),
        (masked(0x80, b"of nothing"), 1002, "continues no message"),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002, "highest bit"),
        (vec![0x82, 0xfe, 0, 1], 1002, "shortest"),
        (masked(0x81, b"\xc3\x28"), 1007, "UTF-8"),
        (masked(0x88, &close(1005, "")), 1002, "code"),
    ];
    for (bytes, code, what) in from_client {
        let (origin, mut frames) = listening(Vec::new()).await;
        let proxy = proxy(KEYFERRY, &origin).await;
        let mut stream = switched(&proxy, &origin).await;
        stream.write_all(&bytes).await.expect("send");
        assert_eq!(read_frames(&mut stream).await, [(0x88, close(code, "websocket_violation"))], "{what}");
        assert_eq!(collected(&mut frames, 1).await, [(0x88, close(code, ""))], "{what}");
        drop(stream);
        let ended = proxy.stop().await;
        let record = ended.only_record();
        let seen = (&record["audit"]["reason"], &record["audit"]["status_code"], &record["audit"]["action"]);
        assert_eq!(seen, (&json!("websocket_violation"), &json!(101), &json!("reject")), "{record:#}");
        assert!(ended.audit.contains(what), "{what}: {}", ended.audit);
    }
    for (bytes, code) in
        [(masked(0x81, b"masked"), 1002), (plain(0x81, b"\xff"), 1007), (plain(0x88, b"\x03"), 1002)]
    {
        let (origin, mut frames) = listening(bytes).await;
        let proxy = proxy(KEYFERRY, &origin).await;
        let mut stream = switched(&proxy, &origin).await;
        assert_eq!(read_frames(&mut stream).await, [(0x88, close(code, "upstream_protocol"))]);
        assert_eq!(collected(&mut frames, 1).await, [(0x88, close(code, ""))]);
        drop(stream);
        let record = proxy.stop().await.only_record();
        assert_eq!(
            (&record["audit"]["reason"], &record["audit"]["action"]),
            (&json!("upstream_protocol"), &json!("error"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t41_a_placeholder_that_is_bound_elsewhere_closes_the_connection_before_it_leaves() {
    for first in [0x01, 0x02] {
        let (origin, mut frames) = listening(Vec::new()).await;
        let proxy = proxy(KEYFERRY, &origin).await;
        let mut stream = switched(&proxy, &origin).await;
        let (begin, end) = ELSEWHERE.as_bytes().split_at(20);
        stream.write_all(&[masked(first, begin), masked(0x80, end)].concat()).await.expect("send");

        assert_eq!(read_frames(&mut stream).await, [(0x88, close(1008, "placeholder_misdirected"))]);
        assert_eq!(collected(&mut frames, 1).await, [(0x88, close(1008, ""))]);
        drop(stream);
        let record = proxy.stop().await.only_record();
        assert_eq!(
            (&record["audit"]["reason"], &record["audit"]["action"]),
            (&json!("placeholder_misdirected"), &json!("reject"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t67_a_new_policy_closes_it_and_so_does_the_end_of_the_proxy() {
    let (origin, mut frames) = listening(Vec::new()).await;
    let proxy = proxy(KEYFERRY, &origin).await;
    let mut revoked = switched(&proxy, &origin).await;
    proxy.edit("paths: [\"/socket\", \"/other\"]", "paths: [\"/socket\"], methods: [POST]");
    proxy.signal("HUP").await;
    assert_eq!(read_frames(&mut revoked).await, [(0x88, close(1008, "policy_changed"))]);
    assert_eq!(collected(&mut frames, 1).await, [(0x88, close(1008, ""))]);
    drop(revoked);

    proxy.edit("paths: [\"/socket\"], methods: [POST]", "paths: [\"/socket\"]");
    proxy.signal("HUP").await;
    proxy.wait_for_log("a new configuration is in force", 2).await;
    let mut open = switched(&proxy, &origin).await;
    proxy.terminate().await;
    assert_eq!(read_frames(&mut open).await, [(0x88, close(1001, ""))]);
    assert_eq!(collected(&mut frames, 1).await, [(0x88, close(1001, ""))]);
    drop(open);
    let ended: Vec<_> = proxy.wait().await.records().iter().map(|r| r["audit"]["reason"].clone()).collect();
    assert_eq!(ended, [json!("policy_changed"), json!(null)]);
}
