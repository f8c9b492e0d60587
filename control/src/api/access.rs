//! What a principal may do: the whole of it, and for one request.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use keyferry_config::document::parse_rendered;
use keyferry_config::policy::{Destination, Host, Policy, RequestHead, Scheme};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::error::{ApiError, json_response};
use super::principals;
use crate::effective::{Effective, sha256};
use crate::id::IdOf;
use crate::sync::Subject;

/// The policy of a principal as a proxy gets it, live values redacted.
pub(crate) async fn effective_config(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Principal)?;
    config_of(&call, row).await
}

/// The same, by name.
pub(crate) async fn effective_config_by_name(call: Call) -> Result<Answer, ApiError> {
    let row = principals::looked_up(&call).await?.row;
    config_of(&call, row).await
}

async fn config_of(call: &Call, row: i64) -> Result<Answer, ApiError> {
    let subject = subject(call, row).await?;
    let rendered = call.app.hub.policy(&subject).await?.ok_or(ApiError::NotFound)?;
    let policy = &rendered.policy;
    let body = json!({ "data": {
        "id": IdOf::Principal.id(row),
        "rules": policy.rules,
        "secrets": policy.secrets,
        "transforms": policy.transforms,
        "postgres": policy.postgres,
    } });
    // Of what is shown: a hash of live values would let whoever knows the rest try weak ones (T76).
    let tag = format!("\"{}\"", sha256(body.to_string().as_bytes()));
    let known = call.headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let mut response = if known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag)) {
        let mut response = axum::response::Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    } else {
        json_response(StatusCode::OK, &body)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(Answer::Own(response))
}

/// Which secrets a principal has, and why; with `method` and `url`, also what happens to that request.
pub(crate) async fn explain(call: Call) -> Result<Answer, ApiError> {
    let row = call.row("id", IdOf::Principal)?;
    let request = match (call.parameter("method"), call.parameter("url")) {
        (None, None) => None,
        (method, Some(url)) => Some(read_request(method.unwrap_or("GET"), url)?),
        (Some(_), None) => return Err(ApiError::Malformed("url is required")),
    };
    let subject = subject(&call, row).await?;
    let effective = call.app.hub.effective(&subject).await?.ok_or(ApiError::NotFound)?;
    let mut data = json!({
        "id": IdOf::Principal.id(row),
        "secrets": effective.secrets,
        "rules": rules(&effective),
        "needs": effective.needs,
        "valid_until": effective.valid_until,
    });
    if let Some((destination, target, method)) = request {
        data["request"] = judge(&call, &effective, &destination, &target, &method)?;
    }
    Ok(Answer::data(data))
}

/// Whose access is asked for. A requesting user who does not exist, or is another tenant's, is no requesting user.
async fn subject(call: &Call, principal: i64) -> Result<Subject, ApiError> {
    let requester = match call.parameter("requester_principal_id") {
        Some(id) => {
            let row = IdOf::Principal.row(id).ok_or(ApiError::NotFound)?;
            let holder = principals::by_row(&mut &call.app.store, principal).await?;
            principals::requester(&mut &call.app.store, row, &holder.ok_or(ApiError::NotFound)?).await?;
            Some(row)
        }
        None => None,
    };
    Ok(Subject { principal, requester, proxy_labels: None })
}

/// Each rule of the policy with where it comes from.
fn rules(effective: &Effective) -> Vec<Value> {
    let rules = effective.policy.rules.iter().zip(&effective.origins);
    rules.map(|(rule, origin)| json!({ "rule": rule, "from": origin })).collect()
}

/// Asks the compiled policy, the same that a proxy asks.
fn judge(
    call: &Call,
    effective: &Effective,
    destination: &Destination,
    target: &str,
    method: &Method,
) -> Result<Value, ApiError> {
    let document = effective.policy.document((call.app.clock)());
    let loaded = parse_rendered("policy", &document.reveal())
        .map_err(|_| ApiError::Broken("the rendered policy is not of the policy language"))?;
    let policy = Policy::compile(&loaded.document, 0)
        .map_err(|_| ApiError::Broken("the rendered policy does not compile"))?;
    let headers = HeaderMap::new();
    let request = RequestHead { method, target, headers: &headers };
    let explanation = Arc::new(policy).explain(destination, &request);
    let mut shown =
        serde_json::to_value(&explanation).map_err(|_| ApiError::Broken("it cannot be written"))?;
    // Rules and secrets have names of their own here; in the document they are numbers.
    let place = |name: &str| name.strip_prefix("allowlist.rules[")?.strip_suffix(']')?.parse::<usize>().ok();
    if let Some(origin) = explanation.rule.as_deref().and_then(place).and_then(|at| effective.origins.get(at))
    {
        shown["rule_from"] = json!(origin);
    }
    if let Some(Value::Array(secrets)) = shown.get_mut("secrets") {
        for (secret, entry) in secrets.iter_mut().zip(&effective.policy.secrets) {
            secret["secret_id"] = json!(entry.get("id"));
            secret["secret"] = json!(entry.get("name").or(entry.get("id")));
        }
    }
    Ok(shown)
}

fn read_request(method: &str, url: &str) -> Result<(Destination, String, Method), ApiError> {
    const MALFORMED: ApiError = ApiError::Malformed(
        "method and url must be those of a request, such as GET and https://api.example/v1",
    );
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| MALFORMED)?;
    let uri: Uri = url.parse().map_err(|_| MALFORMED)?;
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(MALFORMED),
    };
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let (host, port) = Host::parse_authority(authority).map_err(|_| MALFORMED)?;
    let destination = Destination { scheme, host, port: port.unwrap_or(scheme.default_port()) };
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    Ok((destination, target, method))
}
