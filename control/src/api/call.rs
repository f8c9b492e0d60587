//! One request, as handlers see it, and what they answer.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::App;
use super::auth::Caller;
use super::error::{ApiError, json_response};
use super::route::Route;
use crate::attributes::Attributes;
use crate::id::IdOf;
use crate::rows::list::{Listed, Page};
use crate::rows::write::Write;

/// A request that was admitted.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) route: &'static Route,
    pub(crate) caller: Caller,
    pub(crate) path: HashMap<String, String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// The part `name` of the path.
    pub(crate) fn part(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// The row that the path names.
    pub(crate) fn row(&self, name: &str, of: IdOf) -> Result<i64, ApiError> {
        of.row(self.part(name)).ok_or(ApiError::NotFound)
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that must be there.
    pub(crate) fn required(&self, name: &str, missing: &'static str) -> Result<&str, ApiError> {
        self.parameter(name).filter(|text| !text.is_empty()).ok_or(ApiError::Malformed(missing))
    }

    /// `labels[k]=v`, as often as it stands there.
    pub(crate) fn labels(&self) -> Result<Vec<(String, String)>, ApiError> {
        let mut labels = Vec::new();
        for (key, value) in &self.query {
            let Some(rest) = key.strip_prefix("labels") else { continue };
            match rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(label)
                    if !label.is_empty() && !label.contains(['[', ']', '\0']) && !value.contains('\0') =>
                {
                    labels.push((label.to_owned(), value.clone()));
                }
                _ => return Err(ApiError::Malformed("write a filter as labels[NAME]=VALUE")),
            }
        }
        if labels.len() > 20 {
            return Err(ApiError::Malformed("at most 20 labels"));
        }
        Ok(labels)
    }

    /// Which page is asked for.
    pub(crate) fn page(&self) -> Result<Page, ApiError> {
        let number = |name: &str, default: i64, most: i64| match self.parameter(name) {
            None => Ok(default),
            // Too large for a number is too large for a page.
            Some(text) if text.len() > 18 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(most),
            Some(text) => text
                .parse::<i64>()
                .map(|number| number.clamp(1, most))
                .map_err(|_| ApiError::Malformed("page and limit are whole numbers")),
        };
        Ok(Page { page: number("page", 1, 1_000_000_000)?, limit: number("limit", 50, 200)? })
    }

    /// The whole body as JSON.
    pub(crate) fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.body).map_err(|_| ApiError::Malformed("the body is not JSON"))
    }

    /// What stands in `data`.
    pub(crate) fn data(&self) -> Result<Attributes, ApiError> {
        match self.json()? {
            Value::Object(mut body) => match body.remove("data") {
                Some(Value::Object(data)) => Ok(Attributes::new(data)),
                _ => Err(ApiError::Malformed("the body must have an object under \"data\"")),
            },
            _ => Err(ApiError::Malformed("the body must have an object under \"data\"")),
        }
    }

    /// Refuses where `If-Match` names another state than this one (T76: what is lost is never silently lost).
    pub(crate) fn if_match(&self, updated_at: i64) -> Result<(), ApiError> {
        match self.headers.get(header::IF_MATCH).map(HeaderValue::to_str) {
            None | Some(Ok("*")) => Ok(()),
            Some(Ok(tags)) if tags.split(',').any(|tag| tag.trim() == etag(updated_at)) => Ok(()),
            Some(_) => Err(ApiError::Changed),
        }
    }

    /// `If-Match: *` on what does not exist.
    pub(crate) fn if_match_absent(&self) -> Result<(), ApiError> {
        if self.headers.contains_key(header::IF_MATCH) { Err(ApiError::Changed) } else { Ok(()) }
    }

    /// Begins a write in the caller's name.
    pub(crate) async fn write(&self) -> Result<Write, ApiError> {
        Ok(Write::begin(&self.app.store, &self.caller.name(), (self.app.clock)()).await?)
    }

    /// Makes a write last, and known to this replica before its caller is answered.
    pub(crate) async fn commit(&self, write: Write) -> Result<u64, ApiError> {
        let (generation, affected) = write.commit().await?;
        self.app.hub.committed(&generation, &affected);
        Ok(generation.number)
    }
}

/// The state of a resource that was last changed then.
pub(crate) fn etag(updated_at: i64) -> String {
    format!("\"{updated_at}\"")
}

/// What a handler answers.
pub(crate) enum Answer {
    /// `{data}`, with what else stands beside it, and its state.
    Data { status: StatusCode, data: Value, warnings: Vec<String>, etag: Option<String> },
    /// `{data, meta}`.
    List { data: Vec<Value>, meta: Value },
    /// 204.
    Nothing,
    /// Something of its own.
    Own(Response),
}

impl Answer {
    /// `{data}`.
    pub(crate) fn data(data: Value) -> Self {
        Self::Data { status: StatusCode::OK, data, warnings: Vec::new(), etag: None }
    }

    /// `{data}` of a new resource.
    pub(crate) fn created(data: Value) -> Self {
        Self::Data { status: StatusCode::CREATED, data, warnings: Vec::new(), etag: None }
    }

    /// With the state of the resource.
    pub(crate) fn at(mut self, updated_at: i64) -> Self {
        if let Self::Data { etag: tag, .. } = &mut self {
            *tag = Some(etag(updated_at));
        }
        self
    }

    /// With what its author should look at.
    pub(crate) fn warning(mut self, warned: Vec<String>) -> Self {
        if let Self::Data { warnings, .. } = &mut self {
            *warnings = warned;
        }
        self
    }

    /// A page.
    pub(crate) fn list<E>(
        listed: &Listed,
        shown: impl Fn(&keyferry_store::Row) -> Result<Value, E>,
    ) -> Result<Self, E> {
        let data = listed.rows.iter().map(shown).collect::<Result<_, _>>()?;
        Ok(Self::List { data, meta: listed.meta.clone() })
    }

    /// All of a list on one page.
    pub(crate) fn all(data: Vec<Value>) -> Self {
        let total = data.len();
        Self::List {
            data,
            meta: json!({ "page": 1, "limit": total.max(1), "total": total, "total_pages": 1 }),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Data { status, data, warnings, etag } => {
                let mut body = Map::from_iter([("data".to_owned(), data)]);
                if !warnings.is_empty() {
                    body.insert("warnings".to_owned(), json!(warnings));
                }
                let mut response = json_response(status, &Value::Object(body));
                if let Some(tag) = etag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
                    response.headers_mut().insert(header::ETAG, tag);
                }
                response
            }
            Self::List { data, meta } => {
                json_response(StatusCode::OK, &json!({ "data": data, "meta": meta }))
            }
            Self::Nothing => (StatusCode::NO_CONTENT, Body::empty()).into_response(),
            Self::Own(response) => response,
        }
    }
}
