//! What a delivered policy asks for and this version cannot run. The requests that it is for are refused: without their credential or
//! signature they would leave bare.

use http::Method;

use super::Reason;
use super::compile::{CompileError, Policy, bad};
use super::destination::Destination;
use super::host::Host;
use super::host_index::HostIndex;
use super::path::NormalPath;
use super::rule::{CompiledRule, ExtraPorts, Purpose, RuleName, host_pattern};
use super::verdict::{Refusal, RequestHead};
use crate::document::{Action, Document, OauthToken, Rule, Secrets, Transform, is_read};

/// One transform or secret without an engine.
#[derive(Debug)]
pub(super) struct UnsupportedUse {
    what: std::sync::Arc<str>,
    /// Numbers are places in `rules`.
    index: HostIndex,
    /// None: it is for every request.
    rules: Vec<std::sync::Arc<CompiledRule>>,
}

/// The same for one destination.
#[derive(Debug)]
pub(super) struct ScopedUse {
    what: std::sync::Arc<str>,
    everywhere: bool,
    rules: Vec<std::sync::Arc<CompiledRule>>,
}

impl Policy {
    /// Refuses the requests to which a part of `document` applies that this version does not run.
    pub fn refuse_unsupported(&mut self, document: &Document) -> Result<(), CompileError> {
        for (at, transform) in document.transforms.iter().enumerate() {
            let path = format!("transforms[{at}].config");
            let what = format!("the transform {}", transform.name());
            match transform {
                Transform::Allowlist(_) => {}
                Transform::Secrets(Secrets { secrets }) => {
                    for entry in secrets.iter().filter(|entry| !is_read(&entry.source)) {
                        let what = format!("the source {}", entry.source.kind.type_name());
                        // Without rules it is for nothing.
                        if !entry.rules.is_empty() {
                            self.refuse(what, &entry.rules, &path)?;
                        }
                    }
                }
                Transform::OauthToken(OauthToken { tokens }) => {
                    for token in tokens {
                        self.refuse(what.clone(), &token.rules, &path)?;
                    }
                }
                Transform::GcpAuth(it) => self.refuse(what, &it.rules, &path)?,
                Transform::GcpIdToken(it) => self.refuse(what, &it.rules, &path)?,
                Transform::AwsAuth(it) => self.refuse(what, &it.rules, &path)?,
                Transform::HmacSign(it) => self.refuse(what, &it.rules, &path)?,
                // What they do is not about a credential, so no rule says where doing without is safe.
                Transform::Annotate(_)
                | Transform::HeaderAllowlist(_)
                | Transform::BodyCapture(_)
                | Transform::Grpc(_)
                | Transform::Judge(_) => self.refuse(what, &[], &path)?,
            }
        }
        Ok(())
    }

    /// What is refused so, in words.
    pub fn unsupported(&self) -> impl Iterator<Item = &str> {
        self.unsupported.iter().map(|it| &*it.what)
    }

    fn refuse(&mut self, what: String, rules: &[Rule], path: &str) -> Result<(), CompileError> {
        let mut it = UnsupportedUse { what: what.into(), index: HostIndex::default(), rules: Vec::new() };
        for (number, rule) in (0..).zip(rules) {
            let name = RuleName::from(std::sync::Arc::from(format!("{path}.rules[{number}]")));
            let compiled =
                CompiledRule::new(name, rule, Purpose::Secret).map_err(|error| bad(path, &error))?;
            it.index.insert(host_pattern(rule).map_err(|error| bad(path, &error))?, number);
            it.rules.push(compiled.into());
        }
        self.unsupported.push(it);
        Ok(())
    }
}

impl UnsupportedUse {
    pub(super) fn at(&self, to: &Destination, extra: &ExtraPorts) -> Option<ScopedUse> {
        let hits = self.index.lookup(&to.host);
        let rules = hits.iter().map(|&hit| &self.rules[hit as usize]);
        let rules: Vec<_> = rules.filter(|rule| rule.covers(to.scheme, to.port, extra)).cloned().collect();
        let everywhere = self.rules.is_empty();
        (everywhere || !rules.is_empty()).then(|| ScopedUse { what: self.what.clone(), everywhere, rules })
    }
}

impl ScopedUse {
    pub(super) fn applies(&self, request: &RequestHead<'_>, path: &NormalPath<'_>) -> bool {
        self.everywhere
            || (self.matches(Action::Allow, request.method, path)
                && !self.matches(Action::Deny, request.method, path))
    }

    fn matches(&self, action: Action, method: &Method, path: &NormalPath<'_>) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.action == action);
        rules.any(|rule| rule.allows_method(method) && rule.allows_path(path))
    }

    pub(super) fn refusal(&self, host: &Host) -> Refusal {
        let message =
            format!("{} applies to this request to {host}, and this version does not run it", self.what);
        Refusal::new(Reason::TransformUnsupported, message)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::document::parse_rendered;
    use crate::policy::{Scheme, Scope, Verdict};

    const DOCUMENT: &str = r#"{"transforms": [
        {"name": "allowlist", "config": {"rules": [{"host": "a.example"}, {"host": "b.example"}]}},
        {"name": "hmac_sign", "config": {
            "timestamp": {"format": "unix_seconds"}, "credentials": {"secret": {"type": "env", "var": "K"}},
            "signature": {"algorithm": "sha256", "key_encoding": "raw", "output_encoding": "hex", "message": "x"},
            "headers": [{"name": "X-Sign", "value": "{{.Signature}}"}],
            "rules": [{"host": "a.example", "methods": ["POST"]}]}},
        {"name": "secrets", "config": {"secrets": [{
            "source": {"type": "1password", "secret_ref": "op://v/i/f"}, "on_unavailable": "pass",
            "inject": {"header": "X-Key"}, "rules": [{"host": "b.example", "paths": ["/v1/*"]}]}]}}]}"#;

    #[test]
    fn what_would_leave_bare_is_refused_and_the_rest_is_not() {
        let loaded = parse_rendered("x", DOCUMENT).unwrap_or_else(|problems| panic!("{problems}"));
        let mut policy = Policy::compile(&loaded.document, 1).unwrap();
        policy.refuse_unsupported(&loaded.document).unwrap();
        let policy = Arc::new(policy);
        let reason = |host: &str, method: Method, target: &str| {
            let to = Destination { scheme: Scheme::Https, host: host.parse().unwrap(), port: 443 };
            let head = RequestHead { method: &method, target, headers: &http::HeaderMap::new() };
            match Scope::new(Arc::clone(&policy), to).decide(&head) {
                Verdict::Forward(_) => None,
                Verdict::Refuse(refusal) => Some(refusal.reason),
            }
        };
        assert_eq!(reason("a.example", Method::GET, "/"), None);
        assert_eq!(reason("a.example", Method::POST, "/"), Some(Reason::TransformUnsupported));
        assert_eq!(reason("b.example", Method::GET, "/"), None);
        assert_eq!(reason("b.example", Method::GET, "/v1/x"), Some(Reason::TransformUnsupported));
    }

    #[test]
    fn a_closed_policy_refuses_everything_for_its_reason() {
        let closed = Policy::closed(Refusal::new(Reason::PolicyStale, "it is old"), 7);
        let host: Host = "a.example".parse().unwrap();
        let refused = closed.decide_tunnel(&host, 443);
        assert_eq!(
            refused,
            super::super::TunnelVerdict::Refuse(Refusal::new(Reason::PolicyStale, "it is old"))
        );
    }
}
