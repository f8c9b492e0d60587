//! Values as OTLP has them.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value as Inner;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use serde_json::Value;

pub(super) fn text(key: &str, text: impl Into<String>) -> KeyValue {
    pair(key, Inner::StringValue(text.into()))
}

pub(super) fn number(key: &str, number: impl TryInto<i64>) -> KeyValue {
    pair(key, Inner::IntValue(number.try_into().unwrap_or(i64::MAX)))
}

pub(super) fn seconds(key: &str, seconds: f64) -> KeyValue {
    pair(key, Inner::DoubleValue(seconds))
}

/// A member of a JSON object; null is no attribute.
pub(super) fn member(key: &str, value: &Value) -> Option<KeyValue> {
    any(value).map(|value| pair(key, value))
}

pub(super) fn string(text: &str) -> AnyValue {
    AnyValue { value: Some(Inner::StringValue(text.to_owned())) }
}

pub(super) fn scope(name: &str) -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}

pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().try_into().unwrap_or(u64::MAX)
}

fn pair(key: &str, value: Inner) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn any(value: &Value) -> Option<Inner> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Inner::BoolValue(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Inner::IntValue(whole),
            None => Inner::DoubleValue(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Inner::StringValue(text.clone()),
        Value::Array(items) => {
            let values = items.iter().map(|item| AnyValue { value: any(item) }).collect();
            Inner::ArrayValue(ArrayValue { values })
        }
        Value::Object(members) => {
            let values = members.iter().filter_map(|(key, value)| member(key, value)).collect();
            Inner::KvlistValue(KeyValueList { values })
        }
    })
}
