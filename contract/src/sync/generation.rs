//! Which state of the control plane a policy comes from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A state of the control plane. Within an epoch numbers only grow, so that an older one is a replay (T83); a database that was
/// restored from a backup begins a new epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Generation {
    /// Random, made when the database was.
    pub epoch: String,
    /// Counts changes.
    pub number: u64,
}

impl Generation {
    /// Whether a proxy that holds `self` may go on to `next`.
    pub fn may_become(&self, next: &Self) -> bool {
        self.epoch != next.epoch || next.number >= self.number
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// A text that is no generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a generation; write EPOCH.NUMBER")]
pub struct GenerationError;

impl FromStr for Generation {
    type Err = GenerationError;

    fn from_str(text: &str) -> Result<Self, GenerationError> {
        let (epoch, number) = text.split_once('.').ok_or(GenerationError)?;
        if epoch.is_empty() || !epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(GenerationError);
        }
        Ok(Self { epoch: epoch.to_owned(), number: number.parse().map_err(|_| GenerationError)? })
    }
}
