//! The Messages API: `POST /v1/messages`.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::model::{Step, Takes, Tool, pieces};
use super::{Arrived, Shared, document};
use crate::origin::Body;

pub(super) fn answer(api: Arc<Shared>, request: &Arrived) -> Response<Body> {
    if !api.is_key(request, "x-api-key", "") {
        return error(StatusCode::UNAUTHORIZED, "authentication_error", "invalid x-api-key");
    }
    match (request.head.method.as_str(), request.path()) {
        ("POST", "/v1/messages") => {}
        ("POST", "/v1/messages/count_tokens") => {
            return document(StatusCode::OK, &json!({ "input_tokens": api.setup.model.usage.input }));
        }
        _ => return error(StatusCode::NOT_FOUND, "not_found_error", "Not found"),
    }
    let step = api.setup.model.step(&tools(&request.body), result(&request.body).as_deref());
    let message = message(&api, &request.body, &step);
    if request.body["stream"] == json!(true) {
        let events = events(&message, &step);
        let written = |event: &Value| {
            format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
        };
        api.stream(request.length, events.iter().map(written).collect())
    } else {
        document(StatusCode::OK, &message)
    }
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let error = json!({ "type": kind, "message": message });
    document(status, &json!({ "type": "error", "error": error, "request_id": "req_011keyferry" }))
}

fn tools(body: &Value) -> Vec<Tool<'_>> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools
        .filter_map(|tool| {
            Some(Tool { name: tool["name"].as_str()?, takes: Takes::Json(&tool["input_schema"]) })
        })
        .collect()
}

/// What the last message tells of a tool.
fn result(body: &Value) -> Option<String> {
    let blocks = body["messages"].as_array()?.last()?["content"].as_array()?;
    let content = &blocks.iter().find(|block| block["type"] == "tool_result")?["content"];
    match content.as_str() {
        Some(text) => Some(text.to_owned()),
        None => Some(content.as_array()?.iter().filter_map(|block| block["text"].as_str()).collect()),
    }
}

fn message(api: &Shared, asked: &Value, step: &Step) -> Value {
    let usage = api.setup.model.usage;
    let (block, reason) = match step {
        Step::Call { tool, arguments } => (
            json!({ "type": "tool_use", "id": "toolu_01keyferry", "name": tool, "input": arguments }),
            "tool_use",
        ),
        Step::Text(text) => (json!({ "type": "text", "text": text }), "end_turn"),
    };
    json!({
        "id": "msg_01keyferry", "type": "message", "role": "assistant", "model": asked["model"],
        "content": [block], "stop_reason": reason, "stop_sequence": null,
        "usage": {
            "input_tokens": usage.input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": usage.output, "service_tier": "standard",
        },
    })
}

/// The message in the order in which it is streamed.
fn events(message: &Value, step: &Step) -> Vec<Value> {
    let (mut start, mut block) = (message.clone(), message["content"][0].clone());
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let deltas: Vec<Value> = match step {
        Step::Call { arguments, .. } => {
            block["input"] = json!({});
            let delta = |piece| json!({ "type": "input_json_delta", "partial_json": piece });
            pieces(&arguments.to_string()).into_iter().map(delta).collect()
        }
        Step::Text(text) => {
            block["text"] = json!("");
            pieces(text).into_iter().map(|piece| json!({ "type": "text_delta", "text": piece })).collect()
        }
    };
    let mut events = vec![
        json!({ "type": "message_start", "message": start }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "ping" }),
    ];
    let delta = |delta| json!({ "type": "content_block_delta", "index": 0, "delta": delta });
    events.extend(deltas.into_iter().map(delta));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    let end = json!({ "stop_reason": message["stop_reason"], "stop_sequence": null });
    let usage = json!({ "output_tokens": message["usage"]["output_tokens"] });
    events.push(json!({ "type": "message_delta", "delta": end, "usage": usage }));
    events.push(json!({ "type": "message_stop" }));
    events
}
