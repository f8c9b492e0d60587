//! `keyferry policy replay`.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyferry_config::policy::Policy;
use owo_colors::Stream;

use super::super::log::printable;
use crate::configuration::{self, Leniency};
use crate::failure::Failure;
use crate::replay::{Changes, Judge, Kind, Line, Log};
use crate::terminal;

/// Tell what another policy would have made of the requests in an audit log
///
/// Judges every finished request of the log again, and counts what would have changed by kind of request. Records hold neither
/// headers nor queries nor bodies: placeholders are put back where a record says that they were swapped, and what cannot be
/// known is counted apart. Addresses are not looked up.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry policy replay --audit audit.jsonl --policy new.yaml
  keyferry policy replay --audit audit.1.jsonl audit.jsonl --old keyferry.yaml --policy new.yaml
  keyferry policy replay --audit audit.jsonl --policy new.yaml --json --fail-on-change

Exit codes: 0 it was judged, 1 --fail-on-change and something would change, 2 a file is wrong.")]
pub(crate) struct Replay {
    /// The audit logs
    #[arg(long, value_name = "LOG", required = true, num_args = 1..)]
    audit: Vec<PathBuf>,
    /// The configuration with the new policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The configuration that was in force: compare with what it says, not with what happened
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    /// End with exit code 1 if a request would have had another outcome
    #[arg(long)]
    fail_on_change: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    leniency: Leniency,
}

impl Replay {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let old = self.old.as_ref().map(|path| self.compile(path)).transpose()?;
        let judge = Judge::new(self.compile(&self.policy)?, old);
        let mut changes = Changes::default();
        for path in &self.audit {
            read(path, &judge, &mut changes)?;
        }
        let answer = if self.json { json(&changes)? } else { text(&changes) };
        terminal::data(answer)?;
        match changes.changed {
            0 => Ok(()),
            _ if !self.fail_on_change => Ok(()),
            changed => Err(Failure::fatal(format!("{} would change", requests(changed)))),
        }
    }

    fn compile(&self, path: &Path) -> Result<Arc<Policy>, Failure> {
        let document = configuration::load(path, &self.leniency)?;
        configuration::compile(path, &document).map(Arc::new)
    }
}

fn read(path: &Path, judge: &Judge, changes: &mut Changes) -> Result<(), Failure> {
    let name = path.display();
    let unreadable = |error: std::io::Error| Failure::config(format!("{name}: cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    judge_all(BufReader::with_capacity(1 << 16, file), &name.to_string(), judge, changes)
        .map_err(unreadable)?
}

fn judge_all(
    reader: impl BufRead,
    name: &str,
    judge: &Judge,
    changes: &mut Changes,
) -> std::io::Result<Result<(), Failure>> {
    let mut log = Log::new(reader);
    let (mut records, mut damaged, mut first) = (0_u64, 0_u64, None);
    while let Some(line) = log.next()? {
        match line {
            Line::Request(record) => {
                records += 1;
                changes.add(&record.audit, judge.judge(&record));
            }
            Line::Other => {}
            Line::Torn => {
                terminal::warning(&format!("{name}: the last line is not complete, and was left out"));
            }
            Line::Unreadable(number) => {
                damaged += 1;
                first.get_or_insert(number);
            }
        }
    }
    let Some(first) = first else { return Ok(Ok(())) };
    if records == 0 {
        return Ok(Err(Failure::config(format!("{name}:{first}: this is no audit log"))));
    }
    let noun = if damaged == 1 { "line is" } else { "lines are" };
    terminal::warning(&format!("{name}:{first}: {damaged} {noun} no record, and left out"));
    Ok(Ok(()))
}

fn json(changes: &Changes) -> Result<String, Failure> {
    let groups: Vec<_> = changes
        .groups()
        .into_iter()
        .map(|(group, tally)| {
            let mut value = serde_json::to_value(group)?;
            value["count"] = tally.count.into();
            value["example"] = tally.example.to_string().into();
            Ok(value)
        })
        .collect::<Result<_, serde_json::Error>>()
        .map_err(Failure::fatal)?;
    let mut value = serde_json::to_value(changes).map_err(Failure::fatal)?;
    value["changes"] = groups.into();
    serde_json::to_string_pretty(&value).map_err(Failure::fatal)
}

fn text(changes: &Changes) -> String {
    let mut text = format!("{} judged again, ", requests(changes.requests));
    // Writing to a String does not fail.
    let _ = match changes.changed {
        0 => writeln!(text, "nothing would change"),
        changed => writeln!(text, "{} would change", terminal::strong(Stream::Stdout, &changed.to_string())),
    };
    let mut kind = None;
    for (group, tally) in changes.groups() {
        if kind != Some(group.kind) {
            kind = Some(group.kind);
            let _ = writeln!(text, "\n{}", heading(group.kind));
        }
        let (count, example) = (tally.count, &tally.example);
        let request = format!("{} {}{}", group.method, group.host, group.path);
        let _ = writeln!(
            text,
            "{count:>8}  {}  ({})",
            printable::text(&request),
            printable::text(&group.principal)
        );
        if group.before != group.after {
            let _ = writeln!(text, "          {} -> {}", group.before, group.after);
        }
        for (sign, carried) in [("-", &group.lost), ("+", &group.gained)] {
            for what in carried {
                let _ = writeln!(text, "          {sign} {}", printable::text(what));
            }
        }
        let _ =
            writeln!(text, "          {}", terminal::faint(Stream::Stdout, &format!("such as {example}")));
    }
    if changes.not_grouped > 0 {
        let _ = writeln!(text, "\nand {} of further kinds", requests(changes.not_grouped));
    }
    if !changes.undecided.is_empty() {
        let _ = writeln!(text, "\nnot known");
        for (why, count) in &changes.undecided {
            let _ = writeln!(text, "{count:>8}  {why}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn heading(kind: Kind) -> &'static str {
    match kind {
        Kind::NewlyForwarded => "refused then, forwarded now",
        Kind::NewlyRefused => "forwarded then, refused now",
        Kind::OtherSecrets => "forwarded with other credentials",
        Kind::OtherReason => "refused for another reason",
    }
}

fn requests(count: u64) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{count} requests") }
}
