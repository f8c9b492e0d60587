//! The standard variables of OpenTelemetry, as far as keyferry has the thing that they set.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use keyferry_proxy::{OtlpEndpoint, OtlpSettings, Sampler};
use percent_encoding::percent_decode_str;

/// The collector of this machine, where the variables ask for one and name none.
const DEFAULT_ENDPOINT: &str = "http://localhost:4318";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the environment asks for; none if nothing. An error names a variable, and never what is in one that may hold a secret.
pub(crate) fn settings(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<OtlpSettings>, String> {
    // Empty counts as unset, as the specification says.
    let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
    if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let logs = endpoint("LOGS", &variable)?;
    let traces = endpoint("TRACES", &variable)?;
    if logs.is_none() && traces.is_none() {
        return Ok(None);
    }
    Ok(Some(OtlpSettings { logs, traces, sampler: sampler(&variable)?, resource: resource(&variable)? }))
}

fn endpoint(signal: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<OtlpEndpoint>, String> {
    let exporter = format!("OTEL_{signal}_EXPORTER");
    let asked = match variable(&exporter).as_deref() {
        Some("none") => return Ok(None),
        Some("otlp") => true,
        Some(_) => return Err(format!("{exporter}: only otlp and none are known")),
        None => false,
    };
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_");
    let setting = |key: &str| {
        let (own, all) = (format!("{own}{key}"), format!("OTEL_EXPORTER_OTLP_{key}"));
        variable(&own).map(|text| (own, text)).or_else(|| variable(&all).map(|text| (all, text)))
    };
    let url = match setting("ENDPOINT") {
        Some((name, text)) => endpoint_url(&name, &text, name.starts_with(&own), signal)?,
        None if asked => endpoint_url("", DEFAULT_ENDPOINT, false, signal)?,
        None => return Ok(None),
    };
    if let Some((name, protocol)) = setting("PROTOCOL")
        && protocol != "http/protobuf"
    {
        return Err(format!(
            "{name}: this version speaks http/protobuf\n  hint: leave the variable out; collectors listen for it on port 4318"
        ));
    }
    let timeout = match setting("TIMEOUT") {
        None => DEFAULT_TIMEOUT,
        Some((name, text)) => match text.parse() {
            Ok(milliseconds @ 1..) => Duration::from_millis(milliseconds),
            Ok(0) | Err(_) => return Err(format!("{name}: not a number of milliseconds")),
        },
    };
    let gzip = match setting("COMPRESSION") {
        None => false,
        Some((_, text)) if text == "none" => false,
        Some((_, text)) if text == "gzip" => true,
        Some((name, _)) => return Err(format!("{name}: only gzip and none are known")),
    };
    let headers = setting("HEADERS").map_or(Ok(HeaderMap::new()), |(name, text)| headers(&name, &text))?;
    let certificate = setting("CERTIFICATE").map(|(_, path)| path.into());
    Ok(Some(OtlpEndpoint { url, headers, timeout, gzip, certificate }))
}

/// A signal's own endpoint stands as it is; the common one is a base.
fn endpoint_url(name: &str, text: &str, is_whole: bool, signal: &str) -> Result<Uri, String> {
    let wrong = || format!("{name}: not an http or https URL");
    let mut parts = text.parse::<Uri>().map_err(|_| wrong())?.into_parts();
    if !matches!(parts.scheme.as_ref().map(|scheme| scheme.as_str()), Some("http" | "https")) {
        return Err(wrong());
    }
    if parts.authority.as_ref().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(format!(
            "{name}: holds credentials\n  hint: a collector is sent them by OTEL_EXPORTER_OTLP_HEADERS"
        ));
    }
    if !is_whole {
        let base = parts.path_and_query.as_ref().map_or("", |target| target.path()).trim_end_matches('/');
        let path = format!("{base}/v1/{}", signal.to_ascii_lowercase());
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| wrong())?);
    }
    Uri::from_parts(parts).map_err(|_| wrong())
}

/// `name=value,name=value`, values percent-encoded.
fn headers(variable: &str, text: &str) -> Result<HeaderMap, String> {
    let wrong = || format!("{variable}: not a list of NAME=VALUE");
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(text).ok_or_else(wrong)? {
        let name = HeaderName::try_from(name).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        // It is most likely a credential, and prints as one.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

fn resource(variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, String> {
    const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let mut attributes = match variable(ATTRIBUTES) {
        Some(text) => pairs(&text).ok_or_else(|| format!("{ATTRIBUTES}: not a list of NAME=VALUE"))?,
        None => Vec::new(),
    };
    let named = variable("OTEL_SERVICE_NAME");
    if named.is_some() || !attributes.iter().any(|(name, _)| name == "service.name") {
        attributes.retain(|(name, _)| name != "service.name");
        attributes.push(("service.name".to_owned(), named.unwrap_or_else(|| "keyferry".to_owned())));
    }
    Ok(attributes)
}

fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned()))
    });
    pairs.collect()
}

fn sampler(variable: &dyn Fn(&str) -> Option<String>) -> Result<Sampler, String> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let ratio = || match variable(ARGUMENT) {
        None => Ok(1.0),
        Some(text) => match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            Ok(_) | Err(_) => Err(format!("{ARGUMENT}: not a number from 0 to 1")),
        },
    };
    let name = variable(SAMPLER).unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (follows_parent, own) = match name.strip_prefix("parentbased_") {
        Some(own) => (true, own),
        None => (false, name.as_str()),
    };
    let ratio = match own {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio()?,
        _ => {
            return Err(format!(
                "{SAMPLER}: not a sampler\n  hint: always_on, always_off, traceidratio, or one of them behind parentbased_"
            ));
        }
    };
    Ok(Sampler { follows_parent, ratio })
}

#[cfg(test)]
mod tests;
