//! What stood at a path when it was judged, whatever stands there later.
//!
//! Another sandbox may share the workspace, and put a link in the place of a directory between its judgement and its mount. So things
//! are opened without following links, and what was opened is what is judged and mounted.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

/// A file or directory, held open.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    file: OwnedFd,
}

impl Seen {
    /// Opens what stands at an absolute `path`. A link, anywhere on the way, is an error (`ELOOP`).
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// What stands below it, under a name or a path without links.
    pub(super) fn below(&self, name: &str) -> io::Result<Self> {
        let file = self.open(name, OFlags::PATH, Mode::empty())?;
        Ok(Self { path: self.path.join(name), file })
    }

    /// Opens a file below it, to be read or written.
    pub(super) fn open(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        Ok(openat2(&self.file, name, flags | OFlags::CLOEXEC, mode, resolve)?)
    }

    pub(super) fn kind(&self) -> io::Result<FileType> {
        Ok(FileType::from_raw_mode(fstat(&self.file)?.st_mode))
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.file
    }

    pub(super) fn into_file(self) -> OwnedFd {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_below_that_is_reached_by_a_link_or_lies_above() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("inner")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("inner/link")).unwrap();
        let inner = Seen::at(&root.join("inner")).unwrap();
        assert_eq!(inner.below("link").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(inner.below("link/passwd").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(inner.below("..").unwrap_err().raw_os_error(), Some(libc::EXDEV));
    }
}
