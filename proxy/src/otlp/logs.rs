//! An audit record as a log record: what the record says, its `audit` group flat, as iron-proxy sends it.

use std::sync::Arc;

use keyferry_contract::audit::Level;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::Value;

use super::queue::{Ended, Signal};
use super::value::{self, member, nanoseconds};

const SCOPE: &str = "keyferry/audit";

impl Signal for Ended {
    const NAME: &'static str = "logs";

    fn request(resource: &Arc<Resource>, batch: &[Self]) -> Vec<u8> {
        let log_records = batch.iter().map(record).collect();
        let scope_logs = vec![ScopeLogs { scope: value::scope(SCOPE), log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs {
            resource: Some(Resource::clone(resource)),
            scope_logs,
            ..ResourceLogs::default()
        }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    }

    fn rejected(response: &[u8]) -> Option<(u64, String)> {
        let partial = ExportLogsServiceResponse::decode(response).ok()?.partial_success?;
        Some((u64::try_from(partial.rejected_log_records).unwrap_or(0), partial.error_message))
    }
}

fn record(ended: &Ended) -> LogRecord {
    let record = ended.entry.record();
    let (number, severity) = match record.level {
        Level::Info => (SeverityNumber::Info, "INFO"),
        Level::Warn => (SeverityNumber::Warn, "WARN"),
        Level::Error => (SeverityNumber::Error, "ERROR"),
    };
    let time = nanoseconds(ended.entry.began);
    let context = ended.trace.as_ref().map(|trace| trace.context);
    let trace_id = context.map(|context| context.trace).or(ended.entry.trace_id);
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: nanoseconds(ended.entry.began + ended.entry.duration),
        severity_number: number.into(),
        severity_text: severity.to_owned(),
        body: Some(value::string("request")),
        // A record is plain data; `serde_json` cannot fail on it.
        attributes: attributes(&serde_json::to_value(&record).unwrap_or_default()),
        flags: u32::from(context.is_some()),
        trace_id: trace_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        span_id: context.map(|context| context.span.0.to_vec()).unwrap_or_default(),
        ..LogRecord::default()
    }
}

fn attributes(record: &Value) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    let Some(members) = record.as_object() else { return Vec::new() };
    let flat = members.iter().flat_map(|(key, value)| match (key.as_str(), value) {
        // They have fields of their own.
        ("time" | "level" | "msg", _) => Vec::new(),
        ("audit", Value::Object(audit)) => {
            audit.iter().filter_map(|(key, value)| member(key, value)).collect()
        }
        _ => member(key, value).into_iter().collect(),
    });
    flat.filter(|pair| pair.key != "trace_id").collect()
}
