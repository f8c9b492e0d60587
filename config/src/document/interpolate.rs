//! `${NAME}` and `${NAME:-default}` in the texts of the file; `$${` is a literal `${`.
//!
//! Runs on the parsed tree, so that what the environment says is never read as YAML (T81): a variable holding
//! `x\nproxy: {}` is one odd text, not a new key.

use super::node::{Kind, Node, Scalar, Value};
use super::place::Place;

/// Puts the environment's values into every text of the tree; keys stay as they are.
pub(super) fn interpolate(node: &mut Node, place: &Place<'_>, environment: &dyn Fn(&str) -> Option<String>) {
    let origin = node.origin;
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => substitute(scalar, &place.at(origin), environment),
        Value::Seq(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                interpolate(item, &place.index(index, origin), environment);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                interpolate(&mut entry.value, &place.key(&entry.key, origin), environment);
            }
        }
    }
}

fn substitute(scalar: &mut Scalar, place: &Place<'_>, environment: &dyn Fn(&str) -> Option<String>) {
    if !matches!(scalar.kind, Kind::Text) || !scalar.text.contains("${") {
        return;
    }
    match expand(&scalar.text, environment) {
        Ok(Expansion { text, from_environment: false }) => scalar.text = text,
        Ok(Expansion { text, from_environment: true }) => {
            let written = std::mem::replace(&mut scalar.text, text);
            scalar.kind = Kind::Substituted { written };
        }
        Err(Fault { message, hint }) => place.error(message, hint),
    }
}

struct Expansion {
    text: String,
    from_environment: bool,
}

struct Fault {
    message: String,
    hint: String,
}

fn expand(written: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Expansion, Fault> {
    let mut text = String::with_capacity(written.len());
    let mut from_environment = false;
    let mut rest = written;
    while let Some(start) = rest.find("${") {
        let (before, tail) = rest.split_at(start);
        let inside = &tail[2..];
        if let Some(literal) = before.strip_suffix('$') {
            text.push_str(literal);
            text.push_str("${");
            rest = inside;
            continue;
        }
        text.push_str(before);
        let Some((expression, after)) = inside.split_once('}') else {
            return Err(Fault {
                message: "`${` without its `}`".to_owned(),
                hint: "close it, or write `$${` for a literal `${`".to_owned(),
            });
        };
        text.push_str(&lookup(expression, environment)?);
        from_environment = true;
        rest = after;
    }
    text.push_str(rest);
    Ok(Expansion { text, from_environment })
}

fn lookup(expression: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let (name, default) = match expression.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (expression, None),
    };
    if !is_variable_name(name) {
        return Err(Fault {
            message: format!("`${{{expression}}}` does not name a variable"),
            hint: "write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`".to_owned(),
        });
    }
    // As in a shell: what stands behind `:-` also replaces an empty value.
    match (environment(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) if default.contains("${") => Err(Fault {
            message: format!("the default of `${{{name}}}` cannot hold another `${{`"),
            hint: "a default is plain text".to_owned(),
        }),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Fault {
            message: format!("the environment variable {name} is not set"),
            hint: format!("set it, or give a default: `${{{name}:-default}}`"),
        }),
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(written: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "HOST" => Some("api.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("${HOST}".to_owned()),
            _ => None,
        };
        expand(written, &environment).map(|expansion| expansion.text).map_err(|fault| fault.message)
    }

    #[test]
    fn variables_defaults_and_escapes() {
        let cases = [
            ("${HOST}", "api.example"),
            ("https://${HOST}:${PORT:-443}/", "https://api.example:443/"),
            ("${EMPTY}", ""),
            ("${EMPTY:-other}", "other"),
            ("${MISSING:-}", ""),
            ("${MISSING:-a:-b}", "a:-b"),
            ("$${HOST}", "${HOST}"),
            ("a$${b}${HOST}", "a${b}api.example"),
            ("$$${HOST}", "$${HOST}"),
            ("$HOST $ 5", "$HOST $ 5"),
            // A value is text: it is not expanded a second time.
            ("${DOLLAR}", "${HOST}"),
        ];
        for (written, expected) in cases {
            assert_eq!(expanded(written), Ok(expected.to_owned()), "{written}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_an_error() {
        let cases = [
            ("${MISSING}", "the environment variable MISSING is not set"),
            ("${HOST", "`${` without its `}`"),
            ("${}", "`${}` does not name a variable"),
            ("${1A}", "`${1A}` does not name a variable"),
            ("${A B}", "`${A B}` does not name a variable"),
            ("${MISSING:-${HOST}}", "the default of `${MISSING}` cannot hold another `${`"),
        ];
        for (written, message) in cases {
            assert_eq!(expanded(written), Err(message.to_owned()), "{written}");
        }
    }
}
