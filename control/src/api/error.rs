//! Answers that say no.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use keyferry_store::StoreError;
use serde_json::{Map, Value, json};

use crate::details::Details;

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// It cannot be read.
    Malformed(&'static str),
    /// No key, or one that is not good.
    NoOperator,
    /// No proxy's token, or one that nobody knows.
    NoProxy,
    /// The token of a proxy that was deleted: it must drop everything.
    ProxyRevoked,
    /// There is no such thing, or not for this caller (T76).
    NotFound,
    /// There is no such method.
    MethodNotAllowed,
    /// Somebody else changed it meanwhile.
    Changed,
    /// It is too long.
    TooLong,
    /// It did not come in time.
    TooSlow,
    /// What it says cannot be.
    Invalid(Details),
    /// In one sentence.
    Refused(&'static str),
    /// The database.
    Store(StoreError),
    /// Neither the caller nor the database is at fault.
    Broken(&'static str),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Details> for ApiError {
    fn from(details: Details) -> Self {
        Self::Invalid(details)
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoOperator | Self::NoProxy | Self::ProxyRevoked => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Changed => StatusCode::PRECONDITION_FAILED,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Invalid(_) | Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Store(StoreError::Unavailable { .. } | StoreError::Conflict) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Store(_) | Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn message(&self) -> &'static str {
        match self {
            Self::Malformed(message) | Self::Refused(message) | Self::Broken(message) => message,
            Self::NoOperator => "invalid or missing API key",
            Self::NoProxy => "invalid or missing proxy token",
            Self::ProxyRevoked => "this proxy was deregistered",
            Self::NotFound => "not found",
            Self::MethodNotAllowed => "this route has no such method",
            Self::Changed => "the resource was changed since; read it again",
            Self::TooLong => "the body is longer than 1 MiB",
            Self::TooSlow => "the body did not come in time",
            Self::Invalid(_) => "validation failed",
            Self::Store(StoreError::Unavailable { .. }) => "the database is unavailable; try again",
            Self::Store(StoreError::Conflict) => "others wrote at the same time; try again",
            Self::Store(_) => "the database failed",
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::ProxyRevoked => Some("proxy_revoked"),
            Self::NoProxy => Some("invalid_token"),
            Self::Malformed(_)
            | Self::NoOperator
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Changed
            | Self::TooLong
            | Self::TooSlow
            | Self::Invalid(_)
            | Self::Refused(_)
            | Self::Store(_)
            | Self::Broken(_) => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            match &self {
                Self::Store(error) => tracing::error!(%error, "a request failed"),
                other => tracing::error!(message = other.message(), "a request failed"),
            }
        }
        let mut error = Map::new();
        if let Some(code) = self.code() {
            error.insert("code".to_owned(), json!(code));
        }
        error.insert("message".to_owned(), json!(self.message()));
        if let Self::Invalid(details) = &self {
            error.insert("details".to_owned(), json!(details));
        }
        let mut response = json_response(status, &json!({ "error": Value::Object(error) }));
        if let Self::TooLong | Self::TooSlow = self {
            // The rest of the body is not waited for.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON answer that nobody keeps.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, answer_headers("application/json"), body.to_string()).into_response()
}

/// What every answer says to whatever reads it: keep nothing, guess nothing, and no page may show it (T72).
pub(crate) const fn answer_headers(content_type: &'static str) -> [(HeaderName, &'static str); 4] {
    [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ]
}
