//! `keyferry policy test`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyferry_config::document::Case;
use keyferry_config::policy::{Difference, Explanation, Tried};
use owo_colors::Stream;
use serde::Serialize;

use crate::configuration::{self, Leniency};
use crate::failure::Failure;
use crate::terminal;

/// Decide requests from a file, and compare with what the file expects
///
/// Decides as the proxy does and sends nothing. Names are not resolved, and bodies are not part of it: a secret that looks for
/// its placeholder in bodies is expected at `body` where its rules match.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  keyferry policy test policy.test.yaml
  keyferry policy test --config keyferry.yaml policy.test.yaml --json

A file of cases:
  config: keyferry.yaml             # beside this file
  cases:
    - name: the agent asks its model
      request:
        method: POST                # GET, if left out
        url: https://api.example/v1/messages
        headers: { Authorization: Bearer EXAMPLE_API_KEY }
      expect:
        verdict: forward            # or refuse, with a reason
        rule: allowlist.rules[0]    # what is left out is not compared
        secrets: { EXAMPLE_API_KEY: ['header:authorization'] }

Exit codes: 0 everything is as expected, 1 something is not, 2 a file is wrong.")]
pub(crate) struct Test {
    /// The cases
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The configuration, instead of the one that the file names
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    leniency: Leniency,
}

impl Test {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut results = Vec::new();
        for file in &self.files {
            results.extend(self.try_file(file)?);
        }
        let failed = results.iter().filter(|result| !result.passed).count();
        if self.json {
            let json = serde_json::to_string_pretty(&results).map_err(Failure::fatal)?;
            terminal::data(json)?;
        } else {
            let lines: String = results.iter().map(CaseResult::text).collect();
            terminal::data(lines.trim_end())?;
        }
        match failed {
            0 => Ok(()),
            failed => {
                let all = results.len();
                Err(Failure::fatal(format!("{failed} of {all} cases are not as expected")))
            }
        }
    }

    fn try_file(&self, file: &Path) -> Result<Vec<CaseResult>, Failure> {
        let fixtures = configuration::fixtures(file)?;
        let beside = fixtures.config.map(|config| file.parent().unwrap_or(Path::new("")).join(config));
        let Some(config) = self.config.clone().or(beside) else {
            return Err(Failure::config(format!(
                "{}: names no configuration\nhint: write config: keyferry.yaml, or give --config",
                file.display()
            )));
        };
        let document = configuration::load(&config, &self.leniency)?;
        let policy = Arc::new(configuration::compile(&config, &document)?);
        Ok(fixtures.cases.into_iter().map(|case| CaseResult::new(file, &case, policy.test(&case))).collect())
    }
}

#[derive(Serialize)]
struct CaseResult {
    file: String,
    line: Option<u32>,
    name: String,
    passed: bool,
    differences: Vec<Difference>,
    decision: Explanation,
}

impl CaseResult {
    fn new(file: &Path, case: &Case, Tried { explanation, differences }: Tried) -> Self {
        Self {
            file: file.display().to_string(),
            line: case.location.map(|location| location.line),
            name: case.name.clone(),
            passed: differences.is_empty(),
            differences,
            decision: explanation,
        }
    }

    fn text(&self) -> String {
        let name = &self.name;
        if self.passed {
            return format!("{}    {name}\n", terminal::good(Stream::Stdout, "ok"));
        }
        let place = self.line.map_or(self.file.clone(), |line| format!("{}:{line}", self.file));
        let decision = &self.decision;
        let mut text = format!("{}  {name} ({place})\n", terminal::bad(Stream::Stdout, "FAIL"));
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {} {}", decision.method, decision.url);
        for Difference { what, expected, actual } in &self.differences {
            let (expected, actual) = (format!("- {expected}"), format!("+ {actual}"));
            let expected = terminal::bad(Stream::Stdout, &expected);
            let actual = terminal::good(Stream::Stdout, &actual);
            let _ = writeln!(text, "  {what}\n    {expected}\n    {actual}");
        }
        if let Some(message) = &decision.message {
            let _ = writeln!(text, "  because {message}");
        }
        text
    }
}
