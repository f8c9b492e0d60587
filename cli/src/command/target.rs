//! Where a request goes, as a command line says it: a host, an address range, or either with a port and a scheme.

use std::str::FromStr;

use serde_json::{Value, json};

/// `api.example`, `*.example`, `10.0.0.0/8`, `api.example:8443`, `http://api.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    place: Place,
    port: Option<u16>,
    scheme: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Host(String),
    Cidr(String),
}

impl Target {
    /// A rule of the API. Control judges names, ranges, methods and paths.
    pub(super) fn rule(&self, methods: &[String], paths: &[String]) -> Value {
        let mut rule = match &self.place {
            Place::Host(host) => json!({ "host": host }),
            Place::Cidr(cidr) => json!({ "cidr": cidr }),
        };
        if let Some(port) = self.port {
            rule["ports"] = json!([port]);
        }
        if let Some(scheme) = self.scheme {
            rule["schemes"] = json!([scheme]);
        }
        if !methods.is_empty() {
            rule["http_methods"] = json!(methods);
        }
        if !paths.is_empty() {
            rule["paths"] = json!(paths);
        }
        rule
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("https", rest)) => (Some("https"), rest),
            Some(("http", rest)) => (Some("http"), rest),
            Some((scheme, _)) => return Err(format!("{scheme} is neither https nor http")),
        };
        let (place, port) = split_port(rest)?;
        let place = place.trim_start_matches('[').trim_end_matches(']');
        if let Some((_, after)) = place.split_once('/') {
            let is_range = !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit());
            return match is_range {
                true => Ok(Self { place: Place::Cidr(place.to_owned()), port, scheme }),
                false => Err("it names a path; give that with --path".to_owned()),
            };
        }
        if place.is_empty() {
            return Err("write a host, such as api.example, or a range, such as 10.0.0.0/8".to_owned());
        }
        // The policy language means names by `host`, and addresses by ranges alone.
        let place = match place.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(address)) => Place::Cidr(format!("{address}/32")),
            Ok(std::net::IpAddr::V6(address)) => Place::Cidr(format!("{address}/128")),
            Err(_) => Place::Host(place.to_owned()),
        };
        Ok(Self { place, port, scheme })
    }
}

/// A colon is a port's where there is one, or where it follows the bracket of an IPv6 address.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let split = match text.strip_prefix('[') {
        Some(_) => text.split_once("]:"),
        None if text.matches(':').count() == 1 => text.split_once(':'),
        None => None,
    };
    match split {
        None => Ok((text, None)),
        Some((place, port)) => {
            port.parse().map(|port| (place, Some(port))).map_err(|_| format!("{port:?} is no port"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_the_rule_that_it_looks_like() {
        let rule = |text: &str| text.parse::<Target>().map(|target| target.rule(&[], &[]));
        for (text, expected) in [
            ("api.example", json!({ "host": "api.example" })),
            ("*.example:8443", json!({ "host": "*.example", "ports": [8443] })),
            ("http://api.example:80", json!({ "host": "api.example", "ports": [80], "schemes": ["http"] })),
            ("10.0.0.0/8", json!({ "cidr": "10.0.0.0/8" })),
            ("127.0.0.1:8443", json!({ "cidr": "127.0.0.1/32", "ports": [8443] })),
            ("::1", json!({ "cidr": "::1/128" })),
            ("https://[::1]:8443", json!({ "cidr": "::1/128", "ports": [8443], "schemes": ["https"] })),
            ("2001:db8::/32", json!({ "cidr": "2001:db8::/32" })),
        ] {
            assert_eq!(rule(text), Ok(expected), "{text}");
        }
        for text in ["", "https://", "ftp://x", "api.example:x", "api.example/v1", "https://api.example/"] {
            assert!(rule(text).is_err(), "{text}");
        }
        let narrow = "a.example".parse::<Target>().map(|it| it.rule(&["GET".into()], &["/v1/*".into()]));
        assert_eq!(narrow, Ok(json!({ "host": "a.example", "http_methods": ["GET"], "paths": ["/v1/*"] })));
    }
}
