//! From the path of a configuration to what it says, or to everything that is wrong with it.

use std::fs;
use std::path::Path;

use keyferry_config::document::{self, Document, Fixtures, KeyWarning, Loaded, Options, Problems, Severity};
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

/// Reads and judges a configuration that a proxy of this version is to run. What is wrong with it is said on stderr; the
/// failure only sums it up.
pub(crate) fn load(path: &Path, leniency: &Leniency) -> Result<Document, Failure> {
    let Loaded { document, warnings, unsupported } = judge(path, leniency)?;
    say(&warnings);
    if unsupported.is_empty() { Ok(document) } else { Err(refuse(path, &unsupported)) }
}

/// The same for whoever does not start a proxy: what this version does not run is a warning.
pub(crate) fn load_for_any_version(path: &Path, leniency: &Leniency) -> Result<Document, Failure> {
    let Loaded { document, warnings, unsupported } = judge(path, leniency)?;
    say(&warnings);
    say(&unsupported.into_warnings());
    Ok(document)
}

/// The same for a process that is running: everything that is wrong, as one text.
pub(crate) fn read(path: &Path, leniency: &Leniency) -> Result<Loaded, String> {
    let loaded = parse(path, &text(path)?, leniency).map_err(|problems| problems.to_string())?;
    if loaded.unsupported.is_empty() { Ok(loaded) } else { Err(loaded.unsupported.to_string()) }
}

/// The configuration as it counts; see [`document::effective`].
pub(crate) fn effective(path: &Path, leniency: &Leniency) -> Result<String, Failure> {
    let text = text(path).map_err(Failure::config)?;
    let options = Options { lenient: leniency.lenient };
    document::effective(&path.display().to_string(), &text, &environment::variable, options)
        .map_err(|problems| refuse(path, &problems))
}

fn judge(path: &Path, leniency: &Leniency) -> Result<Loaded, Failure> {
    let text = text(path).map_err(Failure::config)?;
    parse(path, &text, leniency).map_err(|problems| refuse(path, &problems))
}

fn refuse(path: &Path, problems: &Problems) -> Failure {
    say(problems);
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let noun = if errors == 1 { "error" } else { "errors" };
    Failure::config(format!("{}: {errors} {noun}", path.display()))
}

/// Says what is to be looked at, with the places of the keys.
pub(crate) fn warn_at(path: &Path, warnings: &[KeyWarning]) -> Result<(), Failure> {
    if !warnings.is_empty() {
        let text = text(path).map_err(Failure::config)?;
        let problems =
            document::warn_at(&path.display().to_string(), &text, &environment::variable, warnings);
        say(&problems.map_err(|problems| refuse(path, &problems))?);
    }
    Ok(())
}

/// Fixtures for a policy; what is wrong with them is said on stderr.
pub(crate) fn fixtures(path: &Path) -> Result<Fixtures, Failure> {
    let text = text(path).map_err(Failure::config)?;
    Fixtures::parse(&path.display().to_string(), &text).map_err(|problems| refuse(path, &problems))
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
