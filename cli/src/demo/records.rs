//! The audit records: whether they are the right ones, and a table to read them in.

use owo_colors::Stream;
use serde_json::Value;

use super::service::Seen;
use crate::terminal;

/// One audit record, as far as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    method: String,
    url: String,
    host: String,
    action: String,
    reason: Option<String>,
    status: Option<u64>,
    swapped: Vec<String>,
}

impl Record {
    /// Reads the file that the proxy wrote, one record a line; lines about the log itself are left out.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>, String> {
        text.lines()
            .filter_map(|line| match serde_json::from_str::<Value>(line) {
                Err(error) => Some(Err(format!("an audit record is not JSON: {error}"))),
                Ok(value) if value.get("msg").is_some_and(|kind| kind == "audit_chain") => None,
                Ok(value) => Some(
                    Self::from_value(&value).ok_or_else(|| format!("an audit record lacks a field: {line}")),
                ),
            })
            .collect()
    }

    fn from_value(value: &Value) -> Option<Self> {
        let audit = value.get("audit")?;
        let text = |key: &str| audit.get(key).and_then(Value::as_str).map(str::to_owned);
        let (method, host) = (text("method")?, text("host")?);
        let port = audit.get("port")?.as_u64()?;
        let path = text("path").unwrap_or_default();
        let url = if method == "CONNECT" { format!("{host}:{port}") } else { format!("{host}:{port}{path}") };
        let url = shortened(&url, 52);
        let transforms = value.get("request_transforms").and_then(Value::as_array).into_iter().flatten();
        let swapped = transforms
            .filter_map(|transform| transform.pointer("/annotations/swapped")?.as_array())
            .flatten()
            .filter_map(|swap| {
                let locations: Vec<&str> =
                    swap.get("locations")?.as_array()?.iter().filter_map(Value::as_str).collect();
                Some(format!("{} in {}", swap.get("secret")?.as_str()?, locations.join(", ")))
            })
            .collect();
        Some(Self {
            method,
            url,
            host,
            action: text("action")?,
            reason: text("reason"),
            status: audit.get("status_code").and_then(Value::as_u64),
            swapped,
        })
    }

    fn is_allowed(&self) -> bool {
        self.action == "allow"
    }
}

/// What is wrong with the records, given what arrived at the service: one record per request that arrived, one per request
/// that was refused, and no other.
pub(super) fn fault(records: &[Record], seen: &[Seen]) -> Option<String> {
    let allowed: Vec<&Record> = records.iter().filter(|record| record.is_allowed()).collect();
    if allowed.len() != seen.len() {
        return Some(format!("{} requests arrived, but {} audit records say so", seen.len(), allowed.len()));
    }
    // git asks for the challenge before it shows a password, so its tunnel may have been refused once.
    let refused: Vec<(&str, &str)> = records
        .iter()
        .filter(|record| !record.is_allowed())
        .map(|record| (record.host.as_str(), record.reason.as_deref().unwrap_or_default()))
        .filter(|refusal| *refusal != ("git.localhost", "proxy_auth_required"))
        .collect();
    let expected =
        [("other.localhost", "placeholder_misdirected"), ("blocked.localhost", "host_not_allowed")];
    if refused != expected {
        return Some(format!("the audit records of refusals are {refused:?}"));
    }
    let carrying = |secret: &str, host: &str| {
        allowed
            .iter()
            .any(|record| record.host == host && record.swapped.iter().any(|swap| swap.starts_with(secret)))
    };
    for (secret, host) in [("DEMO_API_KEY", "api.localhost"), ("DEMO_GIT_PASSWORD", "git.localhost")] {
        if !carrying(secret, host) {
            return Some(format!("no audit record says that {secret} went to {host}"));
        }
    }
    None
}

/// The begin and the end of a long URL.
fn shortened(url: &str, width: usize) -> String {
    let characters: Vec<char> = url.chars().collect();
    if characters.len() <= width {
        return url.to_owned();
    }
    let (begin, end) = (width - 9, characters.len() - 8);
    characters[..begin].iter().chain(&['…']).chain(&characters[end..]).collect()
}

/// The records in columns.
pub(super) fn table(records: &[Record]) -> String {
    let header = ["", "METHOD", "DESTINATION", "STATUS", "REASON OR SECRET"].map(str::to_owned);
    let rows: Vec<[String; 5]> = records
        .iter()
        .map(|record| {
            [
                record.action.clone(),
                record.method.clone(),
                record.url.clone(),
                record.status.map(|status| status.to_string()).unwrap_or_default(),
                record.reason.clone().unwrap_or_else(|| record.swapped.join("; ")),
            ]
        })
        .collect();
    let width = |column: usize| {
        rows.iter().chain([&header]).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let line = |row: &[String; 5]| {
        let cells: Vec<String> = (0..4).map(|column| format!("{:<1$}", row[column], width(column))).collect();
        (cells, row[4].clone())
    };
    let (cells, last) = line(&header);
    let mut lines = vec![terminal::faint(Stream::Stdout, &format!("  {}  {last}", cells.join("  ")))];
    for row in &rows {
        let (mut cells, last) = line(row);
        let paint = if row[0] == "allow" { terminal::good } else { terminal::bad };
        cells[0] = paint(Stream::Stdout, &cells[0]);
        lines.push(format!("  {}  {last}", cells.join("  ")).trim_end().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &str = r#"{"time":"t","level":"INFO","msg":"request","audit":{"host":"api.localhost","port":8443,"method":"GET","path":"/v1","action":"allow","reason":null,"status_code":200},"request_transforms":[{"name":"secrets","action":"allow","annotations":{"swapped":[{"secret":"DEMO_API_KEY","locations":["header:authorization"]}]}}]}"#;
    const REFUSED: &str = r#"{"audit":{"host":"blocked.localhost","port":8443,"method":"CONNECT","path":"","action":"reject","reason":"host_not_allowed","status_code":403}}"#;

    #[test]
    fn records_are_read_and_shown_in_columns() {
        let records = Record::parse(&format!("{ALLOWED}\n{REFUSED}\n")).unwrap();

        assert_eq!(
            table(&records),
            "          METHOD   DESTINATION             STATUS  REASON OR SECRET\n\
             \u{20} allow   GET      api.localhost:8443/v1   200     DEMO_API_KEY in header:authorization\n\
             \u{20} reject  CONNECT  blocked.localhost:8443  403     host_not_allowed"
        );
    }

    #[test]
    fn a_long_url_is_cut_in_the_middle() {
        assert_eq!(shortened("git.localhost:8443/demo.git/HEAD", 32), "git.localhost:8443/demo.git/HEAD");
        assert_eq!(
            shortened("git.localhost:8443/objects/0123456789abcdef", 32),
            "git.localhost:8443/obje…89abcdef"
        );
    }

    #[test]
    fn a_record_that_is_missing_one_too_many_or_of_the_wrong_kind_is_a_fault() {
        let records = Record::parse(&format!("{ALLOWED}\n{REFUSED}\n")).unwrap();
        let seen = Seen {
            host: "api.localhost".to_owned(),
            method: "GET".to_owned(),
            path: "/v1".to_owned(),
            authorization: None,
            api_key: None,
            body: String::new(),
            status: 200,
        };

        assert_eq!(fault(&records, &[]), Some("0 requests arrived, but 1 audit records say so".to_owned()));
        assert_eq!(
            fault(&records, &[seen]),
            Some(
                r#"the audit records of refusals are [("blocked.localhost", "host_not_allowed")]"#.to_owned()
            )
        );
        assert!(Record::parse("{").is_err() && Record::parse("{}").is_err());
    }
}
