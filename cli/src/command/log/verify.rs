//! `keyferry log verify`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyferry_contract::chain::{self, Hash, LogLine, Options, Place, Report, Sealed};

use crate::failure::Failure;
use crate::lines::{Line, Lines};
use crate::terminal;

/// Say whether audit records are as they were written, and if not, which is the first that is not
///
/// Checks the chain of hashes through all files of one log, in the order of their records, whatever the order they are named in.
/// Whoever can write the file can also write all of it anew, or cut off its end: only a hash that was noted elsewhere shows that.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry log verify audit.jsonl*
  keyferry log verify audit.jsonl --expect-head \"$(cat /elsewhere/head)\"

Exit codes: 0 they are, 1 they are not.")]
pub(super) struct Verify {
    /// The files of one log; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A head that this command has printed before: a record must have it
    #[arg(long, value_name = "HASH")]
    expect_head: Option<Hash>,
    /// Take chains that start anew, one after the other in the order of the files, as in logs of standard output
    #[arg(long)]
    restarts: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut files = Vec::new();
        for path in &self.files {
            files.push(
                Lined::open(path).map_err(|error| Failure::fatal(format!("{}: {error}", path.display())))?,
            );
        }
        if !self.restarts {
            files.sort_by_key(Lined::begin);
        }
        let options = Options { expected: self.expect_head, restarts: self.restarts };
        let report = chain::verify(files.into_iter().flatten(), options).map_err(Failure::fatal)?;
        for place in &report.torn {
            terminal::warning(&format!(
                "{place}: a crash has left this line incomplete; the record after it says so"
            ));
        }
        if let Some(place) = &report.unfinished {
            terminal::warning(&format!(
                "{place}: the last line is incomplete, as a crash leaves it, or a write that is under way"
            ));
        }
        terminal::data(summary(&report))
    }
}

fn summary(report: &Report) -> String {
    let Report { records, first, head, expected, torn: _, unfinished: _ } = report;
    let since = expected.map(|seq| {
        let since = head.seq.saturating_sub(seq);
        format!("\nthe expected head is record {seq}; {since} have come since")
    });
    format!(
        "ok: {records} records in order, {first} to {}\nhead: {}{}",
        head.seq,
        head.hash,
        since.unwrap_or_default()
    )
}

/// A file, the first line of which has been read already.
struct Lined {
    name: Arc<str>,
    lines: Lines<Box<dyn BufRead>>,
    first: Option<io::Result<LogLine>>,
}

impl Lined {
    fn open(path: &Path) -> io::Result<Self> {
        let from: Box<dyn BufRead> = match path == Path::new("-") {
            true => Box::new(io::stdin().lock()),
            false => Box::new(BufReader::new(File::open(path)?)),
        };
        let mut lined = Self { name: path.to_string_lossy().into(), lines: Lines::new(from), first: None };
        lined.first = lined.read();
        Ok(lined)
    }

    /// The number of its first record; a file that begins with anything else comes first, and is reported.
    fn begin(&self) -> u64 {
        let first = self.first.as_ref().and_then(|line| line.as_ref().ok());
        first.and_then(|line| Sealed::parse(&line.bytes)).map_or(0, |sealed| sealed.head.seq)
    }

    fn read(&mut self) -> Option<io::Result<LogLine>> {
        let Line { number, bytes, ended } = match self.lines.next().transpose()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let place = Place { file: Arc::clone(&self.name), line: number };
        Some(Ok(LogLine { place, bytes: bytes.to_vec(), ended }))
    }
}

impl Iterator for Lined {
    type Item = io::Result<LogLine>;

    fn next(&mut self) -> Option<Self::Item> {
        self.first.take().or_else(|| self.read())
    }
}
