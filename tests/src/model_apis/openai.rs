//! The Responses API: `POST /v1/responses`, and the same over WebSocket.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::model::{Step, Takes, Tool, pieces};
use super::{Arrived, Shared, document};
use crate::origin::{Body, empty};

pub(super) fn answer(api: Arc<Shared>, request: &Arrived, upgrade: Option<OnUpgrade>) -> Response<Body> {
    if !api.is_key(request, "authorization", "Bearer ") {
        let message = "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.";
        return error(StatusCode::UNAUTHORIZED, message, "invalid_api_key");
    }
    match (request.head.method.as_str(), request.path(), upgrade) {
        ("GET", "/v1/responses", Some(_)) if !api.setup.web_sockets => error(
            StatusCode::UPGRADE_REQUIRED,
            "This endpoint is not offered over WebSocket.",
            "upgrade_required",
        ),
        ("GET", "/v1/responses", Some(upgrade)) => switch(api, request.clone(), upgrade),
        ("POST", "/v1/responses", None) => {
            let written = |event: &Value| {
                format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
            };
            let events = events(&api, &request.body);
            api.stream(request.length, events.iter().map(written).collect())
        }
        ("GET", "/v1/models", None) => document(StatusCode::OK, &json!({ "object": "list", "data": [] })),
        _ => error(StatusCode::NOT_FOUND, "Invalid URL", "not_found"),
    }
}

fn error(status: StatusCode, message: &str, code: &str) -> Response<Body> {
    let error = json!({ "message": message, "type": "invalid_request_error", "param": null, "code": code });
    document(status, &json!({ "error": error }))
}

fn switch(api: Arc<Shared>, handshake: Arrived, upgrade: OnUpgrade) -> Response<Body> {
    // RFC 6455 section 4.2.2
    let key = handshake.head.header(SEC_WEBSOCKET_KEY.as_str()).unwrap_or_default();
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()));
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        converse(&api, &handshake, stream).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(empty())
        .expect("an answer to a handshake")
}

/// Each `response.create` is answered by the events of its response, a message each.
async fn converse(
    api: &Shared,
    handshake: &Arrived,
    mut stream: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else { continue };
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        api.note(Arrived { length: text.len(), body: body.clone(), message: true, ..handshake.clone() });
        for event in events(api, &body) {
            api.pass_gate(text.len()).await;
            if stream.send(Message::text(event.to_string())).await.is_err() {
                return;
            }
        }
    }
}

/// Those of the request, and those that stand in its input; namespaces hold more.
fn tools(body: &Value) -> Vec<Tool<'_>> {
    let input = body["input"].as_array().into_iter().flatten();
    let lists = input.filter(|item| item["type"] == "additional_tools").chain([body]);
    let mut open: Vec<&Value> = lists.filter_map(|list| list["tools"].as_array()).flatten().collect();
    let mut tools = Vec::new();
    while let Some(tool) = open.pop() {
        open.extend(tool["tools"].as_array().into_iter().flatten());
        let Some(name) = tool["name"].as_str() else { continue };
        let runs_scripts =
            || tool["description"].as_str().is_some_and(|text| text.contains("tools.exec_command("));
        match tool["type"].as_str() {
            Some("function") => tools.push(Tool { name, takes: Takes::Json(&tool["parameters"]) }),
            Some("custom") if runs_scripts() => tools.push(Tool { name, takes: Takes::Script }),
            _ => {}
        }
    }
    tools
}

/// What the last item tells of a tool.
fn result(body: &Value) -> Option<String> {
    let is_output =
        |item: &&Value| item["type"] == "function_call_output" || item["type"] == "custom_tool_call_output";
    let output = &body["input"].as_array()?.iter().rfind(is_output)?["output"];
    match output.as_str() {
        Some(text) => Some(text.to_owned()),
        None => Some(output.as_array()?.iter().filter_map(|part| part["text"].as_str()).collect()),
    }
}

/// A response in the order in which it is streamed.
fn events(api: &Shared, asked: &Value) -> Vec<Value> {
    let step = api.setup.model.step(&tools(asked), result(asked).as_deref());
    let response = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_keyferry", "object": "response", "created_at": 1_760_000_000, "status": status,
            "model": asked["model"], "output": output, "usage": usage, "error": null, "incomplete_details": null,
            "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "metadata": {},
        })
    };
    let started = response("in_progress", json!([]), Value::Null);
    let (begun, between, done) = match &step {
        Step::Call { tool, arguments: Value::String(script) } => call(&SCRIPT, tool, script),
        Step::Call { tool, arguments } => call(&FUNCTION, tool, &arguments.to_string()),
        Step::Text(text) => message(text),
    };
    let usage = api.setup.model.usage;
    let usage = json!({
        "input_tokens": usage.input, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": usage.output, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.input + usage.output,
    });
    let mut events = vec![
        json!({ "type": "response.created", "response": started }),
        json!({ "type": "response.in_progress", "response": started }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": begun }),
    ];
    events.extend(between);
    events.push(json!({ "type": "response.output_item.done", "output_index": 0, "item": done }));
    events.push(
        json!({ "type": "response.completed", "response": response("completed", json!([done]), usage) }),
    );
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events
}

/// How a call of a tool is written.
struct Kind {
    item: &'static str,
    id: &'static str,
    input: &'static str,
    events: &'static str,
}

const FUNCTION: Kind =
    Kind { item: "function_call", id: "fc_keyferry", input: "arguments", events: "function_call_arguments" };
const SCRIPT: Kind =
    Kind { item: "custom_tool_call", id: "ctc_keyferry", input: "input", events: "custom_tool_call_input" };

/// The item as it begins, what is streamed of it, and the item at its end.
fn call(kind: &Kind, tool: &str, input: &str) -> (Value, Vec<Value>, Value) {
    let item = |status: &str, input: &str| {
        json!({
            "id": kind.id, "type": kind.item, "status": status, "call_id": "call_keyferry", "name": tool, kind.input: input,
        })
    };
    let event = |what: &str, key: &str, text: &str| json!({ "type": format!("response.{}.{what}", kind.events), "item_id": kind.id, "output_index": 0, key: text });
    let mut between: Vec<_> = pieces(input).iter().map(|piece| event("delta", "delta", piece)).collect();
    between.push(event("done", kind.input, input));
    (item("in_progress", ""), between, item("completed", input))
}

fn message(text: &str) -> (Value, Vec<Value>, Value) {
    let item = |status: &str, content: Value| json!({ "id": "msg_keyferry", "type": "message", "status": status, "role": "assistant", "content": content });
    let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
    let event = |kind: &str, key: &str, value: Value| {
        json!({
            "type": format!("response.{kind}"), "item_id": "msg_keyferry", "output_index": 0, "content_index": 0, key: value,
        })
    };
    let mut between = vec![event("content_part.added", "part", part(""))];
    between.extend(pieces(text).into_iter().map(|piece| event("output_text.delta", "delta", json!(piece))));
    between.push(event("output_text.done", "text", json!(text)));
    between.push(event("content_part.done", "part", part(text)));
    (item("in_progress", json!([])), between, item("completed", json!([part(text)])))
}
