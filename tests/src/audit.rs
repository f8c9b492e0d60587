//! Audit records, and how to compare them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The records of finished requests in an audit file, one JSON document a line. Lines about the log itself are of other kinds,
/// and so is the announcement of a stream that is open for long, which a slow machine may see more often.
///
/// # Panics
/// When a line is anything else.
pub fn requests(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    let mut records: Vec<Value> = text.lines().map(parse).collect();
    records.retain(|record| record["msg"] == "request");
    records
}

/// A record in which whatever differs from run to run is checked for its shape and named instead.
///
/// # Panics
/// When a field has not the shape that it must have.
pub fn normalised(record: &Value) -> Value {
    let mut record = record.clone();
    let fields = record.as_object_mut().expect("a record is an object");
    let chained = [fields.remove("seq"), fields.remove("hash")];
    assert!(chained.iter().all(Option::is_some), "no part of a chain: {record:#}");
    let time = record["time"].as_str().unwrap_or_default();
    assert!(time.len() >= 20 && time.ends_with('Z') && time.contains('T'), "not a time in UTC: {record:#}");
    record["time"] = json!("TIME");
    if let Some(error) = record.get_mut("error") {
        assert!(error.as_str().is_some_and(|words| !words.is_empty()), "an error without words: {error:#}");
        *error = json!("WORDS");
    }
    let audit = &mut record["audit"];
    assert!(audit["request_id"].as_str().is_some_and(|id| !id.is_empty()), "no request id: {audit:#}");
    audit["request_id"] = json!("ID");
    assert!(audit["duration_ms"].as_f64().is_some_and(|duration| duration >= 0.0), "no duration: {audit:#}");
    audit["duration_ms"] = json!("DURATION");
    // Whoever comes through a socket of its own has no address.
    if !(audit["remote_addr"].is_null() && audit.get("sandbox").is_some()) {
        assert!(
            audit["remote_addr"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")),
            "no client: {audit:#}"
        );
        audit["remote_addr"] = json!("CLIENT");
    }
    record
}

/// The ways in which a leaked value may be written: itself; percent-encoded, as little and as much as may be; in hexadecimal; escaped
/// for JSON; and in base64, standard and URL-safe, at each of the three alignments (without the first and last characters, which
/// depend on neighbours).
pub fn forms(secret: &str) -> Vec<String> {
    let every = |format: fn(u8) -> String| secret.bytes().map(format).collect::<String>();
    let hexadecimal = every(|byte| format!("{byte:02x}"));
    let percent = every(|byte| format!("%{byte:02X}"));
    let minimal = every(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    let json = Value::from(secret).to_string();
    let mut forms = vec![
        secret.to_owned(),
        percent.to_lowercase(),
        percent,
        minimal,
        hexadecimal.to_uppercase(),
        hexadecimal,
        json.trim_matches('"').to_owned(),
    ];
    for offset in 0..3 {
        let padded = [vec![b' '; offset], secret.as_bytes().to_vec()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            let from = [0, 2, 3][offset];
            forms.push(encoded[from..encoded.len() - 1].to_owned());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// Compares two JSON documents and shows both in full when they differ.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn assert_json(actual: &Value, expected: &Value) {
    assert!(actual == expected, "this is not what was expected:\n{actual:#}\nexpected:\n{expected:#}");
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_value_is_found_in_base64_wherever_it_stands() {
        for before in ["", "u", "us", "use", "user:"] {
            let leaked = STANDARD.encode(format!("{before}the-real-value and more"));
            assert!(forms("the-real-value").iter().any(|form| leaked.contains(form)), "{before}");
        }
    }
}
