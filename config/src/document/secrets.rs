//! The `config` of a `secrets` transform: credentials, and where each may go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Block, Field, List};
use super::formatter::Formatter;
use super::header;
use super::place::At;
use super::rule::{self, Action, Rule};
use super::source::{self, Source, SourceKind};
use crate::policy::SHORTEST_REDACTED;

/// The `config` of a `secrets` transform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Secrets {
    /// The entries, in the order of the file.
    pub secrets: Vec<SecretEntry>,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretEntry {
    /// What records call it; what its source is called, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// The requests that may carry it; none, if empty.
    pub rules: Vec<Rule>,
    /// How it gets into them.
    #[serde(flatten)]
    pub mode: SecretMode,
    /// Which of two entries for the same place wins: the greater one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// What happens to a request while the value cannot be had.
    pub on_unavailable: OnUnavailable,
    /// The value is taken out of responses before the client sees them.
    pub redact_responses: bool,
}

/// How a credential gets into a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretMode {
    /// It is set, whatever the client sent.
    Inject(Inject),
    /// It takes the place of a placeholder that the client sent.
    Replace(Replace),
}

/// A credential that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inject {
    /// Where.
    #[serde(flatten)]
    pub target: InjectTarget,
    /// The text around the value; the value alone, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formatter: Option<Formatter>,
    /// The request is refused while the value cannot be had.
    pub require: bool,
}

/// Where a credential is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InjectTarget {
    /// A request header.
    Header(String),
    /// A parameter of the query.
    QueryParam(String),
}

/// A credential that takes the place of a placeholder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replace {
    /// The placeholder.
    pub proxy_value: String,
    /// Headers that are searched, by name or as `/regex/`; all of them, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_headers: Vec<String>,
    /// The body is searched.
    pub match_body: bool,
    /// The path is searched.
    pub match_path: bool,
    /// The query is searched.
    pub match_query: bool,
    /// A request without the placeholder is refused, and so is one whose value cannot be had.
    pub require: bool,
}

/// About a value that is not taken out of responses.
pub const TOO_SHORT: &str =
    "a value of less than 8 bytes is not taken out of responses, as it occurs by chance";
/// What to do about it.
pub const TOO_SHORT_HINT: &str = "use a longer credential; or say redact_responses: false, if that is meant";

/// What happens to a request while the value cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename = "on_unavailable", rename_all = "lowercase")]
pub enum OnUnavailable {
    /// It is refused.
    #[default]
    Deny,
    /// It leaves as the client sent it, placeholder included.
    Pass,
}

impl OnUnavailable {
    /// Reports an entry that says both.
    pub(super) fn check(self, require: bool, entry: &At<'_>) {
        if require && self == Self::Pass {
            entry
                .key("on_unavailable")
                .error("`require: true` and `on_unavailable: pass` contradict each other", "keep one");
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "secrets", deny_unknown_fields)]
pub(super) struct SecretsKeys {
    /// The credentials.
    #[serde(rename = "secrets")]
    #[schemars(with = "Option<Vec<Keys>>")]
    _secrets: Block,
}

impl Secrets {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        at.decode::<SecretsKeys>()?;
        Some(Self { secrets: at.key("secrets").each().iter().filter_map(SecretEntry::read).collect() })
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "secret", deny_unknown_fields)]
struct Keys {
    /// What records call it; what its source is called, if absent.
    name: Field<String>,
    /// Where the value comes from.
    #[serde(rename = "source")]
    #[schemars(with = "Option<source::Keys>")]
    _source: Block,
    /// The requests that may carry the value; none, if empty.
    #[serde(rename = "rules")]
    #[schemars(with = "Option<Vec<rule::Keys>>")]
    _rules: Block,
    /// Set the value, whatever the client sent. One of inject and replace.
    #[serde(rename = "inject")]
    #[schemars(with = "Option<InjectKeys>")]
    _inject: Block,
    /// Put the value in the place of a placeholder that the client sent.
    #[serde(rename = "replace")]
    #[schemars(with = "Option<ReplaceKeys>")]
    _replace: Block,
    /// Between entries for one placeholder the greater wins; without it the later entry.
    priority: Field<i64>,
    /// What happens to a request while the value cannot be had.
    #[schemars(extend("default" = "deny"))]
    on_unavailable: Field<OnUnavailable>,
    /// Take the value out of responses.
    #[schemars(extend("default" = true))]
    redact_responses: Field<bool>,
    /// The old form of replace.proxy_value.
    proxy_value: Field<String>,
    /// The old form of replace.match_headers.
    match_headers: Field<List<String>>,
    /// The old form of replace.match_body.
    match_body: Field<bool>,
    /// The old form of replace.require.
    require: Field<bool>,
}

