//! What is wrong with a file: one line each, with its place, its key and what to do next.

use std::fmt;

/// A place in the file, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// Whether a problem stops the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, and probably does not do what its author meant.
    Warning,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the file can still be used.
    pub severity: Severity,
    /// Where in the file; `None` where an environment variable is at fault.
    pub location: Option<Location>,
    /// The key, such as `transforms[1].config.secrets[0].source`, or the environment variable; empty for the whole file.
    pub path: String,
    /// What is wrong. Never holds a text that came from the environment through `${NAME}`.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Everything that is wrong with one file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(file: &str, mut list: Vec<Problem>) -> Self {
        // Stable, so that what is at one place stays in the order in which it was found.
        list.sort_by_key(|problem| problem.location);
        list.dedup();
        Self { file: file.to_owned(), list }
    }

    /// The name of the file, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The same, none of it a reason to refuse the file.
    #[must_use]
    pub fn into_warnings(mut self) -> Self {
        self.list.iter_mut().for_each(|problem| problem.severity = Severity::Warning);
        self
    }

    /// The problems, in the order of the file; those of the environment first.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match problem.location {
                Some(Location { line, column }) => write!(f, "{}:{line}:{column}: ", self.file)?,
                None => f.write_str("environment: ")?,
            }
            if problem.severity == Severity::Warning {
                f.write_str("warning: ")?;
            }
            if !problem.path.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            write!(f, "{}", Printable(&problem.message))?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {}", Printable(hint))?;
            }
        }
        Ok(())
    }
}

/// A text of the type's own grammar that could not be read; says why and what to write, never the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\nhint: {hint}")]
pub struct ValueError {
    /// What is wrong.
    pub message: &'static str,
    /// What to write.
    pub hint: &'static str,
}

/// A text on one line: a file must not be able to write escape sequences or lines of its own into a log (T86).
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_rendered_in_file_order_with_place_path_message_and_hint() {
        let problem = |severity, location, path: &str, message: &str, hint: Option<&str>| Problem {
            severity,
            location,
            path: path.to_owned(),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let problems = Problems::new(
            "proxy.yaml",
            vec![
                problem(Severity::Warning, Some(Location { line: 9, column: 1 }), "tls", "odd", None),
                problem(
                    Severity::Error,
                    Some(Location { line: 2, column: 3 }),
                    "tls.ca_crt",
                    "unknown key",
                    Some("did you mean \"ca_cert\"?"),
                ),
                problem(Severity::Error, None, "IRON_LOG_LEVEL", "bad\u{1b}[31m\ntext", None),
            ],
        );
        assert_eq!(
            problems.to_string(),
            "environment: IRON_LOG_LEVEL: bad\\u{1b}[31m\\ntext\n\
             proxy.yaml:2:3: tls.ca_crt: unknown key\n  hint: did you mean \"ca_cert\"?\n\
             proxy.yaml:9:1: warning: tls: odd"
        );
    }
}
