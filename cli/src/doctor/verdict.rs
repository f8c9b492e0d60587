//! From what became of an attempt to what is to be done.

use std::time::Duration;

use keyferry_sandbox::Exit;
use serde_json::Value;

use super::Said;
use super::probes::{ABSENT, Probe, Setting, UNABLE};
use super::report::{Finding, State};
use super::service::Arrived;

/// What became of one client.
pub(super) struct Attempt {
    pub(super) said: Said,
    pub(super) arrived: Arrived,
    /// What the proxy wrote about it.
    pub(super) record: Option<Value>,
    /// What it was given.
    pub(super) time: Duration,
}

pub(super) fn judge(probe: &Probe, attempt: &Attempt) -> Finding {
    let finding = |state, what: String, remedy: Option<Setting>| Finding {
        name: probe.name,
        state,
        what,
        set: remedy.and_then(|it| it.variable.map(|variable| format!("{variable}={}", it.value))),
        switch: remedy.and_then(|it| it.switch.map(|switch| format!("{switch}{}", it.value))),
    };
    let Attempt { said, arrived, record, time } = attempt;
    let in_time = match said.exit {
        Exit::Code(ABSENT) => return finding(State::Absent, "is not in the sandbox".to_owned(), None),
        Exit::Code(0) if arrived.with_the_value => {
            return match probe.caveat {
                Some(caveat) => finding(State::Note, caveat.to_owned(), None),
                None => finding(State::Ok, "reaches the service through the proxy".to_owned(), None),
            };
        }
        Exit::Code(UNABLE) => return finding(State::Note, probe.unable.to_owned(), None),
        Exit::TimeLimit => format!(" within {} s", time.as_secs()),
        Exit::Code(_) | Exit::Signal(_) | Exit::Killed => String::new(),
    };
    let last = last_words(&said.stderr);
    let (what, remedy) = match (arrived, record.as_ref().map(|record| &record["audit"])) {
        (Arrived { with_the_value: true, .. }, _) => {
            (format!("reaches the service, and does not get done{in_time}: {last}"), None)
        }
        (Arrived { without: true, .. }, _) => {
            (format!("reaches the service{in_time}, and shows no credential: {last}"), None)
        }
        (_, None) => (format!("does not use the proxy{in_time}: {last}"), Some(probe.proxy)),
        (_, Some(audit)) => match audit["reason"].as_str() {
            Some(reason) if !is_of_a_handshake(audit) => {
                (format!("is refused by the proxy ({reason}): {last}"), None)
            }
            Some(_) | None => {
                (format!("reaches the proxy{in_time}, and does not trust it: {last}"), Some(probe.trust))
            }
        },
    };
    finding(State::Failed, what, remedy)
}

/// A tunnel was opened, and no request came through it: the client broke off when it saw the certificate.
fn is_of_a_handshake(audit: &Value) -> bool {
    audit["method"] == "CONNECT" && audit["reason"] == "malformed_request"
}

/// What a client says last is mostly why, unless it goes on to say where there is more to read.
fn last_words(stderr: &str) -> &str {
    const WHY: [&str; 7] = ["certificate", "ssl", "tls", "resolve", "refused", "proxy", "enotfound"];
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tells = |line: &&&str| {
        let line = line.to_ascii_lowercase();
        WHY.iter().any(|word| line.contains(word))
    };
    lines.iter().rev().find(tells).or(lines.last()).copied().unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::probes::PROBES;
    use super::*;

    fn attempt(exit: Exit, arrived: (bool, bool), record: Option<Value>) -> Attempt {
        let (with_the_value, without) = arrived;
        Attempt {
            said: Said { exit, stdout: String::new(), stderr: "first\nlast\n".to_owned() },
            arrived: Arrived { with_the_value, without },
            record,
            time: Duration::from_secs(30),
        }
    }

    #[test]
    fn what_a_client_lacks_is_told_by_how_far_it_came() {
        let curl = &PROBES[0];
        let judged = |exit, arrived, record| {
            let Finding { name, state, what, set, switch } = judge(curl, &attempt(exit, arrived, record));
            assert_eq!(name, "curl");
            (state, what, set, switch)
        };
        let told = |state, what: &str, set: Option<&str>, switch: Option<&str>| {
            (state, what.to_owned(), set.map(str::to_owned), switch.map(str::to_owned))
        };
        let (failed, code) = (State::Failed, Exit::Code);
        let broken_off = json!({ "audit": { "method": "CONNECT", "reason": "malformed_request" } });
        let refused = json!({ "audit": { "method": "GET", "reason": "host_not_allowed" } });
        for (judged, expected) in [
            (
                judged(code(0), (true, true), None),
                told(State::Ok, "reaches the service through the proxy", None, None),
            ),
            (
                judged(code(ABSENT), (false, false), None),
                told(State::Absent, "is not in the sandbox", None, None),
            ),
            (judged(code(UNABLE), (false, false), None), told(State::Note, "", None, None)),
            (
                judged(code(7), (false, false), None),
                told(
                    failed,
                    "does not use the proxy: last",
                    Some("https_proxy=http://127.0.0.1:3128"),
                    Some("--proxy http://127.0.0.1:3128"),
                ),
            ),
            (
                judged(Exit::TimeLimit, (false, false), Some(broken_off)),
                told(
                    failed,
                    "reaches the proxy within 30 s, and does not trust it: last",
                    Some("CURL_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"),
                    Some("--cacert /etc/ssl/certs/ca-certificates.crt"),
                ),
            ),
            (
                judged(code(22), (false, false), Some(refused)),
                told(failed, "is refused by the proxy (host_not_allowed): last", None, None),
            ),
            (
                judged(code(22), (false, true), None),
                told(failed, "reaches the service, and shows no credential: last", None, None),
            ),
            // It says that all is well, and nothing came.
            (
                judged(code(0), (false, true), None),
                told(failed, "reaches the service, and shows no credential: last", None, None),
            ),
            (
                judged(code(1), (true, true), None),
                told(failed, "reaches the service, and does not get done: last", None, None),
            ),
        ] {
            assert_eq!(judged, expected);
        }
    }

    #[test]
    fn the_line_that_tells_why_is_shown() {
        for (said, why) in [
            ("", "it said nothing"),
            ("a\n\n", "a"),
            (
                "error self-signed certificate in chain\nerror A log can be found in x\n",
                "error self-signed certificate in chain",
            ),
        ] {
            assert_eq!(last_words(said), why);
        }
    }
}