impl SecretEntry {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: Keys = at.decode()?;
        let name = keys.name.clone().not_empty().get();
        let source = Source::read(&at.key("source"));
        let rules = Rule::read_list(&at.key("rules"));
        let (priority, on_unavailable) = (keys.priority.clone().get(), keys.on_unavailable.clone().get());
        let redact_responses = keys.redact_responses.clone().get().unwrap_or(true);
        let mode = mode(keys, at);
        if at.key("rules").each().is_empty() {
            at.key("rules").warning(
                "no rules, so this secret never applies",
                "say where it may go: rules: [{ host: … }]",
            );
        }
        for (index, rule) in rules.iter().enumerate() {
            if rule.host.as_deref() == Some("*") && rule.action == Action::Allow {
                at.key("rules")
                    .index(index)
                    .key("host")
                    .warning("this secret goes to every host", "name the hosts that it is for");
            }
        }
        if let Some(Source { kind: SourceKind::ControlPlane { value, .. }, json_key: None, .. }) = &source
            && redact_responses
            && value.expose().len() < SHORTEST_REDACTED
        {
            at.key("source").key("value").warning(TOO_SHORT, TOO_SHORT_HINT);
        }
        let on_unavailable = on_unavailable.unwrap_or_default();
        let require = match mode.as_ref() {
            Some(SecretMode::Inject(inject)) => inject.require,
            Some(SecretMode::Replace(replace)) => replace.require,
            None => false,
        };
        on_unavailable.check(require, at);
        Some(Self { name, source: source?, rules, mode: mode?, priority, on_unavailable, redact_responses })
    }

    /// What operators call it: its name, or what its source is called.
    pub fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.source.display_name())
    }
}

