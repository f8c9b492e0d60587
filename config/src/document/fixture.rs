//! Fixtures: requests, and what a policy is expected to say about them. A file of its own beside a configuration.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::field::{Block, Field, text};
use super::node;
use super::place::{At, Findings};
use super::problem::{Location, Problems};
use crate::policy::{self, Destination, Reason, UrlError};

/// A file of fixtures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixtures {
    /// The configuration that they are about, as the file has it: relative to the folder of the file.
    pub config: Option<PathBuf>,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// A request and what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What people call it.
    pub name: String,
    /// Where it begins.
    pub location: Option<Location>,
    /// The request.
    pub request: CaseRequest,
    /// What is expected.
    pub expect: Expectation,
}

/// A request as a client would send it. Its body is not part of a fixture: the head decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseRequest {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub destination: Destination,
    /// Path and query.
    pub target: String,
    /// All header fields.
    pub headers: HeaderMap,
}

/// What a policy should say. What is absent is not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Forward or refuse.
    pub verdict: ExpectedVerdict,
    /// The rule that decides.
    pub rule: Option<String>,
    /// Every secret that the request would carry, and where.
    pub secrets: Option<BTreeMap<String, BTreeSet<String>>>,
    /// What becomes of credentials of the client's own.
    pub foreign_credentials: Option<ForeignOutcome>,
}

/// Forward or refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVerdict {
    /// It is sent on.
    Forward,
    /// It is refused, for this reason where one is given.
    Refuse(Option<Reason>),
}

/// What becomes of credentials of the client's own that do not lead to a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename = "foreign_credentials", rename_all = "lowercase")]
pub enum ForeignOutcome {
    /// There are none.
    None,
    /// They pass.
    Passed,
    /// They are taken out.
    Stripped,
}

