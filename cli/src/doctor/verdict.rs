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
            Some(reason) if !is_of_trust(reason) => {
                (format!("is refused by the proxy ({reason}): {last}"), None)
            }
            Some(_) | None => {
                (format!("reaches the proxy{in_time}, and does not trust it: {last}"), Some(probe.trust))
            }
        },
    };
    finding(State::Failed, what, remedy)
}

/// The client broke off the handshake, or never began it.
fn is_of_trust(reason: &str) -> bool {
    reason.contains("tls")
}

/// What a client says last is mostly why.
fn last_words(stderr: &str) -> &str {
    stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing")
}
