//! The one place that a sandbox shares with its host: what it must not be, what it must not hold, and what of it stays read-only.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, unlinkat};
use serde::{Deserialize, Serialize};

use super::mounts::Mount;
use super::seen::Seen;
use crate::error::Error;
use crate::layout;

/// Where the workspace really is, or why it cannot be one.
pub(super) fn locate(given: &Path, home: Option<&Path>, kept_apart: &KeptApart) -> Result<Seen, Error> {
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
    if kept_apart.meets(&path) {
        return Err(refuse("keyferry keeps its own files there\nhint: choose another directory"));
    }
    Seen::at(&path).map_err(|error| refuse(&error.to_string()))
}

/// What no sandbox may see: keyferry's own files.
#[derive(Debug)]
pub(super) struct KeptApart(pub(super) Vec<PathBuf>);

impl KeptApart {
    pub(super) fn new(paths: &[&Path]) -> Self {
        let real = |path: &&Path| fs::canonicalize(path).unwrap_or_else(|_| (*path).to_owned());
        Self(paths.iter().map(real).collect())
    }

    /// Whether `path` holds any of them, or lies in one.
    pub(super) fn meets(&self, path: &Path) -> bool {
        self.0.iter().any(|apart| apart.starts_with(path) || path.starts_with(apart))
    }
}

const SHARED: [&str; 11] =
    ["/", "/home", "/root", "/tmp", "/var", "/var/tmp", "/opt", "/srv", "/mnt", "/run", "/run/keyferry"];
const OF_THE_SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/proc", "/sys", "/dev"];

/// Looks through `root` for Unix sockets: no network namespace holds them back. Links are not followed, since what they lead to is
/// not mounted. The one thing at a start that takes longer the more a workspace holds.
pub(super) fn refuse_sockets(root: &Path) -> Result<(), Error> {
    let found = fs::symlink_metadata(root).map_err(Error::io("look at", root))?;
    if found.file_type().is_socket() {
        return Err(Error::Socket { path: root.to_owned() });
    }
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
            if kind.is_socket() {
                return Err(Error::Socket { path: entry.path() });
            }
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

/// What is put into a workspace so that it can be protected: nothing can be mounted where nothing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StandIn {
    path: PathBuf,
    /// A directory has none.
    content: Option<String>,
}

impl StandIn {
    fn make(&self, root: &Seen, name: &str) -> io::Result<()> {
        // By the directory and its name: somebody may be changing what the path leads to.
        let (holder, name) = match name.rsplit_once('/') {
            Some((holder, name)) => (&root.below(holder)?, name),
            None => (root, name),
        };
        let Some(content) = &self.content else {
            return Ok(mkdirat(holder.directory(), name, Mode::from_raw_mode(0o755))?);
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        File::from(holder.open(name, flags, Mode::from_raw_mode(0o644))?).write_all(content.as_bytes())
    }

    /// Removes it, if it is still what was made, or what was made of it before the disk was full or its maker was killed.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let removed = self.path.parent().zip(self.path.file_name().and_then(OsStr::to_str)).map(
            |(holder, name)| -> io::Result<()> {
                let holder = Seen::at(holder)?;
                let how = match &self.content {
                    None => AtFlags::REMOVEDIR,
                    Some(content) if holds_at_most(&holder, name, content)? => AtFlags::empty(),
                    Some(_) => return Ok(()),
                };
                Ok(unlinkat(holder.directory(), name, how)?)
            },
        );
        match removed {
            Some(Err(error)) if !somebody_elses_now(&error) => Err(Error::io("remove", &self.path)(error)),
            Some(_) | None => Ok(()),
        }
    }
}

/// Gone, filled, or a link by now: no longer what was made.
fn somebody_elses_now(error: &io::Error) -> bool {
    let kinds = [ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty, ErrorKind::NotADirectory];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::ELOOP)
}

fn holds_at_most(holder: &Seen, name: &str, content: &str) -> io::Result<bool> {
    // What took its place may be a pipe: that is not waited for.
    let file = File::from(holder.open(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut found = Vec::new();
    file.take(content.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(content.as_bytes().starts_with(&found))
}

/// How what programs of the host obey is kept from the sandbox.
#[derive(Debug, Default)]
pub(super) struct Protection {
    /// What is mounted, in order: relative to the workspace, and whether it can be written.
    places: Vec<(String, bool)>,
    /// What must be made for it. Known before it is made, so that nothing is forgotten whenever its maker ends.
    pub(super) stand_ins: Vec<StandIn>,
}

impl Protection {
    /// Looks at a workspace and changes nothing.
    pub(super) fn plan(root: &Seen) -> Result<Self, Error> {
        let mut plan = Self::default();
        match kind_of(root, GIT)? {
            // Of a worktree or submodule: where it points is what is obeyed.
            Some(FileType::RegularFile) => plan.places.push((GIT.to_owned(), false)),
            Some(_) => {
                // Mounted, it cannot be renamed, and another put in its place.
                plan.places.push((GIT.to_owned(), true));
                for (name, missing) in IN_GIT {
                    plan.protect(root, format!("{GIT}/{name}"), *missing)?;
                }
            }
            None => {}
        }
        for (name, missing) in IN_WORKSPACE {
            plan.protect(root, (*name).to_owned(), *missing)?;
        }
        Ok(plan)
    }

    fn protect(&mut self, root: &Seen, name: String, missing: Missing) -> Result<(), Error> {
        if kind_of(root, &name)?.is_none() {
            let content = match missing {
                Missing::Harmless => return Ok(()),
                Missing::Directory => None,
                Missing::File(content) => Some(content.to_owned()),
            };
            self.stand_ins.push(StandIn { path: root.path.join(&name), content });
        }
        self.places.push((name, false));
        Ok(())
    }

    /// Makes what stands in, and opens what is to be mounted.
    pub(super) fn carry_out(&self, root: &Seen) -> Result<Vec<Mount>, Error> {
        for stand_in in &self.stand_ins {
            let name = stand_in.path.strip_prefix(&root.path).ok().and_then(Path::to_str).unwrap_or_default();
            stand_in.make(root, name).map_err(Error::io("protect", &stand_in.path))?;
        }
        let mount = |(name, writable): &(String, bool)| {
            let seen = root.below(name).map_err(Error::io("protect", root.path.join(name)))?;
            Ok(Mount::Judged { place: seen.path.clone(), seen, writable: *writable })
        };
        self.places.iter().map(mount).collect()
    }
}

/// What stands in where there is nothing.
#[derive(Clone, Copy)]
enum Missing {
    Directory,
    File(&'static str),
    /// Nobody obeys it before git itself has made it.
    Harmless,
}

const GIT: &str = ".git";

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

/// A link is refused: mounting it would show what it leads to, wherever that is, and protect something else.
fn kind_of(root: &Seen, name: &str) -> Result<Option<FileType>, Error> {
    let problem =
        |problem: &str| Error::Workspace { path: root.path.join(name), problem: problem.to_owned() };
    match root.below(name).and_then(|seen| seen.kind()) {
        Ok(kind @ (FileType::Directory | FileType::RegularFile)) => Ok(Some(kind)),
        Ok(_) => Err(problem("it is neither a file nor a directory")),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Err(problem(
            "it is a symbolic link, and what it leads to cannot be protected\nhint: put the real thing there",
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", root.path.join(name))(error)),
    }
}
