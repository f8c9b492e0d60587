//! Whether the service is there, and whether it can serve.

use axum::response::IntoResponse;
use http::{StatusCode, header};
use keyferry_store::sql;

use super::call::{Answer, Call};
use super::error::ApiError;

/// The process answers.
pub(crate) async fn up(_: Call) -> Result<Answer, ApiError> {
    Ok(plain(StatusCode::OK, "ok\n"))
}

/// The database answers too.
pub(crate) async fn ready(call: Call) -> Result<Answer, ApiError> {
    match call.app.store.fetch_one(sql("SELECT number FROM control_state WHERE id = 1")).await {
        Ok(_) => Ok(plain(StatusCode::OK, "ready\n")),
        Err(_) => Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")),
    }
}

/// The description of this API.
pub(crate) async fn openapi(_: Call) -> Result<Answer, ApiError> {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok(Answer::Own((StatusCode::OK, headers, super::openapi::document()).into_response()))
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    Answer::Own((status, [(header::CONTENT_TYPE, "text/plain")], text).into_response())
}
