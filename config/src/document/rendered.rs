//! A document that a program wrote, not a person: what a control plane renders for a principal.
//!
//! It is the same language, read by the same checks. But its texts are values and not a template, so neither `${NAME}` nor the
//! environment says anything in it (T81), and it is JSON, so that no text of a user's can mean anything to a YAML reader.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Document;
use super::load::Loaded;
use super::node::{Entry, Kind, Node, Origin, Scalar, Value};
use super::place::{At, Findings, shortened};
use super::problem::{Location, Problem, Problems, Severity};
use super::unsupported::unsupported;

/// Reads `json`. `name` is for messages alone.
pub fn parse_rendered(name: &str, json: &str) -> Result<Loaded, Problems> {
    let Json(root) = serde_json::from_str(json).map_err(|error| {
        // serde_json's own words may hold a piece of the text, which may be a value.
        let message = format!("not a JSON document, at line {} column {}", error.line(), error.column());
        Problems::new(
            name,
            vec![Problem {
                severity: Severity::Error,
                location: Some(NOWHERE),
                path: String::new(),
                message,
                hint: None,
            }],
        )
    })?;
    let findings = Findings::new(false);
    let document = Document::read(&At::root(&root, &findings));
    let problems = Problems::new(name, findings.into_list());
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems);
    }
    let refusals = Findings::new(false);
    for part in unsupported(&document) {
        let place = At::root(&root, &refusals).follow(&part.path);
        place.error(format!("this version does not run {}", part.what), part.hint);
    }
    Ok(Loaded { document, warnings: problems, unsupported: Problems::new(name, refusals.into_list()) })
}

/// Lines say nothing where nobody wrote any; paths do.
const NOWHERE: Location = Location { line: 1, column: 1 };

struct Json(Node);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(|value| Self(node(value)))
    }
}

fn node(value: Value) -> Node {
    Node { value, origin: Origin::File(NOWHERE) }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(scalar(value.to_string(), Kind::Bool(value)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(scalar(number.to_string(), Kind::Number(Some(number.into()))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(scalar(number.to_string(), Kind::Number(Some(number.into()))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(scalar(number.to_string(), Kind::Number(None)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(scalar(text.to_owned(), Kind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Json(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut known = std::collections::HashSet::new();
        while let Some((key, Json(value))) = map.next_entry::<String, Json>()? {
            if !known.insert(key.clone()) {
                return Err(de::Error::custom(format!("the key {:?} stands twice", shortened(&key))));
            }
            entries.push(Entry { key, key_origin: Origin::File(NOWHERE), value });
        }
        Ok(Value::Map(entries))
    }
}

fn scalar(text: String, kind: Kind) -> Value {
    Value::Scalar(Scalar { text, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Transform, parse};

    #[test]
    fn a_rendered_document_means_what_the_same_file_means() {
        let text = r#"{"transforms": [
            {"name": "allowlist", "config": {"rules": [{"host": "api.example", "ports": [8443], "methods": ["GET"]}]}},
            {"name": "secrets", "config": {"secrets": [{
                "source": {"type": "env", "var": "TOKEN"}, "priority": 3,
                "replace": {"proxy_value": "PH", "match_headers": ["authorization"]},
                "rules": [{"host": "api.example"}]}]}}]}"#;
        let of_file =
            parse("x", text, &|_| None, crate::document::Options::default()).map(|loaded| loaded.document);
        assert_eq!(parse_rendered("x", text).map(|loaded| loaded.document), of_file);
    }

    #[test]
    fn texts_are_values_and_no_template() {
        let text = r#"{"transforms": [{"name": "secrets", "config": {"secrets": [{
            "source": {"type": "control_plane", "value": "${HOME} $${x} \u007f: - {"},
            "inject": {"header": "X-Key"}, "rules": [{"host": "a.example"}]}]}}]}"#;
        let loaded = parse_rendered("x", text).expect("a document");
        let [Transform::Secrets(secrets)] = loaded.document.transforms.as_slice() else {
            panic!("one block")
        };
        let crate::document::SourceKind::ControlPlane { value, .. } = &secrets.secrets[0].source.kind else {
            panic!("a value")
        };
        assert_eq!(value.expose(), "${HOME} $${x} \u{7f}: - {");
    }

    #[test]
    fn t46_what_is_wrong_is_said_without_the_value() {
        for text in
            [r#"{"transforms": "s3cret"#, r#"{"transforms": s3cret}"#, r#"{"a": 1, "a": "s3cret"}"#, "s3cret"]
        {
            let problems = parse_rendered("x", text).expect_err(text).to_string();
            assert!(!problems.contains("s3cret"), "{problems}");
        }
    }
}