fn mode(keys: Keys, at: &At<'_>) -> Option<SecretMode> {
    let (inject, replace) = (at.key("inject"), at.key("replace"));
    // As iron-proxy sees it: an empty or false key on the entry itself does not choose the old form.
    let legacy = matches!(&keys.proxy_value, Field::Invalid)
        || matches!(&keys.proxy_value, Field::Is(value) if !value.is_empty())
        || matches!(&keys.match_headers, Field::Is(headers) if !headers.is_empty())
        || matches!(keys.match_body, Field::Is(true))
        || matches!(keys.require, Field::Is(true));
    match (legacy, inject.node().is_some(), replace.node().is_some()) {
        (false, true, false) => Inject::read(&inject).map(SecretMode::Inject),
        (false, false, true) => Replace::read(&replace).map(SecretMode::Replace),
        (true, false, false) => {
            let keys = ReplaceKeys {
                proxy_value: keys.proxy_value,
                match_headers: keys.match_headers,
                match_body: keys.match_body,
                require: keys.require,
                ..ReplaceKeys::default()
            };
            Replace::check(keys, at).map(SecretMode::Replace)
        }
        (_, true, true) => {
            at.error("inject and replace are mutually exclusive", "make two entries of it");
            None
        }
        (true, false, true) => {
            at.error(
                "proxy_value, match_headers, match_body and require on the entry itself do not go with replace",
                "put them under \"replace\"",
            );
            None
        }
        (true, true, false) => {
            at.error(
                "proxy_value, match_headers, match_body and require on the entry itself do not go with inject",
                "put \"require\" under \"inject\", and leave out the others",
            );
            None
        }
        (false, false, false) => {
            at.error("inject or replace is required", "write replace: { proxy_value: PLACEHOLDER }");
            None
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "inject", deny_unknown_fields)]
pub(super) struct InjectKeys {
    /// The header that the value is set in. One of header and query_param.
    header: Field<String>,
    /// The parameter of the query that the value is set in.
    query_param: Field<String>,
    /// The text around the value, such as Bearer {{ .Value }} or Basic {{ base64 "user:" .Value }}.
    formatter: Field<String>,
    /// Refuse a request while the value cannot be had.
    #[schemars(extend("default" = false))]
    require: Field<bool>,
}

impl Inject {
    pub(super) fn read(at: &At<'_>) -> Option<Self> {
        let keys: InjectKeys = at.decode()?;
        let formatter = keys.formatter.not_empty().get().and_then(|template| {
            let at = at.key("formatter");
            Formatter::parse(&template)
                .map_err(|error| at.error(format!("{error}: {}", at.shown()), error.hint()))
                .ok()
        });
        let target = match (keys.header.not_empty(), keys.query_param.not_empty()) {
            (Field::Is(header), Field::Absent) => {
                header::check_settable(&header, &at.key("header"));
                InjectTarget::Header(header)
            }
            (Field::Absent, Field::Is(parameter)) => InjectTarget::QueryParam(parameter),
            (Field::Absent, Field::Absent) => {
                at.error("inject requires \"header\" or \"query_param\"", "write header: Authorization");
                return None;
            }
            (Field::Invalid, _) | (_, Field::Invalid) => return None,
            (Field::Is(_), Field::Is(_)) => {
                at.error("header and query_param are mutually exclusive", "make two entries of it");
                return None;
            }
        };
        let fits = formatter.as_ref().is_none_or(Formatter::fits_a_header);
        if matches!(target, InjectTarget::Header(_)) && !fits {
            let at = at.key("formatter");
            at.error(
                format!("the text holds a character that no header may hold: {}", at.shown()),
                "write one line of printable ASCII around the value",
            );
        }
        Some(Self { target, formatter, require: keys.require.get().unwrap_or(false) })
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "replace", deny_unknown_fields)]
struct ReplaceKeys {
    /// The placeholder that clients send.
    proxy_value: Field<String>,
    /// Headers that are searched: names, or regular expressions between slashes that ignore case; empty is all.
    match_headers: Field<List<String>>,
    /// Search the body.
    #[schemars(extend("default" = false))]
    match_body: Field<bool>,
    /// Search the path.
    #[schemars(extend("default" = false))]
    match_path: Field<bool>,
    /// Search the query.
    #[schemars(extend("default" = false))]
    match_query: Field<bool>,
    /// Refuse a request in which the placeholder was not found.
    #[schemars(extend("default" = false))]
    require: Field<bool>,
}

impl Replace {
    fn read(at: &At<'_>) -> Option<Self> {
        let keys: ReplaceKeys = at.decode()?;
        Self::check(keys, at)
    }

    fn check(keys: ReplaceKeys, at: &At<'_>) -> Option<Self> {
        let proxy_value = keys.proxy_value.not_empty();
        if proxy_value.is_absent() {
            at.key("proxy_value")
                .error("replace requires \"proxy_value\" field", "name the placeholder that clients send");
        }
        let match_headers: Vec<_> = keys.match_headers.get().into_iter().flat_map(List::indexed).collect();
        for (index, pattern) in &match_headers {
            header::check_pattern(pattern, &at.key("match_headers").index(*index));
        }
        let replace = Self {
            proxy_value: proxy_value.get()?,
            match_headers: match_headers.into_iter().map(|(_, header)| header).collect(),
            match_body: keys.match_body.get().unwrap_or(false),
            match_path: keys.match_path.get().unwrap_or(false),
            match_query: keys.match_query.get().unwrap_or(false),
            require: keys.require.get().unwrap_or(false),
        };
        if replace.match_body && occurs_in_ordinary_text(&replace.proxy_value) {
            at.key("proxy_value").warning(
                "match_body replaces this placeholder wherever it occurs, in ordinary text too",
                "use a placeholder of 16 bytes or more that is no word, such as kf_ and 32 hexadecimal digits",
            );
        }
        Some(replace)
    }
}

/// A placeholder that somebody's prompt or program may well hold without meaning the secret.
fn occurs_in_ordinary_text(placeholder: &str) -> bool {
    let mut bytes = placeholder.bytes();
    let variable_name = bytes.next().is_some_and(|first| first.is_ascii_uppercase())
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    variable_name || placeholder.len() < 16
}
