//! `/etc/hosts` and `/etc/resolv.conf`, read again when they change: a proxy outlives a laptop's network and an operator's edit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// How often the file's metadata is looked at, as a lookup per second need not ask the disk each time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A file that may change under us.
#[derive(Debug)]
pub(crate) struct WatchedFile {
    path: PathBuf,
    looked: Option<Instant>,
    seen: Option<Stamp>,
}

type Stamp = (SystemTime, u64);

impl WatchedFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, looked: None, seen: None }
    }

    /// What stands in the file, if that is news: on the first call, and when it has changed since. A file that is not there
    /// is empty.
    ///
    /// Blocks for a read of a few hundred local bytes, a few times a day.
    pub(crate) fn news(&mut self) -> Option<io::Result<Vec<u8>>> {
        let first = self.looked.is_none();
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(Instant::now());
        let stamp = stamp(&self.path);
        if !first && stamp == self.seen {
            return None;
        }
        self.seen = stamp;
        Some(match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        })
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(file: &mut WatchedFile) -> Option<String> {
        file.news().map(|read| String::from_utf8(read.unwrap()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_news_once_and_again_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let mut file = WatchedFile::new(path.clone());
        assert_eq!(news(&mut file), Some(String::new()), "a file that is not there is empty");

        fs::write(&path, "one").unwrap();
        assert_eq!(news(&mut file), None, "looked at a moment ago");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(news(&mut file), Some("one".into()));
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(news(&mut file), None, "unchanged");

        fs::write(&path, "two and more").unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(news(&mut file), Some("two and more".into()));
        fs::remove_file(&path).unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(news(&mut file), Some(String::new()));
    }
}
