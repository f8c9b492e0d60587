//! One compiled entry of `secrets`.

use std::sync::Arc;

use http::HeaderName;
use regex::{Regex, RegexBuilder};

use crate::document::{self, Formatter, OnUnavailable, Source};

/// A secret that requests may carry: where its value comes from and where it goes, never the value.
#[derive(Debug)]
pub struct Secret {
    pub(super) name: Arc<str>,
    pub(super) source: Arc<Source>,
    pub(super) placement: Placement,
    pub(super) on_unavailable: OnUnavailable,
    pub(super) redact_responses: bool,
    /// Higher wins. Without `priority` the later entry does, as iron-proxy has it for this block.
    pub(super) rank: (i64, usize),
}

/// Where a value goes.
#[derive(Debug)]
pub enum Placement {
    /// Set this header.
    Header(HeaderName, Option<Formatter>),
    /// Set this query parameter.
    Query(Box<str>, Option<Formatter>),
    /// Take the place of a placeholder.
    Replace(Replace),
}

/// Which locations of a request are searched for a placeholder.
#[derive(Debug)]
pub struct Replace {
    /// Number of the placeholder.
    pub placeholder: u32,
    pub(super) headers: HeaderSelector,
    pub(super) body: bool,
    pub(super) path: bool,
    pub(super) query: bool,
    pub(super) require: bool,
}

impl Secret {
    /// What operators call it: the name of the environment variable, the path of the file.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where the value comes from.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Where it goes.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// What happens to a request when the value cannot be had.
    pub fn on_unavailable(&self) -> OnUnavailable {
        self.on_unavailable
    }
}

/// The length in bytes from which a value is taken out of responses: shorter ones occur by chance, and replacing those would only break
/// responses.
pub const SHORTEST_REDACTED: usize = 8;

/// Whether a text may stand in a header: printable ASCII and tabs (T52). RFC 9110 section 5.5 lets other bytes stand, which no two
/// servers read alike.
pub fn fits_a_header(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

#[derive(Debug)]
pub(super) enum HeaderSelector {
    All,
    Some { names: Box<[HeaderName]>, patterns: Box<[Regex]> },
}

impl HeaderSelector {
    /// Reads `match_headers`: names, and `/patterns/` that ignore case and may match anywhere in a name. Empty means all.
    pub(super) fn new(entries: &[String]) -> Result<Self, String> {
        if entries.is_empty() {
            return Ok(Self::All);
        }
        let mut names = Vec::new();
        let mut patterns = Vec::new();
        for entry in entries {
            match entry.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
                Some(pattern) => patterns.push(
                    RegexBuilder::new(pattern)
                        .case_insensitive(true)
                        .build()
                        .map_err(|error| error.to_string())?,
                ),
                None => names.push(entry.parse().map_err(|_| format!("{entry:?} is not a header name"))?),
            }
        }
        Ok(Self::Some { names: names.into(), patterns: patterns.into() })
    }

    pub(super) fn selects(&self, name: &HeaderName) -> bool {
        match self {
            Self::All => true,
            Self::Some { names, patterns } => {
                names.contains(name) || patterns.iter().any(|pattern| pattern.is_match(name.as_str()))
            }
        }
    }
}

impl Placement {
    pub(super) fn replace(&self) -> Option<&Replace> {
        match self {
            Self::Replace(replace) => Some(replace),
            Self::Header(..) | Self::Query(..) => None,
        }
    }

    pub(super) fn new(
        mode: &document::SecretMode,
        placeholder: impl FnOnce(&str) -> u32,
    ) -> Result<Self, String> {
        use document::InjectTarget;
        Ok(match mode {
            document::SecretMode::Inject(inject) => match &inject.target {
                InjectTarget::Header(name) => Self::Header(
                    name.parse().map_err(|_| format!("{name:?} is not a header name"))?,
                    inject.formatter.clone(),
                ),
                InjectTarget::QueryParam(name) => Self::Query(name.as_str().into(), inject.formatter.clone()),
            },
            document::SecretMode::Replace(replace) => Self::Replace(Replace {
                placeholder: placeholder(&replace.proxy_value),
                headers: HeaderSelector::new(&replace.match_headers)?,
                body: replace.match_body,
                path: replace.match_path,
                query: replace.match_query,
                require: replace.require,
            }),
        })
    }
}
