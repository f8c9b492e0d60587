//! Every answer that a test gets is held to the OpenAPI document.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(keyferry_control::openapi_document()).expect("JSON"));

/// By operation and status; none for an answer without a body.
static VALIDATORS: LazyLock<HashMap<(String, String), Option<jsonschema::Validator>>> = LazyLock::new(|| {
    let mut validators = HashMap::new();
    for (path, methods) in DOCUMENT["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let name = format!("{} {path}", method.to_uppercase());
                let schema = response.pointer("/content/application~1json/schema");
                let validator = schema.map(|schema| {
                    let whole = json!({ "allOf": [schema], "components": DOCUMENT["components"] });
                    jsonschema::draft202012::new(&whole).expect("a schema")
                });
                validators.insert((name, status.clone()), validator);
            }
        }
    }
    validators
});

/// The path of the document that a request's path belongs to: the one with the most parts in common.
fn template(method: &Method, path: &str) -> Option<&'static str> {
    let parts: Vec<_> = path.split('/').collect();
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let fits = |template: &str| {
        let mut literal = 0;
        let all: Vec<_> = template.split('/').collect();
        let same = all.len() == parts.len()
            && all.iter().zip(&parts).all(|(template, part)| {
                literal += usize::from(template == part);
                template == part || template.starts_with('{') && !part.is_empty()
            });
        same.then_some(literal)
    };
    let known = paths.iter().filter(|(_, methods)| methods.get(method.as_str().to_lowercase()).is_some());
    known
        .filter_map(|(template, _)| Some((fits(template)?, template.as_str())))
        .max()
        .map(|(_, template)| template)
}

/// Fails where the document does not know such an answer.
pub fn check(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, text: &str) {
    let Some(template) = template(method, path) else {
        assert!(matches!(status.as_u16(), 404 | 405), "{method} {path} is not in the document: {status}");
        return;
    };
    let name = (format!("{method} {template}"), status.as_str().to_owned());
    let validator =
        VALIDATORS.get(&name).unwrap_or_else(|| panic!("{name:?} is not in the document: {text}"));
    match validator {
        Some(validator) => {
            assert_eq!(headers["content-type"], "application/json", "{name:?}");
            let body: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{name:?}: {text}"));
            let faults: Vec<_> = validator
                .iter_errors(&body)
                .map(|fault| format!("{}: {fault}", fault.instance_path()))
                .collect();
            assert!(faults.is_empty(), "{name:?}: {faults:#?} in {text}");
        }
        None if status == StatusCode::OK => {}
        None => assert!(text.is_empty() || path == "/readyz", "{name:?}: {text}"),
    }
}
