//! The document as it counts: after defaults, interpolation and overrides, with its secrets taken out.

use http::Uri;

use super::Document;
use super::load::{self, Options};
use super::node::{Kind, Node, Scalar, Value};
use super::place::{At, Findings};
use super::problem::{Problems, Severity};

/// What stands in the place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Reads `text` as [`parse`](super::parse) does, and writes it as YAML with every default in it.
///
/// What came from the environment into a place where credentials are written is redacted, and so are inline values and the
/// passwords of URLs. Where nothing was, the text means the same document again.
pub fn effective(
    file_name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    options: Options,
) -> Result<String, Problems> {
    let findings = Findings::new(options.lenient);
    let mut root = load::tree(file_name, text, environment, &findings)?;
    Document::read(&At::root(&root, &findings));
    let problems = Problems::new(file_name, findings.into_list());
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(problems);
    }
    redact_blocks(&mut root);
    let document = Document::read(&At::root(&root, &Findings::new(options.lenient)));
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    Ok(serde_saphyr::to_string_with_options(&document, options)
        .expect("a document is texts, numbers, lists and blocks"))
}

fn redact_blocks(root: &mut Node) {
    let Value::Map(blocks) = &mut root.value else { return };
    for block in blocks {
        // A record's value is an address, no credential.
        let key = if block.key == "dns" { None } else { Some(block.key.as_str()) };
        redact(&mut block.value, key);
    }
}

/// Takes secrets out of a value under `key`, and protects a literal `${`, which would be read as a variable; `None` is a block
/// without secrets.
fn redact(node: &mut Node, key: Option<&str>) {
    match &mut node.value {
        Value::Null => {}
        Value::Seq(items) => items.iter_mut().for_each(|item| redact(item, key)),
        Value::Map(entries) => {
            for entry in entries {
                redact(&mut entry.value, key.map(|_| entry.key.as_str()));
            }
        }
        Value::Scalar(scalar) => {
            if let Some(text) = redacted(scalar, key) {
                scalar.text = text;
            }
        }
    }
}

/// The text to print, where it is another than the one that counts.
fn redacted(scalar: &Scalar, key: Option<&str>) -> Option<String> {
    /// Texts that an author may well write around a credential.
    const TEXTS: [&str; 6] = ["formatter", "value_prefix", "proxy_value", "value", "message", "prompt"];
    const URLS: [&str; 5] = ["token_endpoint", "upstream", "base_url", "http_proxy", "https_proxy"];
    match (&scalar.kind, key) {
        (Kind::Substituted { .. }, Some(key)) if TEXTS.contains(&key) => Some(REDACTED.to_owned()),
        (Kind::Substituted { .. }, Some(key)) if URLS.contains(&key) => {
            Some(url_without_secrets(&scalar.text))
        }
        (Kind::Substituted { .. } | Kind::Text, _) if scalar.text.contains("${") => {
            Some(scalar.text.replace("${", "$${"))
        }
        (Kind::Substituted { .. } | Kind::Text | Kind::Bool(_) | Kind::Number(_), _) => None,
    }
}

/// The scheme and the host: a path or a query may hold a token.
fn url_without_secrets(text: &str) -> String {
    let uri: Option<Uri> = text.parse().ok();
    let shown = uri.as_ref().and_then(|uri| {
        let host = uri.authority()?.as_str().rsplit('@').next()?;
        Some(format!("{}://{host}/redacted", uri.scheme_str()?))
    });
    shown.unwrap_or_default()
}
