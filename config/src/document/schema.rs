//! The JSON Schema of the file, for editors and pipelines.
//!
//! Generated from the very structs that the reader decodes into, so no key can be in one and not in the other. It says what a
//! value may look like and leaves relations between keys to the reader: what the reader takes is never refused by it.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::field::{Field, List, Parsed};
use super::load;

/// The schema, in the 2020-12 dialect.
pub fn json_schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<load::Keys>();
    schema.insert("title".to_owned(), "keyferry configuration".into());
    schema.insert(
        "description".to_owned(),
        "What may leave a sandbox, and with which credential. Every value may hold ${NAME} or ${NAME:-default}.".into(),
    );
    schema.to_value()
}

/// `${NAME}` fills a key of any type.
const VARIABLE: &str = r"\$\{";

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        or_null(written::<T>(generator))
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("list of {}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = written::<T>(generator);
        json_schema!({ "type": "array", "items": items })
    }
}

impl<T: JsonSchema> JsonSchema for Parsed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A scalar as the file may write it: a variable for any type, and a number or boolean where a text belongs.
fn written<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    let object = schema.ensure_object();
    object.remove("format");
    if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
        // A text with a grammar: no number is one, and an empty text counts as none.
        let pattern = format!("(?:{pattern})|^$|{VARIABLE}");
        object.insert("pattern".to_owned(), pattern.into());
        return schema;
    }
    match object.get("type").and_then(Value::as_str) {
        Some("string") if object.contains_key("enum") || object.contains_key("const") => variable_or(schema),
        Some("string") => {
            object.insert("type".to_owned(), json!(["string", "number", "boolean"]));
            schema
        }
        Some(other @ ("boolean" | "integer")) => {
            let types = json!([other, "string"]);
            object.insert("type".to_owned(), types);
            object.insert("pattern".to_owned(), VARIABLE.into());
            schema
        }
        // Words with a sentence each.
        None if object.contains_key("oneOf") => variable_or(schema),
        _ => schema,
    }
}

fn variable_or(schema: Schema) -> Schema {
    json_schema!({ "anyOf": [schema, { "type": "string", "pattern": VARIABLE }] })
}

/// A null counts as an absent key.
fn or_null(mut schema: Schema) -> Schema {
    let object = schema.ensure_object();
    match object.get_mut("type") {
        Some(Value::Array(types)) => types.push("null".into()),
        Some(one) => *one = json!([one.clone(), "null"]),
        None => {
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.push(json!({ "type": "null" }));
            }
        }
    }
    schema
}

/// The schema of a type that is read from its text.
macro_rules! text_schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

pub(super) use text_schema;
