//! What an origin answers when it is not told otherwise. Any other path echoes the request as JSON.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::header::{ALT_SVC, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::received::{Log, Payload, Received, fields};
use super::{Body, Handler, channel, empty, full, pattern, services};

const KEPT: usize = 64 * 1024;

/// The default routes over that log.
pub(super) fn handler(log: &Arc<Log>) -> Handler {
    let log = Arc::clone(log);
    Arc::new(move |request| Box::pin(answer(request, Arc::clone(&log))))
}

/// `inner`, for those who know the password.
pub(super) fn behind_basic_auth(user: &str, password: &str, inner: Handler) -> Handler {
    let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    Arc::new(move |request| {
        if request.headers().get(AUTHORIZATION).is_some_and(|shown| shown.as_bytes() == expected.as_bytes()) {
            return inner(request);
        }
        let refusal = Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(WWW_AUTHENTICATE, "Basic realm=\"origin\"")
            .body(full("who are you?\n"));
        Box::pin(std::future::ready(refusal.expect("a constant answer")))
    })
}

async fn answer(request: Request<Incoming>, log: Arc<Log>) -> Response<Body> {
    let index = log.head(Received::head(&request));
    let path = request.uri().path().to_owned();
    let segments: Vec<_> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        // Over HTTP/2, hyper leaves it to us to send no body here.
        ["bytes", length] if request.method() == Method::HEAD => Response::builder()
            .header(CONTENT_LENGTH, *length)
            .body(empty())
            .expect("a length is a valid field"),
        ["bytes", length] => download(length.parse().unwrap_or(0)),
        ["events", count] => gated(log, "text/event-stream", count, |n| format!("data: {n}\n\n")),
        ["lines", count] => gated(log, "application/x-ndjson", count, |n| format!("{{\"line\":{n}}}\n")),
        ["gate"] => {
            log.pass_gate().await;
            echo(request, index, &log).await
        }
        ["stall", "head"] => std::future::pending().await,
        ["stall", "body"] => stalled_body(),
        ["trailers"] => with_trailers(),
        ["alt-svc"] => Response::builder()
            .header(ALT_SVC, "h3=\":443\"; ma=86400")
            .body(full("here\n"))
            .expect("constant"),
        ["redirect"] => redirect(request.uri().query().unwrap_or_default()),
        ["status", "304"] => bodiless(StatusCode::NOT_MODIFIED),
        ["status", code] => bodiless(code.parse().unwrap_or(StatusCode::BAD_REQUEST)),
        _ => echo(request, index, &log).await,
    }
}

async fn echo(request: Request<Incoming>, index: usize, log: &Log) -> Response<Body> {
    let service = services::answer(request.method(), request.uri().path());
    let payload = read(request.into_body()).await;
    let received = log.payload(index, payload);
    if let Some(answer) = service {
        return answer;
    }
    let body = received.to_json().to_string() + "\n";
    Response::builder().header(CONTENT_TYPE, "application/json").body(full(body)).expect("constant")
}

/// Reads a body to its end, keeping no more than its start.
async fn read(mut body: Incoming) -> Payload {
    let (mut length, mut start, mut trailers) = (0, Vec::new(), HeaderMap::new());
    let mut digest = Context::new(&SHA256);
    let complete = loop {
        match body.frame().await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    length += data.len() as u64;
                    digest.update(&data);
                    start.extend_from_slice(&data[..data.len().min(KEPT - start.len())]);
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            },
        }
    };
    Payload {
        length,
        sha256: pattern::hex(digest.finish().as_ref()),
        start: String::from_utf8_lossy(&start).into_owned(),
        bytes: start,
        trailers: fields(&trailers),
        complete,
    }
}

fn download(length: u64) -> Response<Body> {
    let (sender, body) = channel();
    tokio::spawn(async move {
        for block in pattern::blocks(length) {
            if sender.send(Ok(Frame::data(block))).await.is_err() {
                return;
            }
        }
    });
    let answer = Response::builder().header(CONTENT_LENGTH, length).body(body);
    answer.expect("a length is a valid field")
}

/// Items that each wait for a step of the gate: who gets one cannot have waited for the next.
fn gated(log: Arc<Log>, kind: &'static str, count: &str, item: fn(u64) -> String) -> Response<Body> {
    let count = count.parse().unwrap_or(0);
    let (sender, body) = channel();
    tokio::spawn(async move {
        for n in 1..=count {
            log.pass_gate().await;
            if sender.send(Ok(Frame::data(Bytes::from(item(n))))).await.is_err() {
                return;
            }
        }
    });
    Response::builder().header(CONTENT_TYPE, kind).body(body).expect("constant")
}

fn stalled_body() -> Response<Body> {
    let (sender, body) = channel();
    tokio::spawn(async move {
        let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"the first half\n")))).await;
        hold_open(sender).await;
    });
    Response::builder().header(CONTENT_LENGTH, 1000).body(body).expect("constant")
}

/// Keeps a body from ending until its reader is gone.
async fn hold_open(sender: mpsc::Sender<io::Result<Frame<Bytes>>>) {
    sender.closed().await;
}

fn with_trailers() -> Response<Body> {
    let (sender, body) = channel();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", http::HeaderValue::from_static("adds-up"));
        let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"content\n")))).await;
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    Response::builder().header("trailer", "x-checksum").body(body).expect("constant")
}

fn redirect(query: &str) -> Response<Body> {
    let target = query.strip_prefix("to=").unwrap_or("/");
    let answer = Response::builder().status(StatusCode::FOUND).header(LOCATION, target).body(empty());
    answer.expect("the tests ask for valid targets")
}

fn bodiless(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).header(ETAG, "\"v1\"").body(empty()).expect("constant")
}
