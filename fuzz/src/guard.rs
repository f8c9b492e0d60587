//! The guard's verdict does not depend on how bytes arrive, and what it lets through is read alike by hyper and by a reader that
//! knows RFC 9112's grammar and mends nothing.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use keyferry_proxy::fuzzing::{Guarded, guard};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::splits::splits;

/// One request, as a reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The method.
    pub method: String,
    /// The target, a character for each byte.
    pub target: String,
    /// The body without its coding; none where it did not arrive whole.
    pub body: Option<Vec<u8>>,
    /// Its connection ends with its answer.
    pub closes: bool,
}

/// Lets `data` arrive at the guard in several ways.
pub fn run(data: &[u8]) {
    for switched in [false, true] {
        let mut verdicts = splits(data).map(|pieces| guard(pieces, switched));
        let whole = verdicts.next().expect("a first way");
        assert!(data.starts_with(&whole.passed), "the guard changes no byte");
        for other in verdicts {
            assert_eq!(verdict(&other), verdict(&whole));
            if !whole.broken {
                assert_eq!(other.passed, whole.passed);
            }
        }
        if !switched {
            agree_on(&whole, data);
        }
    }
}

fn verdict(guarded: &Guarded) -> (usize, Option<keyferry_config::policy::Reason>, bool) {
    (guarded.heads.len(), guarded.refused, guarded.broken)
}

fn agree_on(guarded: &Guarded, data: &[u8]) {
    let (requests, ends) = read_strictly(&guarded.passed);
    assert_eq!(requests.len(), guarded.heads.len(), "the guard and the grammar count the same heads");
    if data.len() <= 4096 {
        let single = guard(data.chunks(1), false);
        let whole = ends.iter().take_while(|end| **end <= single.passed.len()).copied();
        assert!(
            single.heads.iter().copied().eq(whole),
            "the guard and the grammar end heads at the same bytes"
        );
    }
    let by_hyper = read_by_hyper(&guarded.passed);
    for (number, read) in by_hyper.iter().enumerate() {
        let expected = requests.get(number).expect("hyper reads no request that is not there");
        assert_eq!((&read.method, &read.body), (&expected.method, &expected.body));
        assert!(is_same(&read.target, &expected.target), "{:?} became {:?}", expected.target, read.target);
    }
    let ended = by_hyper.len().checked_sub(1).is_some_and(|last| requests[last].closes);
    assert!(
        by_hyper.len() == requests.len() || ended,
        "hyper reads every request: {by_hyper:?} of {requests:?}"
    );
}

/// Reads what the grammar of RFC 9112 allows. Also says where each head ends.
///
/// # Panics
/// At anything else.
pub fn read_strictly(mut bytes: &[u8]) -> (Vec<Read>, Vec<usize>) {
    let all = bytes.len();
    let (mut requests, mut ends) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = latin1(&bytes[..end]);
        bytes = &bytes[end + 4..];
        ends.push(all - bytes.len());
        let mut lines = head.split("\r\n");
        let line = lines.next().expect("a request line");
        let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not three words: {line:?}")
        };
        let fields: Vec<(String, &str)> = lines
            .map(|field| field.split_once(':').expect("a colon"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])))
            .collect();
        let all_of = |name: &str| -> Vec<&str> {
            fields.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect()
        };
        let body = match (&all_of("transfer-encoding")[..], &all_of("content-length")[..]) {
            ([], []) => Some(Vec::new()),
            ([], [length]) => {
                let length: usize = length.parse().expect("a length");
                let taken = length.min(bytes.len());
                let (body, rest) = bytes.split_at(taken);
                bytes = rest;
                (taken == length).then(|| body.to_vec())
            }
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => {
                let (body, rest) = chunks(bytes);
                bytes = rest;
                body
            }
            framing => panic!("two framings: {framing:?}"),
        };
        let connection = all_of("connection").join(",").to_ascii_lowercase();
        let closes = version == "HTTP/1.0" || connection.contains("close");
        requests.push(Read { method: method.to_owned(), target: target.to_owned(), body, closes });
    }
    (requests, ends)
}

/// A chunked body without its coding, none if it has no end, and what stands behind it.
fn chunks(mut bytes: &[u8]) -> (Option<Vec<u8>>, &[u8]) {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return (None, b"") };
        let line = &bytes[..end];
        let digits = line.split(|&byte| byte == b';').next().expect("one part at least");
        let size = usize::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("a size");
        bytes = &bytes[end + 2..];
        if size == 0 {
            loop {
                let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return (None, b"") };
                bytes = &bytes[end + 2..];
                if end == 0 {
                    return (Some(body), bytes);
                }
            }
        }
        let Some(data) = bytes.get(..size) else { return (None, b"") };
        body.extend_from_slice(data);
        let Some(rest) = bytes[size..].strip_prefix(b"\r\n") else { return (None, b"") };
        bytes = rest;
    }
}

/// Each byte as a character.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Whether hyper's target is that one: of a URL without a path, it makes one with a path.
fn is_same(read: &str, expected: &str) -> bool {
    let uri = |target: &str| Uri::try_from(target.chars().map(|c| c as u8).collect::<Vec<u8>>()).ok();
    read == expected
        || (!expected.starts_with('/') && uri(read).is_some_and(|read| uri(expected) == Some(read)))
}

/// The target as it came.
fn target_of(uri: &Uri, method: &Method) -> String {
    let authority = uri.authority().filter(|_| *method == Method::CONNECT);
    latin1(authority.map_or_else(|| uri.to_string(), ToString::to_string).as_bytes())
}

/// Lets hyper read `bytes` with the settings that the proxy gives it.
///
/// # Panics
/// When the process has no room for a pipe.
pub fn read_by_hyper(bytes: &[u8]) -> Vec<Read> {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    let read = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&read);
    let service = service_fn(move |request: Request<Incoming>| {
        let read = Arc::clone(&sink);
        async move {
            let (head, body) = request.into_parts();
            let place = {
                let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                let target = target_of(&head.uri, &head.method);
                read.push(Read { method: head.method.to_string(), target, body: None, closes: false });
                read.len() - 1
            };
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            read.lock().unwrap_or_else(PoisonError::into_inner)[place].body = body;
            let mut response = Response::new(Empty::<Bytes>::new());
            if head.method == Method::CONNECT {
                *response.status_mut() = StatusCode::BAD_REQUEST;
            }
            Ok::<_, Infallible>(response)
        }
    });
    RUNTIME.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.expect("room for an input");
        client.shutdown().await.expect("a pipe of ours");
        // Its answers must not fill the pipe.
        let drained = tokio::spawn(async move { tokio::io::copy(&mut client, &mut tokio::io::sink()).await });
        let served = http1::Builder::new()
            .header_read_timeout(None)
            // An input is over when it is over; it has not been taken back.
            .half_close(true)
            .max_buf_size(256 * 1024)
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(server), service)
            .with_upgrades()
            .await;
        // An input may end in the middle of a body.
        drop(served);
        drained.abort();
    });
    std::mem::take(&mut *read.lock().unwrap_or_else(PoisonError::into_inner))
}
