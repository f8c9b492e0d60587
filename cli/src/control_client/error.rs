//! Why control did not do what it was asked for, in its own words.

use std::fmt;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::failure::Failure;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers.
    #[error("{endpoint} cannot be reached: {reason}\nhint: is it running? `keyferry status` tells")]
    Unreachable { endpoint: String, reason: String },
    /// It says no.
    #[error("{0}")]
    Refused(Refusal),
    /// What answers is no control service.
    #[error("{endpoint} did not answer as a control service does: {reason}\nhint: is the address right?")]
    Answer { endpoint: String, reason: String },
}

/// What control said, and to what.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// Each field with what is wrong with it.
    pub(crate) details: Vec<(String, String)>,
}

impl Refusal {
    /// `None` where the body is not control's.
    pub(super) fn read(method: Method, path: &str, status: StatusCode, body: &Value) -> Option<Self> {
        let error = body.get("error")?;
        let message = error.get("message")?.as_str()?.to_owned();
        let details = error.get("details").and_then(Value::as_object).into_iter().flatten();
        let details = details.flat_map(|(field, messages)| {
            let messages = messages.as_array().into_iter().flatten().filter_map(Value::as_str);
            messages.map(|message| (field.clone(), message.to_owned()))
        });
        Some(Self { method, path: path.to_owned(), status, message, details: details.collect() })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, status, message, details } = self;
        let path = path.split('?').next().unwrap_or_default();
        write!(f, "control says {} to {method} {path}: {message}", status.as_u16())?;
        for (field, message) in details {
            match field.as_str() {
                "base" => write!(f, "\n  {message}")?,
                field => write!(f, "\n  {field}: {message}")?,
            }
        }
        if *status == StatusCode::UNAUTHORIZED {
            write!(f, "\nhint: set KEYFERRY_CONTROL_API_KEY to a key that `keyferry control` made")?;
        }
        Ok(())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            // Trying again with the same key will not help.
            ClientError::Refused(refusal) if refusal.status == StatusCode::UNAUTHORIZED => {
                Self::config(error)
            }
            ClientError::Refused(_) | ClientError::Unreachable { .. } | ClientError::Answer { .. } => {
                Self::fatal(error)
            }
        }
    }
}
