//! Sockets of which each is one sandbox's: whoever can connect to it is that sandbox, so there is nothing to steal.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyferry_contract::sync::sandbox_socket;
use tokio::sync::mpsc;

use super::Sandbox;

/// The directory in which they are made. Nobody but this process's user can enter it.
#[derive(Debug)]
pub(crate) struct Sockets {
    directory: PathBuf,
    /// For one proxy alone: it takes the sockets of another for leftovers.
    _lock: File,
    opened: mpsc::UnboundedSender<Opened>,
}

/// A socket that listens and is not served yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) listener: UnixListener,
    pub(crate) sandbox: Arc<Sandbox>,
}

/// The socket of a sandbox, as long as its sandbox is known.
#[derive(Debug)]
pub(crate) struct OwnSocket(PathBuf);

/// Why sandboxes cannot have sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// The kernel takes paths of sockets up to a length alone.
    #[error(
        "{} is too long a path for the sockets of sandboxes: {} bytes, and {LONGEST_DIRECTORY} are the most\n  hint: choose a shorter one", directory.display(), directory.as_os_str().len()
    )]
    TooLong {
        /// The directory.
        directory: PathBuf,
    },
    /// Whoever connects to a socket is the sandbox.
    #[error(
        "{} is open to others, who could be any sandbox by connecting to its socket\n  hint: chmod 700 {}", directory.display(), directory.display()
    )]
    OpenToOthers {
        /// The directory.
        directory: PathBuf,
    },
    /// Two proxies would take each other's sockets away.
    #[error(
        "{} holds the sockets of another proxy that runs\n  hint: give each proxy a directory of its own", directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The file system says no.
    #[error("{} cannot hold the sockets of sandboxes: {error}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// What `sun_path` holds, without the NUL at its end.
const LONGEST_PATH: usize = 107;
/// As control makes them.
const LONGEST_ID: usize = 28;
const LONGEST_DIRECTORY: usize = LONGEST_PATH - "/".len() - LONGEST_ID - "/proxy.sock".len();

impl Sockets {
    /// Takes the directory for this proxy, making it where it is not there. What is opened is to be served by whoever holds the other end.
    pub(crate) fn within(directory: &Path) -> Result<(Self, mpsc::UnboundedReceiver<Opened>), SocketsError> {
        let failed = |error| SocketsError::Io { directory: directory.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        if directory.as_os_str().len() > LONGEST_DIRECTORY {
            return Err(SocketsError::TooLong { directory });
        }
        if fs::metadata(&directory).map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(SocketsError::OpenToOthers { directory });
        }
        let lock = File::open(&directory).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SocketsError::InUse { directory }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (opened, to_serve) = mpsc::unbounded_channel();
        Ok((Self { directory, _lock: lock, opened }, to_serve))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the socket of a sandbox. One that a killed proxy left in its place is replaced; their directory stays the same, so that a
    /// sandbox which has it mounted goes on.
    pub(crate) fn open(&self, sandbox: &Arc<Sandbox>) -> io::Result<()> {
        if !is_part_of_a_path(&sandbox.id) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "its id cannot be part of a path"));
        }
        let path = sandbox_socket(&self.directory, &sandbox.id);
        let own = self.directory.join(&*sandbox.id);
        match DirBuilder::new().mode(0o700).create(&own) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        let listener = UnixListener::bind(&path)?;
        // Nobody else can enter the directory meanwhile.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        *sandbox.socket() = Some(OwnSocket(path));
        // It fails where nobody serves any more because the proxy is ending.
        let _ = self.opened.send(Opened { listener, sandbox: Arc::clone(sandbox) });
        Ok(())
    }

    /// Removes what an earlier proxy left of sandboxes that are not known any more.
    pub(crate) fn remove_others(&self, is_known: impl Fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if is_part_of_a_path(&name) && !is_known(&name) {
                OwnSocket(sandbox_socket(&self.directory, &name)).remove();
            }
        }
    }
}

impl OwnSocket {
    /// Nobody can connect any more.
    pub(crate) fn close(&self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, socket = %self.0.display(), "the socket of a sandbox cannot be removed");
        }
    }

    /// The sandbox has ended, and with it the directory that it had mounted.
    pub(crate) fn remove(self) {
        self.close();
        // Where something else stands in it, it is not ours alone.
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

fn is_part_of_a_path(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_proxys_its_owners_alone_and_no_longer_than_a_socket_allows() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        let first = Sockets::within(&at("own")).unwrap();
        assert_eq!(fs::metadata(at("own")).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(Sockets::within(&at("own")), Err(SocketsError::InUse { .. })));
        drop(first);
        assert!(Sockets::within(&at("own")).is_ok());

        fs::set_permissions(at("own"), Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Sockets::within(&at("own")), Err(SocketsError::OpenToOthers { .. })));
        let long = at(&"x".repeat(LONGEST_DIRECTORY));
        assert!(matches!(Sockets::within(&long), Err(SocketsError::TooLong { .. })));
    }

    #[test]
    fn an_id_names_nothing_outside_of_the_directory() {
        for bad in ["", ".", "..", "a/b", "../a", "a b", "a\0", &"x".repeat(LONGEST_ID + 1)] {
            assert!(!is_part_of_a_path(bad), "{bad:?}");
        }
        assert!(is_part_of_a_path("sbx_0aZ-1"));
    }
}
