//! Presets as a file for people: defaults are left out, and a rule is a line where it fits.

use serde::Serialize;
use serde_saphyr::{FlowMap, FlowSeq};

use super::Selection;
use crate::document::{Action, ForeignCredentials, Replace, Rule, Scheme, SecretEntry, SecretMode, Source};

/// The longest line that is not broken.
const WIDTH: usize = 140;

pub(super) fn document(selection: &Selection) -> String {
    let mut text = "transforms:\n  - name: allowlist\n    config:\n      rules:\n".to_owned();
    for part in selection.parts.iter().filter(|part| !part.rules.is_empty()) {
        text.extend(["        # ", part.name, ": ", part.about, "\n"]);
        for rule in &part.rules {
            push(&mut text, 8, &item(&RuleLine::of(rule)));
        }
    }
    if !selection.secrets.is_empty() {
        text.push_str("  - name: secrets\n    config:\n      secrets:\n");
    }
    for entry in &selection.secrets {
        let (head, rules) = secret(entry);
        push(&mut text, 8, &head);
        text.push_str("          rules:\n");
        for rule in &rules {
            push(&mut text, 12, rule);
        }
    }
    text
}

fn push(text: &mut String, indent: usize, lines: &str) {
    for line in lines.lines() {
        text.extend([&" ".repeat(indent), line, "\n"]);
    }
}

/// A list's item in a line, or in as many as it has keys.
fn item<T: Serialize + Clone>(block: &T) -> String {
    let line = yaml(&[FlowMap(block.clone())]);
    if line.len() <= WIDTH { line } else { yaml(&[block]) }
}

fn yaml(value: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { compact_list_indent: false };
    serde_saphyr::to_string_with_options(value, options).expect("texts, numbers and lists")
}

#[derive(Clone, Serialize)]
struct RuleLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cidr: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    methods: FlowSeq<&'a [String]>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    paths: &'a [String],
    #[serde(skip_serializing_if = "is_empty")]
    ports: FlowSeq<&'a [u16]>,
    #[serde(skip_serializing_if = "is_empty")]
    schemes: FlowSeq<&'a [Scheme]>,
    #[serde(skip_serializing_if = "is_default")]
    action: Action,
    #[serde(skip_serializing_if = "is_default")]
    foreign_credentials: ForeignCredentials,
}

impl<'a> RuleLine<'a> {
    fn of(rule: &'a Rule) -> Self {
        let Rule { host, cidr, methods, paths, ports, schemes, action, foreign_credentials } = rule;
        Self {
            host: host.as_deref(),
            cidr: cidr.map(|range| range.to_string()),
            methods: FlowSeq(methods),
            paths,
            ports: FlowSeq(ports),
            schemes: FlowSeq(schemes),
            action: *action,
            foreign_credentials: *foreign_credentials,
        }
    }
}

#[derive(Serialize)]
struct SecretHead<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    source: FlowMap<&'a Source>,
    replace: FlowMap<ReplaceLine<'a>>,
}

#[derive(Serialize)]
struct ReplaceLine<'a> {
    proxy_value: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    match_headers: &'a [String],
    #[serde(skip_serializing_if = "is_default")]
    match_body: bool,
    #[serde(skip_serializing_if = "is_default")]
    match_path: bool,
    #[serde(skip_serializing_if = "is_default")]
    match_query: bool,
    #[serde(skip_serializing_if = "is_default")]
    require: bool,
}

/// What stands before its rules, and its rules.
fn secret(entry: &SecretEntry) -> (String, Vec<String>) {
    let SecretMode::Replace(replace) = &entry.mode else {
        unreachable!("a test reads every preset: {entry:?}")
    };
    let Replace { proxy_value, match_headers, match_body, match_path, match_query, require } = replace;
    let head = SecretHead {
        name: entry.name.as_deref(),
        source: FlowMap(&entry.source),
        replace: FlowMap(ReplaceLine {
            proxy_value,
            match_headers,
            match_body: *match_body,
            match_path: *match_path,
            match_query: *match_query,
            require: *require,
        }),
    };
    (yaml(&[head]), entry.rules.iter().map(|rule| item(&RuleLine::of(rule))).collect())
}

fn is_empty<T>(list: &FlowSeq<&[T]>) -> bool {
    list.0.is_empty()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
