//! What is known on disk of each sandbox, so that whoever comes after its owner can clean up.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::workspace::StandIn;
use crate::error::Error;
use crate::spec::SandboxId;

/// The directory of all records.
#[derive(Debug)]
pub(super) struct Records(PathBuf);

/// One sandbox's directory, and the lock that shows that its owner lives.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) directory: PathBuf,
    /// Released by the kernel when the owner is gone.
    _lock: File,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) workspace: PathBuf,
    pub(super) stand_ins: Vec<StandIn>,
    pub(super) cgroups: Vec<PathBuf>,
    /// bubblewrap outside: its number, and when it started.
    pub(super) process: Option<(i32, u64)>,
}

const RECORD: &str = "record.json";
const LOCK: &str = "lock";

impl Records {
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(Error::io("make", directory))?;
        Ok(Self(fs::canonicalize(directory).map_err(Error::io("find", directory))?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Held while records are read and written together.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let path = self.0.join(LOCK);
        let file = lock_file(&path)?;
        file.lock().map_err(Error::io("lock", path))?;
        Ok(file)
    }

    pub(super) fn own(&self, id: &SandboxId) -> Result<Owned, Error> {
        let _all = self.lock()?;
        let directory = self.0.join(id.as_str());
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { id: id.to_string() });
            }
            made => made.map_err(Error::io("make", &directory))?,
        }
        let locked = lock_file(&directory.join(LOCK)).and_then(|lock| {
            lock.try_lock().map_err(|error| Error::io("lock", &directory)(error.into()))?;
            Ok(lock)
        });
        match locked {
            Ok(lock) => Ok(Owned { directory, _lock: lock }),
            Err(error) => {
                // On a full disk; nobody could own it.
                let _ = fs::remove_dir_all(&directory);
                Err(error)
            }
        }
    }

    /// Those whose owner is gone.
    pub(super) fn leftovers(&self) -> Result<Vec<SandboxId>, Error> {
        let _all = self.lock()?;
        let ids = self.ids()?;
        Ok(ids.into_iter().filter(|id| self.abandoned(id).is_some()).collect())
    }

    fn ids(&self) -> Result<Vec<SandboxId>, Error> {
        let entries = fs::read_dir(&self.0).map_err(Error::io("list", &self.0))?;
        let directories = entries.flatten().filter(|entry| entry.path().is_dir());
        let mut ids: Vec<_> =
            directories.filter_map(|entry| SandboxId::parse(entry.file_name().to_str()?).ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The lock of a leftover, which is then ours.
    fn abandoned(&self, id: &SandboxId) -> Option<File> {
        let directory = self.0.join(id.as_str());
        let file = directory.is_dir().then(|| lock_file(&directory.join(LOCK)))?.ok()?;
        match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
        }
    }

    pub(super) fn reap(&self, id: &SandboxId) -> Result<(), Error> {
        let lock = {
            let _all = self.lock()?;
            self.abandoned(id)
        };
        let Some(lock) = lock else { return Ok(()) };
        let owned = Owned { directory: self.0.join(id.as_str()), _lock: lock };
        owned.end_processes()?;
        self.clean(&owned)
    }

    /// Removes what the sandbox left, whose processes have ended.
    pub(super) fn clean(&self, owned: &Owned) -> Result<(), Error> {
        let record = owned.read()?;
        record.cgroups.iter().try_for_each(|directory| cgroup::remove(directory))?;
        let _all = self.lock()?;
        let record = owned.read()?;
        self.release_stand_ins(owned, &record)?;
        fs::remove_dir_all(&owned.directory).map_err(Error::io("remove", &owned.directory))
    }

    /// Another sandbox of the same workspace still needs them mounted: removing one would lay bare what it hides. It inherits them.
    fn release_stand_ins(&self, owned: &Owned, record: &Record) -> Result<(), Error> {
        if record.stand_ins.is_empty() {
            return Ok(());
        }
        for id in self.ids()? {
            let directory = self.0.join(id.as_str());
            if directory == owned.directory {
                continue;
            }
            let Ok(mut other) = read(&directory) else { continue };
            if other.workspace == record.workspace {
                other.stand_ins.extend(record.stand_ins.iter().cloned());
                return write(&directory, &other);
            }
        }
        // What stands in a directory that was made was made later.
        record.stand_ins.iter().rev().try_for_each(StandIn::remove)
    }
}

impl Owned {
    /// A record that was never written names nothing.
    pub(super) fn read(&self) -> Result<Record, Error> {
        match read(&self.directory) {
            Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            read => read,
        }
    }

    /// Ends what still runs, whether it was noted or not: bubblewrap that is killed in the middle of a start leaves a child that waits
    /// for it forever.
    pub(super) fn end_processes(&self) -> Result<(), Error> {
        if let Some((pid, when)) = self.read()?.process {
            end_process(pid, when);
        }
        let patience = Instant::now() + PATIENCE;
        while end_those_that_mount(&self.directory)? && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Changes the record. The lock on all records must be held: others write into it too.
    pub(super) fn change(&self, _all: &File, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut record = self.read()?;
        change(&mut record);
        write(&self.directory, &record)
    }
}

fn read(directory: &Path) -> Result<Record, Error> {
    let path = directory.join(RECORD);
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| Error::io("read", path)(error.into()))
}

fn write(directory: &Path, record: &Record) -> Result<(), Error> {
    let path = directory.join(RECORD);
    let failed = |error| Error::io("write", &path)(error);
    let text = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
    // Whole or not at all, also on a full disk.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    io::Write::write_all(&mut file, &text).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn lock_file(path: &Path) -> Result<File, Error> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open", path))
}

/// When a process started, in the kernel's ticks: with its number, who it is.
pub(super) fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// For what a process that was killed may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn end_process(pid: i32, when: u64) {
    kill(pid, || started(pid) == Some(when));
    let patience = Instant::now() + PATIENCE;
    while started(pid) == Some(when) && !is_zombie(pid) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a process if it is the one that is meant, and says whether it was.
fn kill(pid: i32, is_meant: impl Fn() -> bool) -> bool {
    let Some(number) = Pid::from_raw(pid) else { return false };
    // Held first and compared then: the number may be another's by now, the descriptor's process may not.
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return false };
    is_meant() && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

/// Kills whoever was told to mount files of this sandbox's directory: bubblewrap and what is to become it. Says whether there was any.
fn end_those_that_mount(directory: &Path) -> Result<bool, Error> {
    let mut any = false;
    for entry in fs::read_dir("/proc").map_err(Error::io("list", "/proc"))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mounts = || {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let ours = |path: &[u8]| Path::new(OsStr::from_bytes(path)).starts_with(directory);
            words.windows(2).any(|pair| pair[0] == b"--ro-bind" && ours(pair[1]))
        };
        any |= mounts() && kill(pid, mounts);
    }
    Ok(any)
}

/// Dead, and waiting for a parent who may never ask.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}
