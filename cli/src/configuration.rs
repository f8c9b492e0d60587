//! From the path of a configuration to what it says, or to everything that is wrong with it.

use std::fs;
use std::path::Path;

use keyferry_config::document::{self, Document, Loaded, Options, Problems, Severity};
use keyferry_config::policy::Policy;

use crate::environment;
use crate::failure::Failure;
use crate::terminal;

/// How a configuration is named on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Leniency {
    /// Take unknown keys inside a transform's config for warnings, as iron-proxy ignores them
    #[arg(long)]
    lenient: bool,
}

/// Reads and judges a configuration. What is wrong with it is said on stderr; the failure only sums it up.
pub(crate) fn load(path: &Path, leniency: &Leniency) -> Result<Document, Failure> {
    let text = text(path).map_err(Failure::config)?;
    match parse(path, &text, leniency) {
        Ok(Loaded { document, warnings }) => {
            say(&warnings);
            Ok(document)
        }
        Err(problems) => {
            say(&problems);
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
            let noun = if errors == 1 { "error" } else { "errors" };
            Err(Failure::config(format!("{}: {errors} {noun}", path.display())))
        }
    }
}

/// The same for a process that is running: everything that is wrong, as one text.
pub(crate) fn read(path: &Path, leniency: &Leniency) -> Result<Loaded, String> {
    parse(path, &text(path)?, leniency).map_err(|problems| problems.to_string())
}

fn text(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text = fs::read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    String::from_utf8(text).map_err(|_| format!("{name}: is not UTF-8 text"))
}

fn parse(path: &Path, text: &str, leniency: &Leniency) -> Result<Loaded, Problems> {
    let options = Options { lenient: leniency.lenient };
    document::parse(&path.display().to_string(), text, &environment::variable, options)
}

/// Compiles what the document says about requests.
pub(crate) fn compile(path: &Path, document: &Document) -> Result<Policy, Failure> {
    Policy::compile(document, 1).map_err(|error| Failure::config(format!("{}: {error}", path.display())))
}

fn say(problems: &Problems) {
    if !problems.is_empty() {
        terminal::talk(terminal::with_hints(&problems.to_string()));
    }
}
