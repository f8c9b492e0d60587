//! Audit records, line by line.

use std::io::{self, BufRead};

use keyferry_contract::audit::{Message, Record};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::lines::Lines;

/// The lines of a file, one in memory at a time.
pub(crate) struct Log<R>(Lines<R>);

/// What stands on a line.
pub(crate) enum Line<'a> {
    /// A finished request.
    Request(Box<Record<'a>>),
    /// Something else that belongs there: a request that is still open, a line of the process's own log.
    Other,
    /// The writer was interrupted, and nothing follows.
    Torn,
    /// Not a record, at this line.
    Unreadable(u64),
}

impl<R: BufRead> Log<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self(Lines::new(reader))
    }

    /// The next line; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let Some(line) = self.0.next()? else { return Ok(None) };
        Ok(Some(match serde_json::from_slice::<Record<'_>>(line.bytes) {
            Ok(record) if record.msg == Message::Request => Line::Request(Box::new(record)),
            Ok(_) => Line::Other,
            Err(_) if line.bytes.trim_ascii().is_empty() => Line::Other,
            Err(_) if !line.ended => Line::Torn,
            Err(_) if is_of_another_kind(line.bytes) => Line::Other,
            Err(_) => Line::Unreadable(line.number),
        }))
    }
}

/// A line of the log, or an audit line of a kind that this version does not know.
fn is_of_another_kind(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Any<'a> {
        #[serde(default)]
        msg: Option<&'a str>,
        #[serde(default)]
        audit: Option<IgnoredAny>,
    }
    let any = serde_json::from_slice::<Any<'_>>(line);
    any.is_ok_and(|any| any.audit.is_none() || any.msg.is_some_and(|msg| msg != "request"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"time":"2026-11-22T12:30:00Z","level":"INFO","msg":"request","audit":{"request_id":"00000000000000010000000000000001","principal":"local","generation":1,"host":"api.example","port":443,"scheme":"https","method":"GET","path":"/","sni":null,"mode":"mitm","action":"allow","reason":null,"rule":null,"status_code":200,"duration_ms":1.0,"bytes_in":0,"bytes_out":0,"upstream_addr":null,"remote_addr":"127.0.0.1:1","client_protocol":null,"upstream_protocol":null,"from_a_later_version":{}},"also":1}"#;

    #[test]
    fn records_are_told_from_what_else_may_stand_in_a_file() {
        let open = REQUEST.replace(r#""msg":"request""#, r#""msg":"request_open""#);
        let long = format!("{{\"audit\":\"{}\"", "x".repeat(2 << 20));
        let torn = &REQUEST[..200];
        let file = format!(
            "{REQUEST}\n{open}\n{{\"level\":\"INFO\",\"msg\":\"ready\"}}\n\n{long}\n{torn}{REQUEST}\n{REQUEST}\n{torn}"
        );
        let mut log = Log::new(file.as_bytes());
        let mut seen = Vec::new();
        while let Some(line) = log.next().unwrap() {
            seen.push(match line {
                Line::Request(record) => record.audit.host.into_owned(),
                Line::Other => "other".to_owned(),
                Line::Torn => "torn".to_owned(),
                Line::Unreadable(number) => format!("unreadable {number}"),
            });
        }
        assert_eq!(
            seen,
            ["api.example", "other", "other", "other", "unreadable 5", "unreadable 6", "api.example", "torn"]
        );
    }
}
