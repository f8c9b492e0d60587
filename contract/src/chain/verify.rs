//! Whether a log is as it was written, and if not, where it is not and what was done to it.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::{Hash, Head, Sealed};
use crate::audit::{Beginning, Chain, Event, EventKind, Line};

/// A line of a log, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where.
    pub place: Place,
    /// Without the line break.
    pub bytes: Vec<u8>,
    /// Whether a line break ends it.
    pub ended: bool,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What to hold a log against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A hash that was noted elsewhere: a record must have it.
    pub expected: Option<Hash>,
    /// Chains may start anew in the middle.
    pub restarts: bool,
}

/// What an unbroken log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many records it has, those about itself included.
    pub records: u64,
    /// The number of the first: 1 where its chain begins here.
    pub first: u64,
    /// The last record.
    pub head: Head,
    /// The number of the record that has the expected hash.
    pub expected: Option<u64>,
    /// Lines that a crash left incomplete; the record after each says so.
    pub torn: Vec<Place>,
    /// The last line, if it is incomplete.
    pub unfinished: Option<Place>,
}

/// Why a log is not good.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is not as it was written.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// There is nothing in it.
    #[error("there is no record in it")]
    Empty,
    /// The hash that was noted is not in it.
    #[error(
        "no record has the hash {0}\n  hint: records were cut off its end, or all of it was written anew, after that hash was noted"
    )]
    Unexpected(Hash),
}

/// The first line that is not as it was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct Broken {
    /// Where.
    pub place: Place,
    /// What was done.
    pub fault: Fault,
}

/// What was done to a log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The content and the hash disagree.
    #[error("this record was changed after it was written")]
    Changed,
    /// It does not belong where it stands.
    #[error("this line was put in: it is not the record that stood here")]
    Inserted,
    /// Records are missing.
    #[error("{} removed before this line", records(*from, *to))]
    Removed {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// A record stands elsewhere.
    #[error("the records were put in another order: record {seq} stands at {found}")]
    Moved {
        /// Its number.
        seq: u64,
        /// Where it stands.
        found: Place,
    },
    /// It begins in the middle.
    #[error(
        "the log begins in the middle of its chain\n  hint: name the file before this one too; if it is gone, this file's first records were removed"
    )]
    NoBeginning,
    /// Another chain starts here.
    #[error(
        "a new chain starts here, and nothing shows what stood before it\n  hint: the log of a standard output has one for each start of the process; --restarts takes them"
    )]
    Restarted,
}

fn records(from: u64, to: u64) -> String {
    if from == to { format!("record {from} was") } else { format!("records {from} to {to} were") }
}

/// Checks the lines of one log, oldest file first.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    lines: impl Iterator<Item = io::Result<LogLine>>,
    options: Options,
) -> Result<Report, VerifyError> {
    let mut lines = lines.peekable();
    let mut chain = Follower { options, report: None, torn: Vec::new(), unfinished: None };
    while let Some(line) = lines.next() {
        let line = line?;
        if chain.takes(&line.bytes) {
            continue;
        }
        let after = lines.peek().and_then(|after| after.as_ref().ok());
        if after.is_none() && !line.ended {
            chain.unfinished = Some(line.place);
        } else if after.is_some_and(|after| is_scar(&line.bytes, &after.bytes)) {
            chain.torn.push(line.place);
        } else {
            let after = after.cloned();
            let fault = chain.fault(&line, after, lines)?;
            return Err(Broken { place: line.place, fault }.into());
        }
    }
    let Some(report) = chain.report else { return Err(VerifyError::Empty) };
    match (options.expected, report.expected) {
        (Some(hash), None) => Err(VerifyError::Unexpected(hash)),
        _ => Ok(Report { torn: chain.torn, unfinished: chain.unfinished, ..report }),
    }
}

struct Follower {
    options: Options,
    /// None before the first record.
    report: Option<Report>,
    torn: Vec<Place>,
    unfinished: Option<Place>,
}

