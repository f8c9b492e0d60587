//! What a sandbox sees of a refusal: JSON, `Proxy-Status`, and the code in the reason phrase, which clients show of a refused CONNECT.

use http::header::{CONTENT_TYPE, HeaderValue, PROXY_AUTHENTICATE};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;
use keyferry_config::policy::{Reason, Refusal};
use serde::Serialize;

use crate::audit::Recorder;
use crate::body::ResponseBody;
use crate::guard::request::PROXY_STATUS;

#[derive(Serialize)]
struct Words<'a> {
    error: &'static str,
    reason: &'static str,
    message: &'a str,
    hint: &'static str,
    request_id: String,
}

/// The response to a refused request; its end writes the record.
pub(crate) fn respond(refusal: &Refusal, mut recorder: Recorder) -> Response<ResponseBody> {
    recorder.refuse(refusal);
    let request_id = recorder.entry().id.to_string();
    answer(refusal, request_id, Some(recorder))
}

/// The response to a request that cannot even be recorded.
pub(crate) fn respond_unrecorded(refusal: &Refusal) -> Response<ResponseBody> {
    answer(refusal, String::new(), None)
}

fn answer(refusal: &Refusal, request_id: String, recorder: Option<Recorder>) -> Response<ResponseBody> {
    let reason = refusal.reason;
    let mut response = if reason == Reason::ProxyAuthRequired {
        // Without a body: git and Java retry on the same connection, and read none (RFC 9110 section 15.5.8).
        let mut response = Response::new(ResponseBody::own("", recorder));
        response
            .headers_mut()
            .insert(PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"keyferry\""));
        response
    } else {
        let words = Words {
            error: "keyferry",
            reason: reason.code(),
            message: &refusal.message,
            hint: reason.hint(),
            request_id,
        };
        let body = serde_json::to_vec(&words).unwrap_or_default();
        let mut response = Response::new(ResponseBody::own(body, recorder));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    *response.status_mut() =
        StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(PROXY_STATUS, proxy_status(reason));
    response.extensions_mut().insert(ReasonPhrase::from_static(reason.code().as_bytes()));
    response
}

/// `keyferry; error=http_request_denied; details="host_not_allowed"`.
fn proxy_status(reason: Reason) -> HeaderValue {
    let text = format!("keyferry; error={}; details=\"{}\"", reason.proxy_status(), reason.code());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("keyferry"))
}
