//! Notices that a file has changed. Asked once a second rather than told by the kernel: that also sees a file replaced by renaming, a link
//! that points elsewhere (as Kubernetes swaps a mounted ConfigMap), and a network file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// A file, as it was when it was last looked at.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// Device, inode, size, and the times of the last change of content and of anything, in nanoseconds.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Watch {
    /// Watches `path` from now on.
    pub(crate) fn new(path: PathBuf) -> Self {
        let seen = stamp(&path);
        Self { path, seen }
    }

    /// Completes when the file is there and is not as it was; half-written files are left for one more second.
    pub(crate) async fn changed(&mut self) {
        let mut candidate = None;
        loop {
            tokio::time::sleep(EVERY).await;
            let now = stamp(&self.path);
            if now.is_some() && now != self.seen && now == candidate {
                self.seen = now;
                return;
            }
            candidate = now;
        }
    }
}

fn stamp(path: &PathBuf) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    let changed = (file.ctime(), file.ctime_nsec());
    Some((file.dev(), file.ino(), file.size(), (file.mtime(), file.mtime_nsec()), changed))
}
