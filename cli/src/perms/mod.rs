//! From what tools declare to what control keeps: stable names, sources, and whose conversation is whose principal.

mod registration;
mod source_policy;
mod thread;

pub(crate) use registration::{managed_labels, registrations, tool_role};
pub(crate) use source_policy::SourcePolicy;
pub(crate) use thread::Derived;

/// A text as a part of a foreign id: lower-case letters and digits, with single dashes for all else.
pub(crate) fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-");
    if slug.is_empty() { "x".to_owned() } else { slug }
}

#[cfg(test)]
mod tests;
