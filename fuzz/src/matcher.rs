//! The compiled rules decide as a reader would who goes through them one by one.
//!
//! An input is lines: `allow HOST [PATH [METHOD]]` and `deny HOST [PATH [METHOD]]` are rules, `METHOD HOST PATH` are requests.

use std::sync::Arc;

use http::{HeaderMap, Method};
use keyferry_config::document::{Options, parse};
use keyferry_config::policy::{
    Destination, Host, Policy, RequestHead, Scheme, Scope, TunnelVerdict, Verdict,
};
use serde_json::{Value, json};

struct Rule<'t> {
    deny: bool,
    host: &'t str,
    path: Option<&'t str>,
    method: Option<&'t str>,
}

/// Decides requests under rules.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What IDNA makes of a name is a matter of its own.
    if !text.is_ascii() {
        return;
    }
    let words: Vec<Vec<&str>> = text.lines().take(60).map(|line| line.split(' ').collect()).collect();
    let rules: Vec<Rule<'_>> = words.iter().filter_map(|words| rule(words)).collect();
    let document = json!({ "transforms": [{ "name": "allowlist", "config": { "rules":
        rules.iter().map(Rule::to_json).collect::<Vec<_>>()
    } }] });
    let Ok(loaded) = parse("f.yaml", &document.to_string(), &|_| None, Options::default()) else { return };
    let policy = Arc::new(Policy::compile(&loaded.document, 1).expect("what loads, compiles"));

    for words in &words {
        let [method, host, path] = words[..] else { continue };
        if rule(words).is_some() {
            continue;
        }
        let (Ok(method), Ok(host)) = (method.parse::<Method>(), host.parse::<Host>()) else { continue };
        judge(&policy, &rules, &method, &host, path);
    }
}

fn rule<'t>(words: &[&'t str]) -> Option<Rule<'t>> {
    let (kind, host) = (*words.first()?, *words.get(1)?);
    let deny = match kind {
        "allow" => false,
        "deny" => true,
        _ => return None,
    };
    // What the document turns into something else, or treats as more than a text.
    // Trying every way takes exponential time where the compiled glob takes none (T80).
    let plain = !words.iter().any(|word| word.contains("${") || word.matches('*').count() > 5);
    plain.then(|| Rule { deny, host, path: words.get(2).copied(), method: words.get(3).copied() })
}

impl Rule<'_> {
    fn to_json(&self) -> Value {
        let mut rule = json!({ "host": self.host, "action": if self.deny { "deny" } else { "allow" } });
        if let Some(path) = self.path {
            rule["paths"] = json!([path]);
        }
        if let Some(method) = self.method {
            rule["methods"] = json!([method]);
        }
        rule
    }

    fn names(&self, host: &Host) -> bool {
        let Host::Name(name) = host else {
            return self
                .host
                .strip_suffix('.')
                .unwrap_or(self.host)
                .parse()
                .is_ok_and(|own: Host| own == *host);
        };
        let pattern = self.host.strip_suffix('.').unwrap_or(self.host).to_ascii_lowercase();
        let name = name.as_str();
        match pattern.strip_prefix("*.") {
            _ if pattern == "*" => true,
            None => is_match(pattern.as_bytes(), name.as_bytes(), b'.'),
            Some(apex) => below(name).any(|suffix| is_match(apex.as_bytes(), suffix.as_bytes(), b'.')),
        }
    }

    fn means(&self, method: &Method, path: &[u8]) -> bool {
        self.method.is_none_or(|own| own == "*" || own.to_ascii_uppercase() == method.as_str())
            && self.path.is_none_or(|pattern| path_matches(pattern, path))
    }
}

fn judge(policy: &Arc<Policy>, rules: &[Rule<'_>], method: &Method, host: &Host, target: &str) {
    let destination = Destination { scheme: Scheme::Https, host: host.clone(), port: 443 };
    let scope = Scope::new(Arc::clone(policy), destination);
    let headers = HeaderMap::new();
    let verdict = scope.decide(&RequestHead { method, target, headers: &headers });
    let forwarded = matches!(verdict, Verdict::Forward(_));

    let naming: Vec<&Rule<'_>> = rules.iter().filter(|rule| rule.names(host)).collect();
    let raw = target.split_once('?').map_or(target, |(path, _)| path);
    let denies_paths = naming.iter().any(|rule| rule.deny && rule.path.is_some());
    let expected = match normal(raw) {
        None => false,
        Some((_, true)) if denies_paths => false,
        Some((path, _)) => {
            let meant = |rule: &&&Rule<'_>| rule.means(method, &path);
            let (deny, allow): (Vec<&Rule<'_>>, Vec<&Rule<'_>>) = naming.iter().partition(|rule| rule.deny);
            !deny.iter().any(|rule| meant(&rule)) && allow.iter().any(|rule| meant(&rule))
        }
    };
    assert_eq!(forwarded, expected, "{method} {host} {target}: {verdict:?}");
    if forwarded {
        let tunnel = policy.decide_tunnel(host, 443);
        assert!(matches!(tunnel, TunnelVerdict::Open(_)), "what may flow has its tunnel: {tunnel:?}");
    }
}

/// A name and all that it is below.
fn below(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, rest)| rest))
}