impl Follower {
    /// Takes a line that is the next record.
    fn takes(&mut self, line: &[u8]) -> bool {
        let head = match &self.report {
            Some(report) => {
                next(line, report.head).or_else(|| first(line).filter(|head| self.restarts_at(*head)))
            }
            None => first(line),
        };
        let Some(head) = head else { return false };
        let report = self.report.get_or_insert(Report {
            records: 0,
            first: head.seq,
            head,
            expected: None,
            torn: Vec::new(),
            unfinished: None,
        });
        report.records += 1;
        report.head = head;
        if self.options.expected == Some(head.hash) {
            report.expected = Some(head.seq);
        }
        true
    }

    fn restarts_at(&self, head: Head) -> bool {
        self.options.restarts && head.seq == 1
    }

    fn fault(
        &self,
        line: &LogLine,
        after: Option<LogLine>,
        mut rest: impl Iterator<Item = io::Result<LogLine>>,
    ) -> io::Result<Fault> {
        let sealed = Sealed::parse(&line.bytes);
        let Some(before) = self.report.as_ref().map(|report| report.head) else {
            let whole = sealed.is_some() && chain_of(&line.bytes).is_none();
            return Ok(if whole { Fault::NoBeginning } else { Fault::Changed });
        };
        if first(&line.bytes).is_some_and(|head| head.seq == 1) {
            return Ok(Fault::Restarted);
        }
        let after = after.as_ref().map(|after| (after, Sealed::parse(&after.bytes)));
        if let Some((after, Some(_))) = &after
            && let Some(head) = next(&after.bytes, before)
        {
            // Two records that changed places follow each other the other way round.
            return Ok(match next(&line.bytes, head) {
                Some(_) => Fault::Moved { seq: head.seq, found: after.place.clone() },
                None => Fault::Inserted,
            });
        }
        let expected = before.seq + 1;
        let after_seq = after.and_then(|(_, sealed)| sealed).map(|sealed| sealed.head.seq);
        // Then this line stands in the place of the one that is expected, whatever it says of itself.
        let in_place = after_seq == Some(expected + 1);
        match sealed.map(|sealed| sealed.head.seq) {
            None => Ok(Fault::Changed),
            Some(seq) if seq == expected => Ok(Fault::Changed),
            Some(seq) if seq < expected => Ok(if in_place { Fault::Changed } else { Fault::Inserted }),
            Some(seq) => {
                for line in &mut rest {
                    let line = line?;
                    if next(&line.bytes, before).is_some() {
                        return Ok(Fault::Moved { seq: expected, found: line.place });
                    }
                }
                Ok(if in_place { Fault::Changed } else { Fault::Removed { from: expected, to: seq - 1 } })
            }
        }
    }
}

/// The record, if it is the one that follows.
fn next(line: &[u8], before: Head) -> Option<Head> {
    let sealed = Sealed::parse(line)?;
    (sealed.head.seq == before.seq + 1 && sealed.follows(before.hash)).then_some(sealed.head)
}

/// The record, if a chain may begin with it.
fn first(line: &[u8]) -> Option<Head> {
    let sealed = Sealed::parse(line)?;
    let chain = chain_of(line)?;
    let begins = match chain.event {
        Beginning::Start => sealed.head.seq == 1 && chain.prev == Hash::default(),
        Beginning::Continue => sealed.head.seq > 1,
    };
    (begins && sealed.follows(chain.prev)).then_some(sealed.head)
}

/// Whether the line after says that a crash left this one incomplete.
fn is_scar(line: &[u8], after: &[u8]) -> bool {
    let torn = chain_of(after).and_then(|chain| chain.torn);
    torn.is_some_and(|torn| torn.bytes == line.len() as u64 && torn.sha256 == Hash::of(line))
}

fn chain_of(line: &[u8]) -> Option<Chain> {
    match Line::parse(line).ok()? {
        Line::Event(Event { kind: EventKind::Chain { chain }, .. }) => Some(chain),
        Line::Event(Event { kind: EventKind::Dropped { .. }, .. }) | Line::Request(_) => None,
    }
}

#[cfg(test)]
mod tests;
