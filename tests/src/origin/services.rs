//! The answers of services whose own clients are tested, as short as those clients accept.

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Response};
use serde_json::json;

use super::{Body, full};

/// What every one of these clients prints when it has understood its answer.
pub const SAID: &str = "hello from the service";

/// Where they are; everything else under it is echoed.
pub const SERVICES: &str = "/services";

/// The answer to a request of such a client, none where it is no such service.
pub(super) fn answer(method: &Method, path: &str) -> Option<Response<Body>> {
    if *method != Method::POST {
        return None;
    }
    match path.strip_prefix(SERVICES)? {
        "/v1/chat/completions" => Some(events(&chat())),
        "/v1/messages" => Some(events(&messages())),
        "/model/sample/converse" => Some(document(converse().to_string())),
        "/api/auth.test" => Some(document(json!({ "ok": true, "team": SAID }).to_string())),
        _ => None,
    }
}

fn events(text: &str) -> Response<Body> {
    respond("text/event-stream", text.to_owned())
}

fn document(text: String) -> Response<Body> {
    respond("application/json", text)
}

fn respond(kind: &str, text: impl Into<Bytes>) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, kind).body(full(text)).expect("a constant answer")
}

fn chat() -> String {
    let chunk = |delta, finish| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        json!({ "id": "1", "object": "chat.completion.chunk", "created": 1, "model": "sample", "choices": [choice] })
    };
    let (text, end) = (chunk(json!({ "content": SAID }), json!(null)), chunk(json!({}), json!("stop")));
    format!("data: {text}\n\ndata: {end}\n\ndata: [DONE]\n\n")
}

fn messages() -> String {
    let usage = json!({ "input_tokens": 1, "output_tokens": 1 });
    let message = json!({
        "id": "1", "type": "message", "role": "assistant", "model": "sample", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    let end = json!({ "stop_reason": "end_turn", "stop_sequence": null });
    [
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": SAID } }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": end, "usage": { "output_tokens": 1 } }),
        json!({ "type": "message_stop" }),
    ]
    .iter()
    .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
    .collect()
}

fn converse() -> serde_json::Value {
    json!({
        "output": { "message": { "role": "assistant", "content": [{ "text": SAID }] } },
        "stopReason": "end_turn",
        "usage": { "inputTokens": 1, "outputTokens": 1, "totalTokens": 2 },
        "metrics": { "latencyMs": 1 },
    })
}
