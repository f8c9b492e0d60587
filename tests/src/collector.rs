//! An OpenTelemetry collector: OTLP over HTTP in protobuf, as the specification has it, kept for a test to look at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Inner;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};

use crate::origin::{Body, Origin, OriginBuilder, full};
use crate::within;

/// A collector that runs until it is dropped.
pub struct Collector {
    origin: Origin,
    told: Arc<Told>,
}

/// What it was told, and how it answers.
#[derive(Default)]
struct Told {
    logs: Mutex<Vec<LogRecord>>,
    spans: Mutex<Vec<Span>>,
    resources: Mutex<Vec<Value>>,
    headers: Mutex<Vec<HeaderMap>>,
    bytes: Mutex<Vec<u8>>,
    refuse_with: AtomicU16,
}

impl Collector {
    /// In cleartext.
    pub async fn start() -> Self {
        Self::on(Origin::builder("localhost").plain()).await
    }

    /// With a certificate for `localhost` from the authority of this bench.
    pub async fn start_tls() -> Self {
        Self::on(Origin::builder("localhost").alpn(&["http/1.1"])).await
    }

    async fn on(origin: OriginBuilder) -> Self {
        let told = Arc::new(Told::default());
        let handler = {
            let told = Arc::clone(&told);
            Arc::new(move |request| {
                let told = Arc::clone(&told);
                Box::pin(async move { told.answer(request).await }) as crate::origin::Answer
            })
        };
        Self { origin: origin.handler(handler).start().await, told }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` names.
    pub fn endpoint(&self) -> String {
        self.origin.url("").trim_end_matches('/').to_owned()
    }

    /// From now on every request gets this status; 0 is to take everything.
    pub fn refuse_with(&self, status: u16) {
        self.told.refuse_with.store(status, Ordering::Relaxed);
    }

    /// Waits until that many log records are there.
    pub async fn wait_for_logs(&self, count: usize) -> Vec<LogRecord> {
        wait(&self.told.logs, count, "log records").await
    }

    /// Waits until that many spans are there.
    pub async fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        wait(&self.told.spans, count, "spans").await
    }

    /// The attributes of every resource that something was told of.
    ///
    /// # Panics
    /// Never.
    pub fn resources(&self) -> Vec<Value> {
        self.told.resources.lock().expect("no holder panics").clone()
    }

    /// The head of every request.
    ///
    /// # Panics
    /// Never.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.told.headers.lock().expect("no holder panics").clone()
    }

    /// Everything that arrived, uncompressed, for a look at what must not be in it.
    ///
    /// # Panics
    /// Never.
    pub fn bytes(&self) -> Vec<u8> {
        self.told.bytes.lock().expect("no holder panics").clone()
    }
}

impl Told {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        assert_eq!(parts.method, Method::POST);
        assert_eq!(parts.headers["content-type"], "application/x-protobuf");
        let body = body.collect().await.expect("a whole body").to_bytes();
        let refuse_with = self.refuse_with.load(Ordering::Relaxed);
        if let Ok(status @ 400..) = StatusCode::from_u16(refuse_with).map(|status| status.as_u16()) {
            return respond(status, Vec::new());
        }
        let body = match parts.headers.get("content-encoding") {
            Some(coding) => {
                assert_eq!(coding, "gzip");
                let mut plain = Vec::new();
                std::io::copy(&mut GzDecoder::new(&*body), &mut plain).expect("gzip");
                plain
            }
            None => body.to_vec(),
        };
        self.headers.lock().expect("no holder panics").push(parts.headers);
        self.bytes.lock().expect("no holder panics").extend_from_slice(&body);
        match parts.uri.path() {
            "/v1/logs" => {
                let request = ExportLogsServiceRequest::decode(&*body).expect("OTLP logs");
                for resource in request.resource_logs {
                    self.of(resource.resource.expect("a resource").attributes);
                    let records = resource.scope_logs.into_iter().flat_map(|scope| {
                        assert_eq!(scope.scope.expect("a scope").name, "keyferry/audit");
                        scope.log_records
                    });
                    self.logs.lock().expect("no holder panics").extend(records);
                }
                respond(200, ExportLogsServiceResponse::default().encode_to_vec())
            }
            "/v1/traces" => {
                let request = ExportTraceServiceRequest::decode(&*body).expect("OTLP traces");
                for resource in request.resource_spans {
                    self.of(resource.resource.expect("a resource").attributes);
                    let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                    self.spans.lock().expect("no holder panics").extend(spans);
                }
                respond(200, ExportTraceServiceResponse::default().encode_to_vec())
            }
            _ => respond(404, Vec::new()),
        }
    }

    fn of(&self, attributes: Vec<KeyValue>) {
        self.resources.lock().expect("no holder panics").push(json(&attributes));
    }
}

async fn wait<T: Clone>(told: &Mutex<Vec<T>>, count: usize, what: &str) -> Vec<T> {
    within(&format!("{count} {what}"), async {
        loop {
            let so_far = told.lock().expect("no holder panics").clone();
            if so_far.len() >= count {
                return so_far;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
}

fn respond(status: u16, body: Vec<u8>) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/x-protobuf");
    response.body(full(body)).expect("constant")
}

/// Attributes as a JSON object.
pub fn json(attributes: &[KeyValue]) -> Value {
    let members: BTreeMap<_, _> =
        attributes.iter().map(|pair| (pair.key.clone(), value(pair.value.as_ref()))).collect();
    assert_eq!(members.len(), attributes.len(), "each attribute stands there once: {attributes:#?}");
    json!(members)
}

fn value(any: Option<&AnyValue>) -> Value {
    match any.and_then(|any| any.value.as_ref()) {
        None => Value::Null,
        Some(Inner::StringValue(text)) => json!(text),
        Some(Inner::BoolValue(value)) => json!(value),
        Some(Inner::IntValue(number)) => json!(number),
        Some(Inner::DoubleValue(number)) => json!(number),
        Some(Inner::ArrayValue(items)) => items.values.iter().map(|item| value(Some(item))).collect(),
        Some(Inner::KvlistValue(members)) => json(&members.values),
        Some(Inner::BytesValue(_) | Inner::StringValueStrindex(_)) => panic!("no attribute of ours: {any:?}"),
    }
}

/// As traces are written.
pub fn hexadecimal(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