/// The path decoded, with `//` collapsed, and whether servers may read it in two ways; none if they resolve it or choke on it.
fn normal(path: &str) -> Option<(Vec<u8>, bool)> {
    if path == "*" {
        return Some((b"*".to_vec(), false));
    }
    let path = if path.is_empty() { "/" } else { path };
    let (mut decoded, mut encoded_slash) = (Vec::new(), false);
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let hex = |byte: u8| char::from(byte).to_digit(16);
        match (byte, after) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                let byte = hex(*high).zip(hex(*low)).map(|(high, low)| (high * 16 + low) as u8)?;
                encoded_slash |= byte == b'/';
                decoded.push(byte);
                rest = after;
            }
            _ => decoded.push(byte),
        }
    }
    let odd = !decoded.starts_with(b"/") || !path.starts_with('/');
    let dots = decoded.split(|byte| b"/\\;".contains(byte)).any(|segment| matches!(segment, b"." | b".."));
    if odd || dots || decoded.iter().any(u8::is_ascii_control) {
        return None;
    }
    let twice = decoded
        .windows(3)
        .any(|three| three[0] == b'%' && three[1].is_ascii_hexdigit() && three[2].is_ascii_hexdigit());
    let ambiguous = encoded_slash || twice || decoded.iter().any(|byte| b"\\;".contains(byte));
    decoded.dedup_by(|later, earlier| *later == b'/' && *earlier == b'/');
    Some((decoded, ambiguous))
}

fn path_matches(pattern: &str, path: &[u8]) -> bool {
    match pattern.strip_suffix("/*") {
        // Itself, or anything below.
        Some(stem) => (0..=path.len())
            .filter(|&end| end == path.len() || path[end] == b'/')
            .any(|end| is_match(stem.as_bytes(), &path[..end], b'/')),
        None => is_match(pattern.as_bytes(), path, b'/'),
    }
}

/// A glob, tried in every way.
fn is_match(pattern: &[u8], text: &[u8], separator: u8) -> bool {
    let Some((&first, rest)) = pattern.split_first() else { return text.is_empty() };
    let after = text.split_first().filter(|(byte, _)| **byte != separator);
    match first {
        b'*' => {
            is_match(rest, text, separator)
                || after.is_some_and(|(_, text)| is_match(pattern, text, separator))
        }
        b'?' => after.is_some_and(|(_, text)| is_match(rest, text, separator)),
        b'[' => {
            let (holds, rest) = class(rest);
            after.is_some_and(|(byte, text)| holds(*byte) && is_match(rest, text, separator))
        }
        _ => {
            let (literal, rest) = escaped(pattern);
            text.split_first().is_some_and(|(byte, text)| *byte == literal && is_match(rest, text, separator))
        }
    }
}

/// A byte that stands for itself, and what is behind it.
fn escaped(pattern: &[u8]) -> (u8, &[u8]) {
    match pattern {
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => (*byte, rest),
        [] => panic!("a pattern that loads is complete"),
    }
}

/// The members of a class whose `[` has been read, and the pattern behind it.
fn class(mut pattern: &[u8]) -> (impl Fn(u8) -> bool, &[u8]) {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    if negated {
        pattern = &pattern[1..];
    }
    let mut ranges = Vec::new();
    while ranges.is_empty() || pattern[0] != b']' {
        let (low, rest) = escaped(pattern);
        pattern = rest;
        let mut high = low;
        if let [b'-', end, ..] = pattern
            && *end != b']'
        {
            (high, pattern) = escaped(&pattern[1..]);
        }
        ranges.push(low..=high);
    }
    (move |byte| ranges.iter().any(|range| range.contains(&byte)) != negated, &pattern[1..])
}
