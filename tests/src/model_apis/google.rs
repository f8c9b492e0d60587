//! The Gemini API: `POST /v1beta/models/MODEL:streamGenerateContent`.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::model::{Step, Takes, Tool, fitting, pieces};
use super::{Arrived, Shared, document};
use crate::origin::Body;

pub(super) fn answer(api: Arc<Shared>, request: &Arrived) -> Response<Body> {
    if !api.is_key(request, "x-goog-api-key", "") {
        return refusal();
    }
    let Some((model, method)) =
        request.path().strip_prefix("/v1beta/models/").and_then(|rest| rest.split_once(':'))
    else {
        let error =
            json!({ "code": 404, "message": "Requested entity was not found.", "status": "NOT_FOUND" });
        return document(StatusCode::NOT_FOUND, &json!({ "error": error }));
    };
    let step = step(&api, &request.body);
    let usage = api.setup.model.usage;
    let usage = json!({
        "promptTokenCount": usage.input, "candidatesTokenCount": usage.output, "totalTokenCount": usage.input + usage.output,
    });
    match method {
        "countTokens" => document(StatusCode::OK, &json!({ "totalTokens": usage["promptTokenCount"] })),
        "streamGenerateContent" => {
            let parts = parts(&step);
            let last = parts.len() - 1;
            let chunk = |(place, part)| chunk(model, part, &usage, place == last);
            let chunks = parts.into_iter().enumerate().map(chunk);
            api.stream(request.length, chunks.map(|chunk| format!("data: {chunk}\r\n\r\n")).collect())
        }
        _ => {
            let part = match &step {
                Step::Call { tool, arguments } => {
                    json!({ "functionCall": { "name": tool, "args": arguments } })
                }
                Step::Text(text) => json!({ "text": text }),
            };
            document(StatusCode::OK, &chunk(model, part, &usage, true))
        }
    }
}

/// What Google answers to a key that is none.
fn refusal() -> Response<Body> {
    let detail = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com",
        "metadata": { "service": "generativelanguage.googleapis.com" },
    });
    let error = json!({
        "code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT",
        "details": [detail],
    });
    document(StatusCode::BAD_REQUEST, &json!({ "error": error }))
}

fn step(api: &Shared, body: &Value) -> Step {
    let settings = &body["generationConfig"];
    if settings["responseMimeType"] == "application/json" {
        let schema = settings.get("responseJsonSchema").or(settings.get("responseSchema"));
        return Step::Text(schema.map(fitting).unwrap_or_default().to_string());
    }
    api.setup.model.step(&tools(body), result(body).as_deref())
}

fn tools(body: &Value) -> Vec<Tool<'_>> {
    let lists = body["tools"].as_array().into_iter().flatten();
    let declared = lists.filter_map(|tools| tools["functionDeclarations"].as_array()).flatten();
    declared
        .filter_map(|tool| {
            let schema = tool.get("parametersJsonSchema").or(tool.get("parameters"))?;
            Some(Tool { name: tool["name"].as_str()?, takes: Takes::Json(schema) })
        })
        .collect()
}

/// What the last content tells of a function.
fn result(body: &Value) -> Option<String> {
    let parts = body["contents"].as_array()?.last()?["parts"].as_array()?;
    let response = &parts.iter().find_map(|part| part.get("functionResponse"))?["response"];
    Some(response["output"].as_str().map_or_else(|| response.to_string(), str::to_owned))
}

fn parts(step: &Step) -> Vec<Value> {
    match step {
        Step::Call { tool, arguments } => {
            vec![json!({ "functionCall": { "name": tool, "args": arguments } })]
        }
        Step::Text(text) => pieces(text).into_iter().map(|piece| json!({ "text": piece })).collect(),
    }
}

fn chunk(model: &str, part: Value, usage: &Value, last: bool) -> Value {
    let mut candidate = json!({ "content": { "parts": [part], "role": "model" }, "index": 0 });
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    json!({ "candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "keyferry" })
}
