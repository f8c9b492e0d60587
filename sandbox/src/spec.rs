//! What a sandbox is to be.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::error::Error;

/// The name of a sandbox: it becomes part of paths and of a cgroup's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

impl SandboxId {
    const MAX_LENGTH: usize = 64;

    /// Reads an id: 1 to 64 letters, digits, `_` and `-`.
    ///
    /// # Errors
    /// When the text holds anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !text.bytes().all(allowed) {
            return Err(Error::Id { given: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for SandboxId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

/// All that a driver must know to make a sandbox.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The program and its arguments. A name without a slash is looked for where the driver looks for programs.
    pub command: Vec<OsString>,
    /// All variables that the command will see.
    pub environment: Environment,
    /// The one place that the command can change and that outlives the sandbox.
    pub workspace: Workspace,
    /// More of the host that may be read, where it really is: links are resolved first.
    pub read_only: Vec<PathBuf>,
    /// The proxy's Unix socket for this sandbox, and the only way out of it. Whoever connects to it is this sandbox. Where it is
    /// called `proxy.sock` and stands alone in its directory, that is what is mounted, so that a socket which a proxy makes anew is reached.
    pub proxy_socket: PathBuf,
    /// Certificates in PEM form that programs trust: the system's roots, and the proxy's authority.
    pub ca_bundle: String,
    /// What it may use up.
    pub limits: Limits,
}

/// The directory to work in.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Where it is, outside and inside.
    pub path: PathBuf,
    /// Whether it, and what is read-only, may hold Unix sockets. Who listens on one could be reached from inside.
    pub allow_sockets: bool,
}

/// What a sandbox may use up. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all processes together, with what is in the private directories.
    pub memory: Option<u64>,
    /// Processes and threads at a time.
    pub processes: Option<u32>,
    /// Thousandths of one processor.
    pub cpu: Option<u32>,
    /// From the command's start to the end of everything.
    pub wall_clock: Option<Duration>,
    /// The private `/tmp`.
    pub tmp: u64,
    /// The private home.
    pub home: u64,
    /// Whether a limit on memory, processes or cpu that can only be approximated refuses the sandbox.
    pub required: bool,
}

impl Default for Limits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            memory: Some(4 * GIB),
            processes: Some(1024),
            cpu: None,
            wall_clock: None,
            tmp: GIB,
            home: GIB,
            required: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_part_of_a_path_and_nothing_more() {
        for good in ["a", "sbx_01-B", &"x".repeat(64)] {
            assert_eq!(SandboxId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "a\0", "ä", &"x".repeat(65)] {
            assert!(SandboxId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
