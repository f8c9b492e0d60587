//! The service that clients are tried with. Each calls a name of its own, by which is told who came, and with what.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::names::DOMAIN;
use crate::failure::Failure;
use crate::tls_service;

pub(super) struct Clinic {
    port: u16,
    seen: Seen,
}

/// By the first label of the name that was called.
type Seen = Arc<Mutex<HashMap<String, Arrived>>>;

/// What came from a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) with_the_value: bool,
    /// Many clients ask first and show their credential afterwards.
    pub(super) without: bool,
}

impl Arrived {
    pub(super) fn any(self) -> bool {
        self.with_the_value || self.without
    }
}

impl Clinic {
    /// Opens to whoever shows `value`.
    pub(super) async fn open(certificate: &Path, key: &Path, value: SecretString) -> Result<Self, Failure> {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let value = Arc::new(value);
        let port = tls_service::start(certificate, key, move |request| {
            let (noted, value) = (Arc::clone(&noted), Arc::clone(&value));
            async move {
                let (head, body) = request.into_parts();
                // What is not read ends the connection before the answer is.
                let _ = body.collect().await;
                answer(&head, &noted, &value)
            }
        });
        Ok(Self { port: port.await?, seen })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The name that a client calls.
    pub(super) fn host(&self, client: &str) -> String {
        format!("{client}.{DOMAIN}")
    }

    pub(super) fn authority(&self, client: &str) -> String {
        format!("{}:{}", self.host(client), self.port)
    }

    pub(super) fn arrived(&self, client: &str) -> Arrived {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(client).copied().unwrap_or_default()
    }
}

fn answer(head: &Parts, seen: &Seen, value: &SecretString) -> Response<Full<Bytes>> {
    let named = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str).or(named).unwrap_or_default();
    let client = authority.split('.').next().unwrap_or_default();
    let real = head.headers.get(AUTHORIZATION).is_some_and(|shown| holds(shown, value));
    {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = seen.entry(client.to_owned()).or_default();
        arrived.with_the_value |= real;
        arrived.without |= !real;
    }
    let (status, kind, body) = match real {
        true => document(client, head.uri.path(), authority),
        false => (StatusCode::UNAUTHORIZED, "text/plain", "the real credential is wanted\n".into()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if !real {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"doctor\""));
    }
    response
}

/// Bearer, the password of Basic (RFC 7617), or the key id of a signature.
fn holds(authorization: &HeaderValue, value: &SecretString) -> bool {
    let Ok(shown) = authorization.to_str() else { return false };
    let value = value.expose_secret();
    let basic = shown.strip_prefix("Basic ").and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    shown.contains(value) || basic.is_some_and(|pair| String::from_utf8_lossy(&pair).contains(value))
}

/// As little as each kind of client takes for an answer.
fn document(client: &str, path: &str, authority: &str) -> (StatusCode, &'static str, String) {
    let body = match (client, path) {
        ("git", "/repository.git/info/refs") => {
            return (StatusCode::OK, "application/x-git-upload-pack-advertisement", references());
        }
        ("pip", "/simple/keyferry-doctor/") => {
            let wheel = "keyferry_doctor-1.0-py3-none-any.whl";
            return (
                StatusCode::OK,
                "text/html",
                format!("<!DOCTYPE html><a href=\"/{wheel}\">{wheel}</a>\n"),
            );
        }
        ("npm", "/keyferry-doctor") => {
            let name = "keyferry-doctor";
            let dist =
                json!({ "tarball": format!("https://{authority}/{name}.tgz"), "shasum": "0".repeat(40) });
            let version = json!({ "name": name, "version": "1.0.0", "dist": dist });
            json!({ "name": name, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } })
                .to_string()
        }
        ("go", path) if path.ends_with("/@v/list") => "v1.0.0\n".to_owned(),
        ("go", path) if path.ends_with(".mod") => format!("module {DOMAIN}/module\n"),
        ("go", _) => json!({ "Version": "v1.0.0", "Time": "2020-01-01T00:00:00Z" }).to_string(),
        ("aws", _) => {
            let body = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
                <Arn>arn:aws:iam::123456789012:user/doctor</Arn><UserId>AIDADOCTOR</UserId><Account>123456789012</Account>\
                </GetCallerIdentityResult></GetCallerIdentityResponse>";
            return (StatusCode::OK, "text/xml", body.to_owned());
        }
        ("git" | "pip" | "npm", _) => {
            return (StatusCode::NOT_FOUND, "text/plain", "nothing here\n".to_owned());
        }
        _ => json!({ "projects": [] }).to_string(),
    };
    (StatusCode::OK, "application/json", body)
}

/// The references of a repository with one branch, in git's pkt-lines: four hexadecimal digits of length, and the line.
fn references() -> String {
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let commit = "1".repeat(40);
    [
        &line("# service=git-upload-pack\n"),
        "0000",
        &line(&format!("{commit} HEAD\0agent=keyferry-doctor symref=HEAD:refs/heads/main\n")),
        &line(&format!("{commit} refs/heads/main\n")),
        "0000",
    ]
    .concat()
}
