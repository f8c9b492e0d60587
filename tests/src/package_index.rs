//! A Python package index with one package, behind TLS and Basic authentication.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use tempfile::TempDir;
use tokio::process::Command;

use crate::origin::{Body, Handler, Origin, OriginBuilder, full, sha256_hex};
use crate::parts;

/// The file that it offers.
const WHEEL: &str = "keyferry_sample-1.0-py3-none-any.whl";

/// A running index.
pub struct PackageIndex {
    /// Where it is served.
    pub origin: Origin,
}

impl PackageIndex {
    /// Offers `keyferry-sample`, whose module says "hello from the wheel".
    ///
    /// # Panics
    /// When the Python environment of the tests is missing.
    pub async fn start(name: &str, user: &str, password: &str) -> Self {
        Self::serve(Origin::builder(name), user, password).await
    }

    /// The same at an origin that was prepared.
    ///
    /// # Panics
    /// When the Python environment of the tests is missing.
    pub async fn serve(origin: OriginBuilder, user: &str, password: &str) -> Self {
        let wheel = make_wheel().await;
        let page = format!("<a href=\"/files/{WHEEL}#sha256={}\">{WHEEL}</a>\n", sha256_hex(&wheel));
        let handler: Handler = Arc::new(move |request| {
            let answer = match request.uri().path() {
                "/simple/keyferry-sample/" => respond(StatusCode::OK, "text/html", page.clone()),
                path if path.strip_prefix("/files/") == Some(WHEEL) => {
                    respond(StatusCode::OK, "application/octet-stream", wheel.clone())
                }
                _ => respond(StatusCode::NOT_FOUND, "text/plain", "no such package\n"),
            };
            Box::pin(std::future::ready(answer))
        });
        let origin = origin.basic_auth(user, password).handler(handler).start().await;
        Self { origin }
    }

    /// What pip calls the index, with these credentials in the address.
    pub fn url(&self, user: &str, password: &str) -> String {
        format!("https://{user}:{password}@{}/simple/", self.origin.authority())
    }
}

fn respond(status: StatusCode, kind: &str, content: impl Into<Bytes>) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", kind);
    response.body(full(content)).expect("a constant answer")
}

async fn make_wheel() -> Bytes {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join(WHEEL);
    let made = Command::new(parts::python()).arg(parts::script("make_wheel.py")).arg(&path).output().await;
    let made = made.expect("run Python");
    assert!(made.status.success(), "make_wheel.py: {}", String::from_utf8_lossy(&made.stderr));
    read(&path)
}

fn read(path: &Path) -> Bytes {
    std::fs::read(path).expect("the wheel just made").into()
}