impl Fixtures {
    /// Reads `text`; `file_name` is for messages alone. The error holds every problem that was found.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Problems> {
        let root = node::parse(text).map_err(|problem| Problems::new(file_name, vec![problem]))?;
        let findings = Findings::new(false);
        let fixtures = Self::read(&At::root(&root, &findings));
        let problems = Problems::new(file_name, findings.into_list());
        match fixtures.filter(|_| problems.is_empty()) {
            Some(fixtures) => Ok(fixtures),
            None => Err(problems),
        }
    }

    fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let cases = at.key("cases");
        if cases.lists_nothing() {
            cases.error("at least one case is required", "write cases: [{ name: …, request: …, expect: … }]");
        }
        let mut names = HashSet::new();
        Some(Self {
            config: keys.config.not_empty().get().map(PathBuf::from),
            cases: cases.each().iter().filter_map(|at| Case::read(at, &mut names)).collect(),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    config: Field<String>,
    #[serde(rename = "cases")]
    _cases: Block,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CaseKeys {
    name: Field<String>,
    #[serde(rename = "request")]
    _request: Block,
    #[serde(rename = "expect")]
    _expect: Block,
}

impl Case {
    fn read(at: &At<'_>, names: &mut HashSet<String>) -> Option<Self> {
        let keys: CaseKeys = at.decode()?;
        let name = at.required_text(keys.name, "name", "what the case shows");
        if let Some(name) = &name {
            at.key("name").check_new(name, names, "case");
        }
        let request = CaseRequest::read(&at.key("request"));
        let expect = Expectation::read(&at.key("expect"));
        let location = at.key("name").location();
        Some(Self { name: name?, location, request: request?, expect: expect? })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestKeys {
    #[serde(deserialize_with = "text")]
    method: Field<Method>,
    url: Field<String>,
    principal: Field<String>,
    #[serde(rename = "headers")]
    _headers: Block,
}

impl CaseRequest {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: RequestKeys = at.decode()?;
        if let Field::Is(Method::CONNECT) = keys.method {
            at.key("method").error(
                "a tunnel is judged with the request inside of it",
                "write the method and the URL of that request",
            );
        }
        if keys.principal.get().is_some_and(|principal| principal != PRINCIPAL) {
            let at = at.key("principal");
            at.error(
                format!("no such principal: {}", at.shown()),
                format!("a configuration is for {PRINCIPAL}"),
            );
        }
        let url = at.required_text(keys.url, "url", "where the request goes: https://api.example/v1/models");
        let parsed = url.map(|url| Destination::of_url(&url));
        if let Some(Err(error)) = &parsed {
            let at = at.key("url");
            let hint = match error {
                UrlError::User => "write headers: { Authorization: Basic … }",
                UrlError::Syntax(_) | UrlError::Scheme | UrlError::Host(_) => {
                    "write https://api.example/v1/models"
                }
            };
            at.error(format!("{error}: {}", at.shown()), hint);
        }
        let headers = headers(&at.key("headers"));
        let (destination, target) = parsed?.ok()?;
        Some(Self { method: keys.method.get().unwrap_or(Method::GET), destination, target, headers })
    }
}

/// On whose behalf requests come today.
const PRINCIPAL: &str = "local";

/// `NAME: VALUE`, or `NAME: [VALUE, …]` for a field that is there more than once.
fn headers(at: &At<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, at) in at.entries() {
        let Ok(name) = name.parse::<HeaderName>() else {
            at.error("not the name of a header", "write a name such as Authorization");
            continue;
        };
        let values = if at.is_list() { at.each() } else { vec![at] };
        for at in values {
            let Field::Is(text) = at.parse::<String>() else { continue };
            match HeaderValue::from_str(&text) {
                Ok(value) => {
                    headers.append(name.clone(), value);
                }
                Err(_) => at.error(
                    format!("not the value of a header: {}", at.shown()),
                    "write one line of printable ASCII",
                ),
            }
        }
    }
    headers
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ExpectKeys {
    verdict: Field<Verdict>,
    reason: Field<String>,
    rule: Field<String>,
    foreign_credentials: Field<ForeignOutcome>,
    #[serde(rename = "secrets")]
    _secrets: Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename = "verdict", rename_all = "lowercase")]
enum Verdict {
    Forward,
    Refuse,
}

impl Expectation {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: ExpectKeys = at.decode()?;
        if keys.verdict.is_absent() {
            at.key("verdict").error("required", "write forward, or refuse");
        }
        let reason = reason(keys.reason, &at.key("reason"));
        let verdict = match keys.verdict.get() {
            Some(Verdict::Refuse) => Some(ExpectedVerdict::Refuse(reason)),
            Some(Verdict::Forward) => Some(ExpectedVerdict::Forward),
            None => None,
        };
        if verdict == Some(ExpectedVerdict::Forward) && at.key("reason").node().is_some() {
            at.key("reason")
                .error("a request that is forwarded has no reason", "leave it out, or expect refuse");
        }
        let secrets = at.key("secrets");
        if matches!(verdict, Some(ExpectedVerdict::Refuse(_))) && secrets.node().is_some() {
            secrets.error("a request that is refused carries no secret", "leave it out");
        }
        let secrets = secrets.node().map(|_| secrets.entries());
        let secrets = secrets
            .map(|named| named.into_iter().map(|(name, at)| (name.to_owned(), locations(&at))).collect());
        Some(Self {
            verdict: verdict?,
            rule: keys.rule.not_empty().get(),
            secrets,
            foreign_credentials: keys.foreign_credentials.get(),
        })
    }
}

fn reason(written: Field<String>, at: &At<'_>) -> Option<Reason> {
    let code = written.not_empty().get()?;
    let reason = Reason::of_code(&code);
    if reason.is_none() {
        let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        at.error(format!("unknown reason: {}", at.shown()), at.guess(&code, &codes));
    }
    reason
}

fn locations(at: &At<'_>) -> BTreeSet<String> {
    let places = at.each();
    let places = places.iter().filter_map(|at| at.parse::<policy::Location>().get());
    places.map(|place| place.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_the_places_of_its_cases() {
        let text = "\
config: keyferry.yaml
cases:
- name: the model is asked
  request: { method: POST, url: 'https://api.example/v1?a=b', principal: local, headers: { Authorization: Bearer KEY, Accept: [a, b] } }
  expect: { verdict: forward, rule: 'allowlist.rules[0]', secrets: { KEY: ['header:Authorization', 'query:k', body] }, foreign_credentials: none }
- name: nothing else
  request: { url: http://other.example }
  expect: { verdict: refuse, reason: host_not_allowed }
";
        let headers = [("authorization", "Bearer KEY"), ("accept", "a"), ("accept", "b")];
        let mut expected = HeaderMap::new();
        for (name, value) in headers {
            expected.append(name, HeaderValue::from_static(value));
        }
        let (destination, target) = Destination::of_url("https://api.example/v1?a=b").unwrap();
        let (other, root) = Destination::of_url("http://other.example").unwrap();
        let places = ["body", "header:authorization", "query:k"].map(str::to_owned);
        assert_eq!(
            Fixtures::parse("f.yaml", text),
            Ok(Fixtures {
                config: Some("keyferry.yaml".into()),
                cases: vec![
                    Case {
                        name: "the model is asked".to_owned(),
                        location: Some(Location { line: 3, column: 9 }),
                        request: CaseRequest { method: Method::POST, destination, target, headers: expected },
                        expect: Expectation {
                            verdict: ExpectedVerdict::Forward,
                            rule: Some("allowlist.rules[0]".to_owned()),
                            secrets: Some([("KEY".to_owned(), places.into())].into()),
                            foreign_credentials: Some(ForeignOutcome::None),
                        },
                    },
                    Case {
                        name: "nothing else".to_owned(),
                        location: Some(Location { line: 6, column: 9 }),
                        request: CaseRequest {
                            method: Method::GET,
                            destination: other,
                            target: root,
                            headers: HeaderMap::new()
                        },
                        expect: Expectation {
                            verdict: ExpectedVerdict::Refuse(Some(Reason::HostNotAllowed)),
                            rule: None,
                            secrets: None,
                            foreign_credentials: None,
                        },
                    },
                ],
            })
        );
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_a_way_out() {
        let text = "\
config: keyferry.yaml
case: []
cases:
- name: one
  request: { method: CONNECT, url: api.example, principal: root, header: {} }
  expect: { verdict: forwards, reason: host_not_alowed, secrets: { KEY: [head] } }
- name: one
  request: { url: 'https://user@api.example/', headers: { 'a b': c, X-A: \"a\\nb\" } }
  expect: { verdict: refuse, secrets: {} }
- request: {}
  expect: { verdict: forward, reason: host_not_allowed }
";
        let problems = Fixtures::parse("f.yaml", text).unwrap_err().to_string();
        let expected = "\
f.yaml:2:1: case: unknown key
  hint: did you mean \"cases\"?
f.yaml:5:22: cases[0].request.method: a tunnel is judged with the request inside of it
  hint: write the method and the URL of that request
f.yaml:5:36: cases[0].request.url: a URL begins with https:// or http://: \"api.example\"
  hint: write https://api.example/v1/models
f.yaml:5:60: cases[0].request.principal: no such principal: \"root\"
  hint: a configuration is for local
f.yaml:5:66: cases[0].request.header: unknown key
  hint: did you mean \"headers\"?
f.yaml:6:22: cases[0].expect.verdict: unknown verdict: \"forwards\"
  hint: did you mean \"forward\"?
f.yaml:6:40: cases[0].expect.reason: unknown reason: \"host_not_alowed\"
  hint: did you mean \"host_not_allowed\"?
f.yaml:6:74: cases[0].expect.secrets.KEY[0]: not a place in a request: \"head\"
  hint: write header:NAME, query:KEY, path or body
f.yaml:7:9: cases[1].name: an earlier case has this name: \"one\"
  hint: take another name
f.yaml:8:19: cases[1].request.url: a user in a URL is for the client to send; give it as a header, Authorization: Basic …: \"https://user@api.example/\"
  hint: write headers: { Authorization: Basic … }
f.yaml:8:66: cases[1].request.headers.\"a b\": not the name of a header
  hint: write a name such as Authorization
f.yaml:8:74: cases[1].request.headers.X-A: not the value of a header: \"a\\nb\"
  hint: write one line of printable ASCII
f.yaml:9:30: cases[1].expect.secrets: a request that is refused carries no secret
  hint: leave it out
f.yaml:10:3: cases[2].name: required
  hint: say what the case shows
f.yaml:10:3: cases[2].request.url: required
  hint: say where the request goes: https://api.example/v1/models
f.yaml:11:39: cases[2].expect.reason: a request that is forwarded has no reason
  hint: leave it out, or expect refuse";
        assert_eq!(problems, expected);
    }
}
