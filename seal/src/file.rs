//! A keyring in a file, and the keyring of a running process.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{Keyring, Place, SealError};

/// A keyring of thousands of keys; anything larger is another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The keyring that a process works with.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Keyring and stamp in one, so that an older keyring never stands beside a newer stamp.
    state: ArcSwap<State>,
    /// Where it comes from, if that can change.
    file: Option<PathBuf>,
}

#[derive(Debug)]
struct State {
    keyring: Arc<Keyring>,
    stamp: Option<Stamp>,
}

impl Keys {
    /// Keys that never change, as from an environment variable.
    #[must_use]
    pub fn fixed(keyring: Keyring) -> Self {
        Self::new(keyring, None, None)
    }

    /// Keys from a file, read again when it changes.
    ///
    /// # Errors
    ///
    /// It cannot be read, others can read it, or it is no keyring.
    pub fn from_file(path: &Path) -> Result<Self, SealError> {
        let (keyring, stamp) = read(path)?;
        Ok(Self::new(keyring, Some(stamp), Some(path.to_owned())))
    }

    fn new(keyring: Keyring, stamp: Option<Stamp>, file: Option<PathBuf>) -> Self {
        let state = ArcSwap::from_pointee(State { keyring: Arc::new(keyring), stamp });
        Self(Arc::new(Inner { state, file }))
    }

    /// The keyring as it is now. Looks at the file's metadata, and reads it if that has changed.
    ///
    /// A file that has gone wrong changes nothing: what was read before still opens what it opened.
    #[must_use]
    pub fn current(&self) -> Arc<Keyring> {
        let known = self.0.state.load();
        if let Some(path) = &self.0.file
            && fs::metadata(path).is_ok_and(|metadata| known.stamp != Some(Stamp::of(&metadata)))
            && let Ok((keyring, stamp)) = read(path)
        {
            let keyring = Arc::new(keyring);
            self.0.state.store(Arc::new(State { keyring: keyring.clone(), stamp: Some(stamp) }));
            return keyring;
        }
        known.keyring.clone()
    }

    /// As [`Keyring::seal`], with the key that is current now.
    ///
    /// # Errors
    ///
    /// As [`Keyring::seal`].
    pub fn seal(&self, place: &Place<'_>, value: &[u8]) -> Result<Vec<u8>, SealError> {
        self.current().seal(place, value)
    }

    /// As [`Keyring::open`]. A key that is missing is looked for in the file.
    ///
    /// # Errors
    ///
    /// As [`Keyring::open`].
    pub fn open(&self, place: &Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        match self.0.state.load().keyring.open(place, envelope) {
            Err(SealError::KeyMissing { .. }) => self.current().open(place, envelope),
            outcome => outcome,
        }
    }
}

/// Tells one state of a file from another. A file that is replaced has another inode.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Reads a keyring that its owner alone can read.
///
/// # Errors
///
/// It cannot be read, others can read it, or it is no keyring.
pub fn read_file(path: &Path) -> Result<Keyring, SealError> {
    read(path).map(|(keyring, _)| keyring)
}

fn read(path: &Path) -> Result<(Keyring, Stamp), SealError> {
    let name = path.display().to_string();
    let failed = |error: io::Error| SealError::File { file: name.clone(), doing: "read", kind: error.kind() };
    let file = File::open(path).map_err(failed)?;
    // Of the open file, so that what was judged is what is read.
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SealError::OpenToOthers { file: name, mode });
    }
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(SealError::NotAKeyring { file: name });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let text = str::from_utf8(&bytes).map_err(|_| SealError::NotAKeyring { file: name.clone() })?;
    Ok((Keyring::parse(&SecretString::from(text), &name)?, Stamp::of(&metadata)))
}

/// Writes a new file of mode 0600, whole or not at all.
///
/// # Errors
///
/// It exists, or cannot be written.
pub fn create_file(path: &Path, keyring: &Keyring) -> Result<(), SealError> {
    write(path, keyring, |temporary| temporary.persist_noclobber(path).map(drop).map_err(|error| error.error))
}

/// Puts a new key in front of those of a file, and leaves the others. Whole or not at all.
///
/// # Errors
///
/// The file cannot be read or written.
pub fn promote_new_key(path: &Path) -> Result<Keyring, SealError> {
    // Of two at once, the second one adds its key to those of the first. The folder, because the file is replaced.
    let folder = File::open(folder_of(path)).and_then(|folder| folder.lock().map(|()| folder));
    let _locked = folder.map_err(|error| SealError::File {
        file: path.display().to_string(),
        doing: "written",
        kind: error.kind(),
    })?;
    let keyring = read_file(path)?.with_new_key()?;
    write(path, &keyring, |temporary| temporary.persist(path).map(drop).map_err(|error| error.error))?;
    Ok(keyring)
}

const HEADER: &str = "\
# Whoever has this file and the database can read every secret in it. Keep a copy of it apart from backups of the database.
# The first key seals new values. A key is needed as long as `keyferry keyring status` counts a value under it.
";

fn write(
    path: &Path,
    keyring: &Keyring,
    persist: impl FnOnce(tempfile::NamedTempFile) -> io::Result<()>,
) -> Result<(), SealError> {
    let folder = folder_of(path);
    let attempt = || {
        // Mode 0600 from the beginning; removed when anything below fails.
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(HEADER.as_bytes())?;
        temporary.write_all(keyring.to_text().expose_secret().as_bytes())?;
        temporary.as_file().sync_all()?;
        persist(temporary)?;
        // Values are sealed with this key from now on: its name must survive a power failure as well.
        File::open(folder)?.sync_all()
    };
    let file = path.display().to_string();
    attempt().map_err(|error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => SealError::Exists { file },
        kind => SealError::File { file, doing: "written", kind },
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
