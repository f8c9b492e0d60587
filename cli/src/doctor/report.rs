//! What was found.

use serde::Serialize;

/// Of the machine, and of each client.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) checks: Vec<Check>,
    pub(crate) clients: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Ok,
    /// It works as well as it can; there is something to know.
    Note,
    Failed,
    /// It is not in the sandbox.
    Absent,
}

/// Something that every sandbox needs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) what: String,
}

/// What became of one client.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) what: String,
    /// The variable that it should have, `NAME=VALUE`.
    pub(crate) set: Option<String>,
    /// The switch that does the same.
    pub(crate) switch: Option<String>,
}

impl Report {
    /// Whether all that there is works, or cannot work better.
    pub(crate) fn is_good(&self) -> bool {
        let mut states =
            self.checks.iter().map(|check| check.state).chain(self.clients.iter().map(|it| it.state));
        states.all(|state| match state {
            State::Ok | State::Note | State::Absent => true,
            State::Failed => false,
        })
    }
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Failed => "failed",
            Self::Absent => "absent",
        }
    }
}

impl Check {
    pub(super) fn ok(name: &'static str, what: &str) -> Self {
        Self { name, state: State::Ok, what: what.to_owned() }
    }

    pub(super) fn note(name: &'static str, what: &str) -> Self {
        Self { name, state: State::Note, what: what.to_owned() }
    }

    pub(super) fn failed(name: &'static str, what: &str) -> Self {
        Self { name, state: State::Failed, what: what.to_owned() }
    }
}
