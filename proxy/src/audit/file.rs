//! A file of records. It gives way to a new one when it is full or old, or when somebody has moved it away; its chain goes on.
//!
//! A file that has given way is called after its last record, `audit.jsonl.000000001234`: such a name is never taken twice, and names sort as
//! records do.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use keyferry_config::document::Rotate;
use keyferry_contract::audit::{Beginning, Chain, EventKind, Level, Torn};
use keyferry_contract::chain::{Hash, Head, Sealed};

use super::queue::Health;
use super::sink::{AuditError, Sink, push_event};

/// How long a file may be held by a writer that is about to end, such as that of a document before.
const HANDOVER: Duration = Duration::from_secs(1);
/// Of the end of a file, where its last record is looked for: more than a record can be long.
const TAIL: u64 = 256 * 1024;

/// The file that records are appended to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    born: SystemTime,
    pub(super) head: Head,
    /// What stands in front of the next batch, where the file does not go on as this process left it.
    announce: Option<Tail>,
}

impl LogFile {
    /// Opens the file and finds the end of its chain. What is no file, but a pipe or a device, is a stream.
    pub(super) fn open(path: &Path) -> Result<Sink, AuditError> {
        // Through links, so that rotation moves the file and not a link to it.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let failed = |source| AuditError::open(&path, source);
        if fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            let stream = OpenOptions::new().append(true).open(&path).map_err(failed)?;
            return Ok(Sink::Stream(Box::new(stream), Head::default()));
        }
        let mut file = append_to(&path).map_err(failed)?;
        lock(&file, &path)?;
        let length = file.metadata().map_err(failed)?.len();
        let tail = Tail::read(&mut file, length).map_err(failed)?;
        let head = match tail.head {
            None if length == 0 => last_of_older(&path).map_err(failed)?,
            head => head,
        };
        let born = begun(&mut file).unwrap_or_else(SystemTime::now);
        let head = head.unwrap_or_default();
        Ok(Sink::File(Box::new(Self { path, file, length, born, head, announce: Some(tail) })))
    }

    /// Before a batch: has the file of the path, with room in it, and says where the chain begins or goes on.
    pub(super) fn prepare(&mut self, lines: &mut Vec<u8>, rotate: Option<Rotate>, health: &Health) {
        let ready = self.follow_path().and_then(|()| match rotate {
            Some(rotate) if self.is_due(rotate) => self.rotate(rotate),
            _ => Ok(()),
        });
        match ready {
            Ok(()) => {
                if health.stuck.swap(false, Ordering::Relaxed) {
                    tracing::warn!("the audit file can give way to a new one again");
                }
            }
            // No record is lost: they go on into the file that is open.
            Err(error) => {
                health.rotation_failures.fetch_add(1, Ordering::Relaxed);
                if !health.stuck.swap(true, Ordering::Relaxed) {
                    let path = self.path.display();
                    tracing::error!(%error, %path, "the audit file cannot give way to a new one, and grows on");
                }
            }
        }
        if let Some(tail) = self.announce.take() {
            if !tail.rest.is_empty() {
                lines.push(b'\n');
            }
            let event = if self.head == Head::default() { Beginning::Start } else { Beginning::Continue };
            let chain = Chain { event, prev: self.head.hash, torn: tail.torn() };
            push_event(lines, Level::Info, EventKind::Chain { chain }, Some(&mut self.head));
        }
    }

    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let written = self.file.write(lines)?;
        self.length += written as u64;
        Ok(written)
    }

    /// Goes after the path: whoever rotates logs may have moved the file away, or copied and truncated it.
    fn follow_path(&mut self) -> io::Result<()> {
        let own = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {
                if own.len() < self.length {
                    (self.length, self.born) = (own.len(), SystemTime::now());
                    self.announce = Some(Tail::default());
                }
                Ok(())
            }
            Ok(_) => self.go_on_in(append_to(&self.path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.go_on_in(append_to(&self.path)?),
            Err(error) => Err(error),
        }
    }

    fn go_on_in(&mut self, mut file: File) -> io::Result<()> {
        lock(&file, &self.path).map_err(|error| io::Error::other(error.to_string()))?;
        let length = file.metadata()?.len();
        // Whatever stands there, the chain goes on where this process has left it.
        let tail = Tail::read(&mut file, length)?;
        (self.file, self.length, self.born) = (file, length, SystemTime::now());
        self.announce = Some(tail);
        Ok(())
    }

    fn is_due(&self, rotate: Rotate) -> bool {
        let old = |age| self.born.elapsed().is_ok_and(|elapsed| elapsed >= age);
        // A file without a record in it is not worth a name.
        self.announce.is_none()
            && (rotate.max_bytes.is_some_and(|bytes| self.length >= bytes) || rotate.max_age.is_some_and(old))
    }

    /// The new file is there before the old one is renamed: what fails leaves the path as it was.
    fn rotate(&mut self, rotate: Rotate) -> io::Result<()> {
        let older = suffixed(&self.path, &format!("{:012}", self.head.seq));
        if older.try_exists()? {
            let message = format!("{} is there already", older.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let next = suffixed(&self.path, "next");
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = append_to(&next)?;
        fs::rename(&self.path, &older)?;
        if let Err(error) = fs::rename(&next, &self.path) {
            // Back to where it was; if that fails too, the path is gone after next time.
            let _ = fs::rename(&older, &self.path);
            return Err(error);
        }
        self.go_on_in(file)?;
        prune(&self.path, rotate)
    }
}

/// How a file ends.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tail {
    /// The last record, if it is one of a chain.
    head: Option<Head>,
    /// What stands behind the last line break.
    rest: Vec<u8>,
}

impl Tail {
    fn read(file: &mut File, length: u64) -> io::Result<Self> {
        let from = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut end = Vec::new();
        file.take(TAIL).read_to_end(&mut end)?;
        let (lines, rest) = match end.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => (&end[..at], &end[at + 1..]),
            None => (&[][..], &end[..]),
        };
        let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        // A crash between a record and its line break leaves a record all the same.
        let last = if Sealed::parse(rest).is_some() { rest } else { last };
        Ok(Self { head: Sealed::parse(last).map(|sealed| sealed.head), rest: rest.to_vec() })
    }

    fn torn(&self) -> Option<Torn> {
        let is_torn = !self.rest.is_empty() && Sealed::parse(&self.rest).is_none();
        is_torn.then(|| Torn { bytes: self.rest.len() as u64, sha256: Hash::of(&self.rest) })
    }
}

