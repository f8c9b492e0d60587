//! `keyferry log`.

mod filter;
mod follow;
mod pretty;
pub(super) mod printable;
mod verify;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use keyferry_contract::audit::Line;

use crate::failure::Failure;
use crate::lines::Lines;

/// Read audit records: in columns, filtered, as they come
///
/// Without a FILE, records are read from standard input. Other lines than records, such as those of a process's own log, are left out.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  keyferry log audit.jsonl --refused
  keyferry log audit.jsonl --follow --host '*.example'
  keyferry log audit.jsonl --since 1h --json | jq .audit.path
  keyferry log verify audit.jsonl*

Exit codes: 0 all is well, 1 something failed, 2 the command line is wrong."
)]
pub(crate) struct Log {
    #[command(subcommand)]
    action: Option<Action>,
    /// The file; standard input, if absent or -
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Go on with what is written from now on, also after a rotation
    #[arg(long, short, requires = "file")]
    follow: bool,
    /// Print records as JSON, as they were written
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: filter::Filter,
}

#[derive(clap::Subcommand)]
enum Action {
    Verify(verify::Verify),
}

impl Log {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if let Some(Action::Verify(verify)) = self.action {
            return verify.run();
        }
        let mut output = Output {
            to: BufWriter::new(io::stdout().lock()),
            filter: self.filter.at(jiff::Timestamp::now()),
            json: self.json,
        };
        let result = match &self.file {
            Some(path) if path != Path::new("-") => match self.follow {
                true => follow::follow(path, &mut output),
                false => File::open(path).and_then(|file| output.all(BufReader::new(file))),
            },
            _ if io::stdin().is_terminal() => {
                let message = "nothing to read\n  hint: name a file, or pipe records into this command";
                return Err(Failure::config(message));
            }
            _ => output.all(io::stdin().lock()),
        };
        let result = result.and_then(|()| output.to.flush());
        match result {
            // `keyferry log … | head` has what it wanted.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::fatal(match &self.file {
                Some(path) => format!("{}: {error}", path.display()),
                None => error.to_string(),
            })),
            Ok(()) => Ok(()),
        }
    }
}

/// Where records go that are asked for.
struct Output<W: Write> {
    to: W,
    filter: filter::Wanted,
    json: bool,
}

impl<W: Write> Output<W> {
    fn all(&mut self, from: impl BufRead) -> io::Result<()> {
        let mut lines = Lines::new(from);
        while let Some(line) = lines.next()? {
            self.line(line.bytes)?;
        }
        Ok(())
    }

    /// Prints a line, if it is a record that is asked for.
    fn line(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Ok(line) = Line::parse(bytes) else { return Ok(()) };
        if !self.filter.takes(&line) {
            return Ok(());
        }
        if self.json {
            writeln!(self.to, "{}", printable::json(&String::from_utf8_lossy(bytes)))
        } else {
            writeln!(self.to, "{}", pretty::line(&line))
        }
    }
}
