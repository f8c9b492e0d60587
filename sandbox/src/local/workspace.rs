//! The one place that a sandbox shares with its host: what it must not be, what it must not hold, and what of it stays read-only.

use std::fs::{self, File, FileType};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mounts::Mount;
use crate::error::Error;
use crate::layout;

/// Where the workspace really is, or why it cannot be one.
pub(super) fn locate(given: &Path, home: Option<&Path>, kept_apart: &[&Path]) -> Result<PathBuf, Error> {
    let refuse = |problem: &str| Error::Workspace { path: given.to_owned(), problem: problem.to_owned() };
    let path = fs::canonicalize(given).map_err(|error| refuse(&error.to_string()))?;
    if !path.is_dir() {
        return Err(refuse("it is no directory"));
    }
    fs::read_dir(&path).map_err(|error| refuse(&error.to_string()))?;
    if SHARED.iter().any(|place| path == Path::new(place))
        || OF_THE_SYSTEM.iter().any(|place| path.starts_with(place))
    {
        return Err(refuse("it belongs to the system\nhint: choose the directory of one project"));
    }
    let home = home.and_then(|home| fs::canonicalize(home).ok());
    if home.is_some_and(|home| home.starts_with(&path)) || path == Path::new(layout::HOME) {
        return Err(refuse(
            "it holds a whole home, with its keys\nhint: choose the directory of one project",
        ));
    }
    for apart in kept_apart {
        let apart = fs::canonicalize(apart).unwrap_or_else(|_| (*apart).to_owned());
        if apart.starts_with(&path) || path.starts_with(&apart) {
            return Err(refuse("keyferry keeps its own files there\nhint: choose another directory"));
        }
    }
    Ok(path)
}

const SHARED: [&str; 10] =
    ["/", "/home", "/root", "/tmp", "/var", "/opt", "/srv", "/mnt", "/run", "/run/keyferry"];
const OF_THE_SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/proc", "/sys", "/dev"];

/// Looks through `root` for Unix sockets: no network namespace holds them back. Links are not followed, since what they lead to is
/// not mounted.
pub(super) fn refuse_sockets(root: &Path) -> Result<(), Error> {
    let socket =
        |path: PathBuf, kind: FileType| if kind.is_socket() { Err(Error::Socket { path }) } else { Ok(()) };
    let found = fs::symlink_metadata(root).map_err(Error::io("look at", root))?;
    socket(root.to_owned(), found.file_type())?;
    let mut directories = if found.is_dir() { vec![root.to_owned()] } else { Vec::new() };
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Removed meanwhile, or closed to the sandbox as well.
            Err(error) if error.kind() == ErrorKind::NotFound || is_closed_to_us(&directory) => continue,
            Err(error) => return Err(Error::io("look for Unix sockets in", directory)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("look for Unix sockets in", &directory))?;
            let Ok(kind) = entry.file_type() else { continue };
            socket(entry.path(), kind)?;
            if kind.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Somebody else's, without a bit that would let us in: not even by changing its mode.
fn is_closed_to_us(directory: &Path) -> bool {
    let us = rustix::process::geteuid().as_raw();
    fs::metadata(directory).is_ok_and(|found| found.uid() != us && found.mode() & 0o011 == 0)
}

/// What was put into a workspace so that it can be protected: nothing can be mounted where nothing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StandIn {
    path: PathBuf,
    /// A directory has none.
    content: Option<String>,
}

impl StandIn {
    fn make(self) -> Result<Self, Error> {
        let made = match &self.content {
            None => fs::create_dir(&self.path),
            Some(content) => {
                File::create_new(&self.path).and_then(|mut file| file.write_all(content.as_bytes()))
            }
        };
        made.map_err(Error::io("protect", &self.path))?;
        Ok(self)
    }

    /// Removes it, if it is still what was made.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let removed = match &self.content {
            None => fs::remove_dir(&self.path),
            Some(content) if fs::read_to_string(&self.path).is_ok_and(|found| found == *content) => {
                fs::remove_file(&self.path)
            }
            Some(_) => Ok(()),
        };
        match removed {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory
                ) =>
            {
                Err(Error::io("remove", &self.path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// How what programs of the host obey is kept from the sandbox: the mounts that make it read-only, in order, and what had to be made
/// for them (told one by one, so that a failure in the middle forgets nothing).
pub(super) fn protect(workspace: &Path, made: &mut Vec<StandIn>) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    let git = workspace.join(".git");
    match kind_of(&git)? {
        // Of a worktree or submodule: where it points is what is obeyed.
        Some(kind) if kind.is_file() => mounts.push(Mount::read_only(&git)),
        Some(_) => {
            // Mounted, it cannot be renamed, and another put in its place.
            mounts.push(Mount::Writable(git.clone()));
            for (name, missing) in IN_GIT {
                protect_one(&git.join(name), *missing, &mut mounts, made)?;
            }
        }
        None => {}
    }
    for (name, missing) in IN_WORKSPACE {
        protect_one(&workspace.join(name), *missing, &mut mounts, made)?;
    }
    Ok(mounts)
}

/// What stands in where there is nothing.
#[derive(Clone, Copy)]
enum Missing {
    Directory,
    File(&'static str),
    /// Nobody obeys it before git itself has made it.
    Harmless,
}

const IN_GIT: &[(&str, Missing)] = &[
    ("hooks", Missing::Directory),
    ("config", Missing::File("")),
    ("config.worktree", Missing::File("")),
    // It names where git takes hooks and config from. "." is what its absence means.
    ("commondir", Missing::File(".\n")),
    ("modules", Missing::Harmless),
    ("worktrees", Missing::Harmless),
];

const IN_WORKSPACE: &[(&str, Missing)] =
    &[(".envrc", Missing::File("")), (".vscode", Missing::Directory), (".claude", Missing::Directory)];

fn protect_one(
    path: &Path,
    missing: Missing,
    mounts: &mut Vec<Mount>,
    made: &mut Vec<StandIn>,
) -> Result<(), Error> {
    if kind_of(path)?.is_none() {
        let content = match missing {
            Missing::Harmless => return Ok(()),
            Missing::Directory => None,
            Missing::File(content) => Some(content.to_owned()),
        };
        made.push(StandIn { path: path.to_owned(), content }.make()?);
    }
    mounts.push(Mount::read_only(path));
    Ok(())
}

/// A link is refused: mounting it would show what it leads to, wherever that is, and protect something else.
fn kind_of(path: &Path) -> Result<Option<FileType>, Error> {
    let problem = |problem: &str| Error::Workspace { path: path.to_owned(), problem: problem.to_owned() };
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() || found.is_file() => Ok(Some(found.file_type())),
        Ok(found) if found.is_symlink() => Err(problem(
            "it is a symbolic link, and what it leads to cannot be protected\nhint: put the real thing there",
        )),
        Ok(_) => Err(problem("it is neither a file nor a directory")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}
