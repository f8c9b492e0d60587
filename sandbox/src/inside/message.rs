//! What driver and init say to each other: lines of JSON over a socket that the command does not hold.

use serde::{Deserialize, Serialize};

use crate::driver::Signal;

/// From the driver. The end of the stream means that nobody waits any more, and everything ends.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Instruction {
    Signal(Signal),
    End,
}

/// From the init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    Started,
    Code(u8),
    Signal(i32),
    TimeLimit,
}

/// A message as it travels.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    // Neither of the two types holds what JSON cannot say.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
