//! A log that is written while it is read, through every rotation.
//!
//! Files that have given way are called after their last record, so each record is printed once and none is left out, however often
//! the file gives way between two looks. A file that somebody else moved away is read to its end first; one that was truncated is read
//! from its beginning.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyferry_contract::chain::Sealed;

use super::Output;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints until nobody reads any more.
pub(super) fn follow<W: Write>(path: &Path, output: &mut Output<W>) -> io::Result<()> {
    let mut seen = 0;
    let mut reader = Reader::open(path)?;
    loop {
        reader.read(output, &mut seen)?;
        output.to.flush()?;
        if reader.is_at(path)? {
            std::thread::sleep(PAUSE);
            continue;
        }
        // What was written between the last read and the move.
        reader.read(output, &mut seen)?;
        reader = following(path, output, &mut seen)?;
    }
}

/// The file at `path`, once everything that came before it is printed.
fn following<W: Write>(path: &Path, output: &mut Output<W>, seen: &mut u64) -> io::Result<Reader> {
    loop {
        let reader = match Reader::open(path) {
            // Between two steps of whoever rotates.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::thread::sleep(PAUSE);
                continue;
            }
            reader => reader?,
        };
        // What gave way before this file was opened is there by now.
        let missed = older(path, *seen)?.into_iter().next();
        match missed {
            Some(file) if !reader.is_at(&file)? => Reader::open(&file)?.read(output, seen)?,
            _ => return Ok(reader),
        }
    }
}

struct Reader {
    file: BufReader<File>,
    /// The begin of a line whose end is not there yet.
    line: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(File::open(path)?), line: Vec::new() })
    }

    /// Prints what is new, and nothing that another file has shown.
    fn read<W: Write>(&mut self, output: &mut Output<W>, seen: &mut u64) -> io::Result<()> {
        let position = self.file.stream_position()?;
        if self.file.get_ref().metadata()?.len() < position {
            self.file.seek(SeekFrom::Start(0))?;
            self.line.clear();
        }
        while self.file.read_until(b'\n', &mut self.line)? > 0 {
            let Some(line) = self.line.strip_suffix(b"\n") else { break };
            let seq = Sealed::parse(line).map(|sealed| sealed.head.seq);
            // A chain that starts anew counts from 1 again.
            if seq.is_none_or(|seq| seq > *seen || seq == 1) {
                *seen = seq.unwrap_or(*seen);
                output.line(line)?;
            }
            self.line.clear();
        }
        Ok(())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let own = self.file.get_ref().metadata()?;
        match fs::metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Files that have given way and end after the record `seen`, oldest first.
fn older(path: &Path, seen: u64) -> io::Result<Vec<PathBuf>> {
    let Some(name) = path.file_name() else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u64>().ok());
        if let Some(number) = number.filter(|number| *number > seen) {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}
