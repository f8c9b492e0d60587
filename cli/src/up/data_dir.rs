//! The folder in which `keyferry up` keeps everything: database, keys, authority, sockets.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyferry_proxy::tls::NewAuthority;
use keyferry_seal::{Keyring, Keys};
use tokio::time::{Instant, sleep};

use crate::command::ca::{bundle, init};
use crate::failure::Failure;

/// Ours until it is dropped.
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// A file that is there once everything else is.
pub(crate) const READY: &str = "ready";
/// What is said of a directory that another process has.
pub(crate) const IN_USE: &str = "is in use by another `keyferry up`";
/// What its holder writes beside its number, where it ends by itself.
const FOR_A_WHILE: &str = "for a while";
/// How long such a one may take to end after its last use.
const PATIENCE: Duration = Duration::from_secs(5);

impl DataDir {
    /// Makes it where it is not there, and takes it for this process alone. One that was started for a while has it until then: it is
    /// waited for, unless this is to be another such.
    pub(super) async fn take(path: &Path, for_a_while: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::fatal(format!("{}: {error}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        let patience = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let mut holder = String::new();
            let _ = lock.rewind().and_then(|()| lock.read_to_string(&mut holder));
            let (pid, its_end) = holder.trim().split_once(' ').unwrap_or((holder.trim(), ""));
            if its_end == FOR_A_WHILE && !for_a_while && Instant::now() < patience {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let hint = match its_end {
                FOR_A_WHILE => "it was started by `keyferry run` or another command, and ends with it",
                _ => "use that one, end it, or give this one another --data-dir",
            };
            let path = path.display();
            return Err(Failure::fatal(format!("{path} {IN_USE} (process {pid})\nhint: {hint}")));
        }
        let pid = match for_a_while {
            true => format!("{} {FOR_A_WHILE}\n", std::process::id()),
            false => format!("{}\n", std::process::id()),
        };
        lock.rewind().map_err(failed)?;
        lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes())).map_err(failed)?;
        match fs::remove_file(path.join(READY)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(failed)?,
        }
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn authority(&self) -> (PathBuf, PathBuf) {
        (self.file("ca.crt"), self.file("ca.key"))
    }

    /// The keys that seal the database, made where there are none and no database either: a new keyring would open nothing of it.
    pub(super) fn keys(&self) -> Result<Keys, Failure> {
        let file = self.file("keyring");
        if !file.exists() {
            if self.file("keyferry.db").exists() {
                let file = file.display();
                return Err(Failure::config(format!(
                    "{file} is missing, and only it opens the database beside it\nhint: put it back from a copy"
                )));
            }
            let keyring = Keyring::generate().map_err(Failure::fatal)?;
            keyferry_seal::create_file(&file, &keyring).map_err(Failure::fatal)?;
        }
        Keys::from_file(&file).map_err(Failure::config)
    }

    /// The authority, made where there is none, and the bundle of its certificate with the system's roots.
    pub(super) fn make_authority(&self) -> Result<PathBuf, Failure> {
        let (cert, key) = self.authority();
        if !cert.exists() && !key.exists() {
            init::make(&cert, &key, NewAuthority { name: "keyferry".to_owned(), days: 3650 })?;
        }
        let bundle = self.file("ca-bundle.pem");
        // As of this start: the system's roots may have changed.
        bundle::write(&bundle, &bundle::text(&cert)?)?;
        Ok(bundle)
    }

    /// Replaces a file that only its owner may read.
    pub(super) fn write_private(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.file(name);
        let written = tempfile::NamedTempFile::new_in(&self.path).and_then(|mut file| {
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        });
        written.map_err(|error| Failure::fatal(format!("{}: cannot be written: {error}", path.display())))
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<String>, Failure> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::fatal(format!("{}: cannot be read: {error}", path.display()))),
        }
    }
}
