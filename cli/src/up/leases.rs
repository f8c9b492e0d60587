//! Who needs the keyferry of a data directory: each holder keeps a file locked. The kernel lets go of it when the holder is gone,
//! however that came, so what a lease paid for can be taken back.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Those of one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Leases(PathBuf);

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(NamedTempFile);

/// Who holds leases.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holders {
    pub(super) living: usize,
    /// What is left of those that were killed.
    pub(super) gone: Vec<String>,
}

impl Leases {
    /// Makes the data directory too, where it is not there.
    pub(crate) fn of(data_dir: &Path) -> Result<Self, Failure> {
        let directory = data_dir.join("leases");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|error| failed(&directory, &error))?;
        Ok(Self(directory))
    }

    /// `purpose` begins its name.
    pub(crate) fn take(&self, purpose: &str) -> Result<Lease, Failure> {
        let taken = || {
            let _all = self.lock()?;
            let file = tempfile::Builder::new().prefix(&format!("{purpose}-")).tempfile_in(&self.0)?;
            file.as_file().try_lock()?;
            Ok(Lease(file))
        };
        taken().map_err(|error: io::Error| failed(&self.0, &error))
    }

    /// Whether there is nowhere to hold one.
    pub(super) fn are_gone(&self) -> bool {
        matches!(fs::symlink_metadata(&self.0), Err(error) if error.kind() == ErrorKind::NotFound)
    }

    pub(super) fn holders(&self) -> io::Result<Holders> {
        let _all = self.lock()?;
        self.look()
    }

    /// Does `end` unless somebody holds a lease. Nobody can take one meanwhile.
    pub(super) fn unless_held(&self, end: impl FnOnce()) -> io::Result<bool> {
        let _all = self.lock()?;
        let unused = self.look()? == Holders { living: 0, gone: Vec::new() };
        if unused {
            end();
        }
        Ok(unused)
    }

    /// What a holder that is gone left of its lease, when all that it paid for is gone too.
    pub(super) fn forget(&self, name: &str) {
        // Where it cannot be removed, it is found again.
        let _ = fs::remove_file(self.0.join(name));
    }

    /// Held while leases are taken or looked through, so that none is seen between its making and its locking.
    fn lock(&self) -> io::Result<File> {
        let directory = File::open(&self.0)?;
        directory.lock()?;
        Ok(directory)
    }

    fn look(&self) -> io::Result<Holders> {
        let mut holders = Holders { living: 0, gone: Vec::new() };
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let file = match File::open(entry.path()) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match file.try_lock() {
                Ok(()) => holders.gone.push(entry.file_name().to_string_lossy().into_owned()),
                Err(TryLockError::WouldBlock) => holders.living += 1,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(holders)
    }
}

impl Lease {
    pub(crate) fn name(&self) -> &str {
        self.0.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Lets go of it as if its holder had been killed: whoever looks takes back what it paid for.
    pub(crate) fn abandon(self) {
        let _ = self.0.keep();
    }
}

fn failed(directory: &Path, error: &io::Error) -> Failure {
    Failure::fatal(format!("{}: {error}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lives_as_long_as_its_holder_and_shows_when_it_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::of(folder.path()).unwrap();
        let (run, verb) = (leases.take("run").unwrap(), leases.take("verb").unwrap());
        assert!(run.name().starts_with("run-") && run.name() != verb.name());
        assert_eq!(leases.holders().unwrap(), Holders { living: 2, gone: vec![] });
        assert!(!leases.unless_held(|| panic!("it is held")).unwrap());

        drop(verb);
        let name = run.name().to_owned();
        run.abandon();
        assert_eq!(leases.holders().unwrap(), Holders { living: 0, gone: vec![name.clone()] });
        assert!(!leases.unless_held(|| panic!("something is left")).unwrap());
        leases.forget(&name);
        let mut ended = false;
        assert!(leases.unless_held(|| ended = true).unwrap() && ended);
    }
}
