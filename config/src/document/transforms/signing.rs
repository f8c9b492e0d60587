//! The templates of `hmac_sign`: fields of a request between texts, and nothing else of Go's language.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::document::place::At;

/// A template such as `{{ .Timestamp }}.{{ .Body }}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningTemplate(Vec<SigningPart>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningPart {
    /// These characters.
    Text(String),
    /// A fact of the request.
    Field(SigningField),
    /// A credential, by its name in the block.
    Credential(String),
}

/// What a template may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningField {
    /// The time, in the block's format.
    Timestamp,
    /// The method.
    Method,
    /// The path.
    Path,
    /// The path and the query.
    PathWithQuery,
    /// The query.
    Query,
    /// The host.
    Host,
    /// The body.
    Body,
    /// The signature, in a header.
    Signature,
}

/// What a message may name.
pub(super) const MESSAGE_FIELDS: &[SigningField] = &[
    SigningField::Timestamp,
    SigningField::Method,
    SigningField::Path,
    SigningField::PathWithQuery,
    SigningField::Query,
    SigningField::Host,
    SigningField::Body,
];

/// What a header may name, credentials besides.
pub(super) const HEADER_FIELDS: &[SigningField] = &[SigningField::Timestamp, SigningField::Signature];

impl SigningField {
    const fn name(self) -> &'static str {
        match self {
            Self::Timestamp => "Timestamp",
            Self::Method => "Method",
            Self::Path => "Path",
            Self::PathWithQuery => "PathWithQuery",
            Self::Query => "Query",
            Self::Host => "Host",
            Self::Body => "Body",
            Self::Signature => "Signature",
        }
    }
}

impl SigningTemplate {
    /// The parts, in order.
    pub fn parts(&self) -> &[SigningPart] {
        &self.0
    }

    /// The credentials that it names.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            SigningPart::Credential(name) => Some(name.as_str()),
            SigningPart::Text(_) | SigningPart::Field(_) => None,
        })
    }

    pub(super) fn read(template: &str, fields: &[SigningField], at: &At<'_>) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            if !before.is_empty() {
                parts.push(SigningPart::Text(before.to_owned()));
            }
            let Some((action, after)) = after.split_once("}}") else {
                at.error(format!("`{{{{` without its `}}}}` in a template: {}", at.shown()), ());
                return None;
            };
            let Some(part) = part(action.trim(), fields) else {
                let mut names: Vec<_> =
                    fields.iter().map(|field| format!("{{{{ .{} }}}}", field.name())).collect();
                if takes_credentials(fields) {
                    names.push("{{ .Credentials.NAME }}".to_owned());
                }
                at.error(
                    format!("not a template that this proxy reads: {}", at.shown()),
                    format!("valid here: {}", names.join(", ")),
                );
                return None;
            };
            parts.push(part);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(SigningPart::Text(rest.to_owned()));
        }
        Some(Self(parts))
    }
}

/// The message is signed with a credential, so it holds none.
fn takes_credentials(fields: &[SigningField]) -> bool {
    fields.contains(&SigningField::Signature)
}

fn part(action: &str, fields: &[SigningField]) -> Option<SigningPart> {
    let name = action.strip_prefix('.')?;
    if let Some(credential) = name.strip_prefix("Credentials.").filter(|_| takes_credentials(fields)) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        return (!credential.is_empty() && credential.bytes().all(plain))
            .then(|| SigningPart::Credential(credential.to_owned()));
    }
    fields.iter().find(|field| field.name() == name).map(|field| SigningPart::Field(*field))
}

impl fmt::Display for SigningTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                SigningPart::Text(text) => f.write_str(text)?,
                SigningPart::Field(field) => write!(f, "{{{{ .{} }}}}", field.name())?,
                SigningPart::Credential(name) => write!(f, "{{{{ .Credentials.{name} }}}}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for SigningTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
