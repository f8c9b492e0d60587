//! Tools: directories with a `pyproject.toml` whose `[tool.centaur]` says which secrets they need.

mod declaration;
mod manifest;
mod node;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use declaration::{Declaration, Field, InjectAt, Kind, Setting, SettingValue};
pub(crate) use manifest::Manifest;

/// A tool, and everything that it asks for.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Its directory's name.
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    /// Whose tool it is: the name of the repository that its root belongs to.
    pub(crate) overlay: String,
    pub(crate) secrets: Vec<Declaration>,
    /// What its author should look at.
    pub(crate) warnings: Vec<String>,
}

/// Why there is no such tool, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("no directory of tools is named\nhint: give --tools-dir DIR, or set TOOL_DIRS")]
    NoDirectories,
    #[error("there is no tool {name:?} in {}\nhint: a tool is a directory with a pyproject.toml", .directories.join(", "))]
    NotFound { name: String, directories: Vec<String> },
    #[error("{} and {} are both a tool {name:?}\nhint: rename one of them", .first.display(), .second.display())]
    Twice { name: String, first: PathBuf, second: PathBuf },
    #[error("{} is a persona, not a tool", .0.display())]
    Persona(PathBuf),
    #[error("{}: cannot be read: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    /// What is wrong in a manifest, with its place.
    #[error("{}:{line}: {message}", .path.display())]
    Manifest { path: PathBuf, line: usize, message: String },
}

const MANIFEST: &str = "pyproject.toml";

/// Finds a tool by the name of its directory. Later roots shadow earlier ones.
pub(crate) fn find(roots: &[PathBuf], name: &str) -> Result<Tool, ToolError> {
    if roots.is_empty() {
        return Err(ToolError::NoDirectories);
    }
    let mut found = None;
    for root in roots {
        let mut here = None;
        for directory in candidates(root)? {
            if directory.file_name().is_some_and(|known| known == name)
                && let Some(first) = here.replace(directory.clone())
            {
                return Err(ToolError::Twice { name: name.to_owned(), first, second: directory });
            }
        }
        found = here.map(|directory| (root, directory)).or(found);
    }
    let Some((root, directory)) = found else {
        let directories = roots.iter().map(|root| root.display().to_string()).collect();
        return Err(ToolError::NotFound { name: name.to_owned(), directories });
    };
    let Manifest { secrets, warnings } = Manifest::read(&directory.join(MANIFEST))?;
    Ok(Tool { name: name.to_owned(), overlay: overlay(root), directory, secrets, warnings })
}

/// Children with a manifest, and those of children without one, which are categories.
fn candidates(root: &Path) -> Result<Vec<PathBuf>, ToolError> {
    let mut found = Vec::new();
    for child in folders(root)? {
        if child.join(MANIFEST).is_file() {
            found.push(child);
        } else {
            found.extend(folders(&child)?.into_iter().filter(|inner| inner.join(MANIFEST).is_file()));
        }
    }
    Ok(found)
}

/// Folders in order of name; a leading dot or underscore hides one.
fn folders(path: &Path) -> Result<Vec<PathBuf>, ToolError> {
    let failed = |error| ToolError::Read { path: path.to_owned(), error };
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
        if !hidden && entry.path().is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// `/srv/centaur/tools` holds the tools of `centaur`.
fn overlay(root: &Path) -> String {
    // What `.` is called only the system knows.
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let named =
        if root.file_name().is_some_and(|name| name == "tools") { root.parent() } else { Some(&*root) };
    let name = named.and_then(Path::file_name).map(|name| crate::perms::slug(&name.to_string_lossy()));
    name.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests;
