//! What keeps a sandbox from being made.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Why there is no sandbox, or why something of it remains.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An id that cannot be part of a path.
    #[error("{given:?} is no sandbox id: 1 to 64 letters, digits, '_' and '-'")]
    Id {
        /// What was given.
        given: String,
    },
    /// The id is taken.
    #[error("there is a sandbox {id} already\nhint: delete or reap it, or choose another id")]
    Exists {
        /// The id.
        id: String,
    },
    /// A variable that no environment can hold.
    #[error(
        "{name:?} cannot be an environment variable: names are letters, digits and '_', values hold no NUL"
    )]
    Variable {
        /// Its name.
        name: OsString,
    },
    /// A command without a program, or an argument that holds a NUL.
    #[error("the command is {problem}")]
    Command {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A limit that nothing could run under.
    #[error("a limit on {what} of {given} is too low: at least {least}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// What was asked for.
        given: u64,
        /// What it must be at least.
        least: u64,
    },
    /// No such program on the host.
    #[error(
        "there is no program {program:?} on this host\nhint: give its path, or install it; looked in {searched}"
    )]
    CommandNotFound {
        /// What was looked for.
        program: OsString,
        /// Where.
        searched: String,
    },
    /// bubblewrap is missing.
    #[error(
        "bubblewrap is not installed: there is no bwrap in {searched}\nhint: install the package bubblewrap"
    )]
    BubblewrapMissing {
        /// Where it was looked for.
        searched: String,
    },
    /// The kernel, or its settings, lack what isolation needs.
    #[error("this system cannot isolate a sandbox: {feature} cannot be had ({said})\nhint: {hint}")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// What the system said.
        said: String,
        /// What to do.
        hint: &'static str,
    },
    /// Isolation failed in a way that has no name of its own.
    #[error("the sandbox could not be set up: {said}")]
    Setup {
        /// What bubblewrap or the init said.
        said: String,
    },
    /// A limit that must hold cannot.
    #[error(
        "limits are required and cannot be enforced: {missing}\nhint: run where cgroups can be made (as root, or in a \
         systemd user session), or do not require limits"
    )]
    LimitsUnavailable {
        /// Which.
        missing: String,
    },
    /// A directory that must not be a workspace.
    #[error("{} cannot be the workspace: {problem}", path.display())]
    Workspace {
        /// The directory.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A Unix socket would cross the wall.
    #[error(
        "{} is a Unix socket: who listens there could be reached from the sandbox\nhint: remove it, or allow sockets", path.display()
    )]
    Socket {
        /// The socket.
        path: PathBuf,
    },
    /// A path that cannot be shown inside.
    #[error("{} cannot be mounted read-only: {problem}", path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// What should be the proxy's socket is not one.
    #[error("{} is not the proxy's Unix socket: {problem}\nhint: start the proxy first", path.display())]
    ProxySocket {
        /// The path.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Certificates that cannot be read.
    #[error("the bundle of certificates cannot be read: {problem}")]
    CaBundle {
        /// Why.
        problem: String,
    },
    /// Started twice, or used before it was started.
    #[error("the sandbox {problem}")]
    State {
        /// Which.
        problem: &'static str,
    },
    /// The host's file system or processes.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { doing, path, error }
    }
}
