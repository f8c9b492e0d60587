//! Records as JSON, written straight into a buffer: what serde makes of them, to the byte, for a third of the instructions (`benches/benches/audit.rs`).

use std::io::Write;
use std::net::SocketAddr;

use itoa::Integer;
use jiff::Timestamp;
use keyferry_config::policy::Location;

use super::{Action, Annotations, Audit, Level, Message, Record, RequestId, SecretUse, TransformTrace};

/// Writes records. It remembers the second that it last wrote: many requests share one.
#[derive(Debug)]
pub struct Renderer {
    second: i64,
    /// `"2026-11-22T12:30:00`, with the quote.
    text: String,
}

impl Default for Renderer {
    fn default() -> Self {
        Self { second: i64::MIN, text: String::new() }
    }
}

impl Renderer {
    /// Appends `record`, as serde would write it, without a line break.
    pub fn render(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let Record {
            time,
            level,
            msg,
            audit,
            tunnel,
            rejected_by,
            error,
            retried,
            request_transforms,
            response_transforms,
        } = record;
        out.extend_from_slice(br#"{"time":"#);
        self.time(*time, out);
        out.extend_from_slice(br#","level":""#);
        out.extend_from_slice(level.as_str().as_bytes());
        out.extend_from_slice(br#"","msg":""#);
        out.extend_from_slice(msg.as_str().as_bytes());
        out.extend_from_slice(br#"","audit":"#);
        request(audit, out);
        if let Some(tunnel) = tunnel {
            out.extend_from_slice(br#","tunnel":{"target":"#);
            string(&tunnel.target, out);
            out.push(b'}');
        }
        if let Some(transform) = rejected_by {
            out.extend_from_slice(br#","rejected_by":"#);
            string(transform, out);
        }
        if let Some(error) = error {
            out.extend_from_slice(br#","error":"#);
            string(error, out);
        }
        if *retried {
            out.extend_from_slice(br#","retried":true"#);
        }
        transforms(br#","request_transforms":"#, request_transforms, out);
        transforms(br#","response_transforms":"#, response_transforms, out);
        out.push(b'}');
    }

    fn time(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        // Before 1970 seconds and fractions count in different directions; no clock says so.
        let (second, Ok(fraction @ 0..)) = (time.as_second(), u32::try_from(time.subsec_nanosecond())) else {
            return display(&time, out);
        };
        if second != self.second {
            let whole = Timestamp::from_second(second).unwrap_or(time);
            self.text = format!("\"{whole}");
            self.text.pop();
            self.second = second;
        }
        out.extend_from_slice(self.text.as_bytes());
        if fraction > 0 {
            decimals(u64::from(fraction), 9, out);
        }
        out.extend_from_slice(b"Z\"");
    }
}

fn request(audit: &Audit<'_>, out: &mut Vec<u8>) {
    let Audit {
        request_id,
        principal,
        sandbox,
        generation,
        host,
        port,
        scheme,
        method,
        path,
        sni,
        mode,
        action,
        reason,
        rule,
        status_code,
        duration_ms,
        bytes_in,
        bytes_out,
        upstream_addr,
        remote_addr,
        client_protocol,
        upstream_protocol,
        trace_id,
    } = audit;
    out.extend_from_slice(br#"{"request_id":""#);
    id(*request_id, out);
    out.extend_from_slice(br#"","principal":"#);
    string(principal, out);
    if let Some(sandbox) = sandbox {
        out.extend_from_slice(br#","sandbox":"#);
        string(sandbox, out);
    }
    out.extend_from_slice(br#","generation":"#);
    integer(*generation, out);
    out.extend_from_slice(br#","host":"#);
    string(host, out);
    out.extend_from_slice(br#","port":"#);
    or_null(*port, out, integer);
    out.extend_from_slice(br#","scheme":"#);
    or_null(scheme.as_deref(), out, string);
    out.extend_from_slice(br#","method":"#);
    string(method, out);
    out.extend_from_slice(br#","path":"#);
    string(path, out);
    out.extend_from_slice(br#","sni":"#);
    or_null(sni.as_deref(), out, string);
    out.extend_from_slice(br#","mode":"#);
    string(mode, out);
    out.extend_from_slice(br#","action":""#);
    out.extend_from_slice(action.as_str().as_bytes());
    out.extend_from_slice(br#"","reason":"#);
    or_null(reason.as_deref(), out, string);
    out.extend_from_slice(br#","rule":"#);
    or_null(rule.as_deref(), out, string);
    out.extend_from_slice(br#","status_code":"#);
    or_null(*status_code, out, integer);
    out.extend_from_slice(br#","duration_ms":"#);
    milliseconds(*duration_ms, out);
    out.extend_from_slice(br#","bytes_in":"#);
    integer(*bytes_in, out);
    out.extend_from_slice(br#","bytes_out":"#);
    integer(*bytes_out, out);
    out.extend_from_slice(br#","upstream_addr":"#);
    or_null(*upstream_addr, out, address);
    out.extend_from_slice(br#","remote_addr":"#);
    or_null(*remote_addr, out, address);
    out.extend_from_slice(br#","client_protocol":"#);
    or_null(client_protocol.as_deref(), out, string);
    out.extend_from_slice(br#","upstream_protocol":"#);
    or_null(upstream_protocol.as_deref(), out, string);
    if let Some(trace_id) = trace_id {
        out.extend_from_slice(br#","trace_id":"#);
        string(trace_id, out);
    }
    out.push(b'}');
}

fn transforms(key: &[u8], traces: &[TransformTrace<'_>], out: &mut Vec<u8>) {
    if traces.is_empty() {
        return;
    }
    out.extend_from_slice(key);
    list(traces, out, |TransformTrace { name, action, annotations }, out| {
        out.extend_from_slice(br#"{"name":"#);
        string(name, out);
        out.extend_from_slice(br#","action":"#);
        string(action, out);
        if !annotations.is_empty() {
            out.extend_from_slice(br#","annotations":"#);
            self::annotations(annotations, out);
        }
        out.push(b'}');
    });
}

fn annotations(annotations: &Annotations<'_>, out: &mut Vec<u8>) {
    let Annotations { swapped, injected, secret_unavailable, foreign_passed, foreign_stripped, redacted } =
        annotations;
    let mut before: &[u8] = b"{";
    let mut key = |key: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(before);
        out.extend_from_slice(key);
        before = b",";
    };
    if !swapped.is_empty() {
        key(br#""swapped":"#, out);
        list(swapped, out, secret_use);
    }
    if !injected.is_empty() {
        key(br#""injected":"#, out);
        list(injected, out, secret_use);
    }
    if !secret_unavailable.is_empty() {
        key(br#""secret_unavailable":"#, out);
        list(secret_unavailable, out, |name, out| string(name, out));
    }
    for (name, locations) in
        [(&br#""foreign_passed":"#[..], foreign_passed), (br#""foreign_stripped":"#, foreign_stripped)]
    {
        if !locations.is_empty() {
            key(name, out);
            list(locations, out, location);
        }
    }
    if let Some(count) = redacted {
        key(br#""redacted":"#, out);
        integer(*count, out);
    }
    out.push(b'}');
}

fn secret_use(SecretUse { secret, locations }: &SecretUse<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"secret":"#);
    string(secret, out);
    out.extend_from_slice(br#","locations":"#);
    list(locations, out, location);
    out.push(b'}');
}

fn location(location: &Location, out: &mut Vec<u8>) {
    let (kind, name): (&[u8], &str) = match location {
        Location::Header(name) => (b"\"header:", name.as_str()),
        Location::Query(key) => (b"\"query:", key),
        Location::Path => (b"\"path", ""),
        Location::Body => (b"\"body", ""),
    };
    out.extend_from_slice(kind);
    escaped(name, out);
    out.push(b'"');
}

fn list<T>(items: &[T], out: &mut Vec<u8>, write: impl Fn(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn or_null<T>(value: Option<T>, out: &mut Vec<u8>, write: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        Some(value) => write(value, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(text, out);
    out.push(b'"');
}

fn escaped(text: &str, out: &mut Vec<u8>) {
    // Nearly all texts are plain: looked at once, copied at once.
    if !text.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            0x08 => out.extend_from_slice(br"\b"),
            0x0c => out.extend_from_slice(br"\f"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            0..0x20 => {
                out.extend_from_slice(br"\u00");
                out.extend_from_slice(&hex(byte));
            }
            byte => out.push(byte),
        }
    }
}

fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn integer(number: impl Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Durations have microseconds: the shortest text that means such a number has at most three decimals, without zeros at its end.
fn milliseconds(duration: f64, out: &mut Vec<u8>) {
    // So small that each microsecond is a number of its own.
    const LARGEST: f64 = 1e14;
    let microseconds = (duration * 1e3).round();
    if !(0.0..LARGEST).contains(&microseconds)
        || duration.is_sign_negative()
        || microseconds / 1e3 != duration
    {
        // A number is plain data; `serde_json` cannot fail on it.
        let _ = serde_json::to_writer(out, &duration);
        return;
    }
    let microseconds = microseconds as u64;
    integer(microseconds / 1000, out);
    match microseconds % 1000 {
        0 => out.extend_from_slice(b".0"),
        rest => decimals(rest, 3, out),
    }
}

/// A decimal point and so many digits, without zeros at their end; `number` is more than zero.
fn decimals(number: u64, digits: usize, out: &mut Vec<u8>) {
    out.push(b'.');
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number);
    out.extend_from_slice(&b"000000000"[..digits - text.len()]);
    out.extend_from_slice(text.trim_end_matches('0').as_bytes());
}

fn address(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(address) = address else { return display(&address, out) };
    out.push(b'"');
    for (index, octet) in address.ip().octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        integer(octet, out);
    }
    out.push(b':');
    integer(address.port(), out);
    out.push(b'"');
}

fn id(RequestId { process, number }: RequestId, out: &mut Vec<u8>) {
    for byte in process.to_be_bytes().into_iter().chain(number.to_be_bytes()) {
        out.extend_from_slice(&hex(byte));
    }
}

pub(crate) fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

fn display(value: &impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = write!(out, "\"{value}\"");
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl Message {
    fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::RequestOpen => "request_open",
        }
    }
}

impl Action {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Reject => "reject",
            Self::Error => "error",
            Self::ClientCancel => "client_cancel",
        }
    }
}