/// When the first record of the file was written.
fn begun(file: &mut File) -> Option<SystemTime> {
    #[derive(serde::Deserialize)]
    struct First {
        time: jiff::Timestamp,
    }
    file.rewind().ok()?;
    let mut line = String::new();
    BufReader::new(file.take(TAIL)).read_line(&mut line).ok()?;
    serde_json::from_str::<First>(&line).ok().map(|first| first.time.into())
}

/// Files that have given way, oldest first.
fn older(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else { return Ok(Vec::new()) };
    let is_older = |entry: &fs::DirEntry| {
        let file = entry.file_name();
        let number = file.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
        number.is_some_and(|number| number.len() >= 12 && number.iter().all(u8::is_ascii_digit))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_older(&entry) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The end of the chain, where the file itself is new.
fn last_of_older(path: &Path) -> io::Result<Option<Head>> {
    let Some(newest) = older(path)?.pop() else { return Ok(None) };
    let mut file = File::open(newest)?;
    let length = file.metadata()?.len();
    Ok(Tail::read(&mut file, length)?.head)
}

fn prune(path: &Path, rotate: Rotate) -> io::Result<()> {
    let Some(keep) = rotate.keep else { return Ok(()) };
    let older = older(path)?;
    let gone = older.len().saturating_sub(keep.get() as usize);
    older[..gone].iter().try_for_each(fs::remove_file)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn lock(file: &File, path: &Path) -> Result<(), AuditError> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // Not every file system has locks; then the operator keeps writers apart.
            Err(TryLockError::Error(_)) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(AuditError::Taken(path.to_owned()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
