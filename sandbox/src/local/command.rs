//! Where a command is on the host, and what of the host it needs to run.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::workspace::KeptApart;
use crate::error::Error;

/// A program, and what must be seen inside so that it runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Of the host, read-only.
    pub(super) mounts: BTreeSet<PathBuf>,
    /// Where its companions are found.
    pub(super) directories: Vec<String>,
}

/// Where to look.
pub(super) struct Places<'a> {
    /// As in `PATH`.
    pub(super) search: &'a str,
    pub(super) home: Option<&'a Path>,
    pub(super) workspace: &'a Path,
    pub(super) kept_apart: &'a KeptApart,
}

impl Places<'_> {
    /// Finds `name`, and the interpreter of a script.
    pub(super) fn resolve(&self, name: &OsStr) -> Result<Program, Error> {
        let mut program = Program { path: self.find(name)?, ..Program::default() };
        self.need(&program.path.clone(), &mut program);
        if let Some(interpreter) = interpreter(&program.path)
            && (!interpreter.contains('/')
                || fs::canonicalize(&program.path).is_ok_and(|real| self.is_trusted(&real)))
        {
            // One that is missing shows when the script is run.
            if let Ok(path) = self.find(interpreter.as_ref()) {
                self.need(&path, &mut program);
            }
        }
        Ok(program)
    }

    fn find(&self, name: &OsStr) -> Result<PathBuf, Error> {
        let missing =
            || Error::CommandNotFound { program: name.to_owned(), searched: self.search.to_owned() };
        if name.as_bytes().contains(&b'/') {
            let path = self.workspace.join(name);
            return if is_program(&path) { Ok(normal(&path)) } else { Err(missing()) };
        }
        let candidates = self.search.split(':').filter(|directory| directory.starts_with('/'));
        let mut candidates = candidates.map(|directory| normal(&Path::new(directory).join(name)));
        candidates.find(|path| is_program(path)).ok_or_else(missing)
    }

    /// What lies in the workspace may be the work of a sandbox. It does not choose what the next one sees of the host: neither by a
    /// link nor by an interpreter's path.
    fn is_trusted(&self, path: &Path) -> bool {
        let holder = path.parent().and_then(|holder| fs::canonicalize(holder).ok());
        !path.starts_with(self.workspace) && !holder.is_some_and(|holder| holder.starts_with(self.workspace))
    }

    /// Notes what `path` needs, link by link.
    fn need(&self, path: &Path, program: &mut Program) {
        const LINKS: usize = 16;
        if let Some(directory) = path.parent().and_then(Path::to_str)
            && !directory.contains(':')
            && !crate::layout::PATH.split(':').any(|usual| usual == directory)
            && !program.directories.iter().any(|known| known == directory)
        {
            program.directories.push(directory.to_owned());
        }
        let mut hop = path.to_owned();
        for _ in 0..LINKS {
            if !self.is_trusted(&hop) {
                return;
            }
            self.show(&hop, program);
            match fs::read_link(&hop) {
                Ok(target) => hop = normal(&hop.parent().unwrap_or(Path::new("/")).join(target)),
                Err(_) => break,
            }
        }
        if let Ok(real) = fs::canonicalize(path) {
            self.show(&real, program);
        }
    }

    /// What is shown of the host so that `path` works: as much as its installation, never what else a home holds.
    fn show(&self, path: &Path, program: &mut Program) {
        if SYSTEM.iter().any(|system| path.starts_with(system)) || path.starts_with(self.workspace) {
            return;
        }
        program.mounts.insert(self.installation(path));
    }

    fn installation(&self, path: &Path) -> PathBuf {
        let parts: Vec<Component<'_>> = path.components().collect();
        // A Node package: itself and what it depends on.
        if let Some(place) = parts.iter().position(|part| part.as_os_str() == "node_modules") {
            let packages: PathBuf = parts[..=place].iter().collect();
            return if self.kept_apart.meets(&packages) { path.to_owned() } else { packages };
        }
        let Some(directory) = path.parent() else { return path.to_owned() };
        let installed_in_bin = directory.file_name().is_some_and(|name| name == "bin");
        let prefix = if installed_in_bin { directory.parent().unwrap_or(directory) } else { directory };
        let candidates = [(self.is_narrow(prefix), prefix), (installed_in_bin, directory)];
        let fitting = candidates.into_iter().find(|(fits, place)| *fits && !self.kept_apart.meets(place));
        fitting.map_or(path, |(_, place)| place).to_owned()
    }

    /// Whether a directory can be one program's own. `~/.local`, `~/.cargo` and their like hold credentials beside programs.
    fn is_narrow(&self, directory: &Path) -> bool {
        let depth =
            |path: &Path| path.components().filter(|part| matches!(part, Component::Normal(_))).count();
        let home = self.home.filter(|home| depth(home) > 0 && directory.starts_with(home)).map(depth);
        let home = home.or_else(|| directory.starts_with("/root").then_some(1));
        let home = home.or_else(|| directory.starts_with("/home").then_some(2));
        let temporary = ["/tmp", "/var", "/run"].iter().any(|place| directory.starts_with(place));
        !temporary && depth(directory) >= home.map_or(2, |home| home + 2)
    }
}

/// What every sandbox has.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The program that a script's first line names: with `env`, the one that `env` will look for.
fn interpreter(script: &Path) -> Option<String> {
    let mut head = Vec::with_capacity(256);
    File::open(script).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let first = words.next()?;
    let named = if first.ends_with("/env") { words.find(|word| !word.starts_with('-'))? } else { first };
    Some(named.to_owned())
}

/// Without `.` and `..`, as written: links are followed one by one.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOTHING: KeptApart = KeptApart(Vec::new());

    fn places(home: &str) -> Places<'_> {
        Places {
            search: "",
            home: Some(Path::new(home)),
            workspace: Path::new("/work"),
            kept_apart: &NOTHING,
        }
    }

    #[test]
    fn a_program_brings_its_installation_and_nothing_else_of_a_home() {
        for (path, shown) in [
            ("/home/u/.local/bin/claude", "/home/u/.local/bin"),
            ("/home/u/.local/share/claude/versions/2.1", "/home/u/.local/share/claude/versions"),
            ("/home/u/.nvm/versions/node/v24/bin/node", "/home/u/.nvm/versions/node/v24"),
            (
                "/home/u/.nvm/versions/node/v24/lib/node_modules/x/cli.js",
                "/home/u/.nvm/versions/node/v24/lib/node_modules",
            ),
            ("/home/u/.cargo/bin/rustc", "/home/u/.cargo/bin"),
            ("/home/u/.secret/tool", "/home/u/.secret/tool"),
            ("/home/u/bin/tool", "/home/u/bin"),
            ("/home/u/tool", "/home/u/tool"),
            ("/home/other/.x/tool", "/home/other/.x/tool"),
            ("/root/.local/bin/tool", "/root/.local/bin"),
            ("/opt/tool/bin/tool", "/opt/tool"),
            ("/opt/tool", "/opt/tool"),
            ("/tmp/x/y/tool", "/tmp/x/y/tool"),
            ("/tool", "/tool"),
        ] {
            assert_eq!(places("/home/u").installation(Path::new(path)), Path::new(shown), "{path}");
        }
    }

    #[test]
    fn an_installation_that_holds_our_own_files_is_not_shown_as_a_whole() {
        let ours = KeptApart(vec!["/opt/suite/data".into(), "/opt/apps/node_modules/.state".into()]);
        let places = Places { kept_apart: &ours, ..places("/home/u") };
        for (path, shown) in [
            ("/opt/suite/bin/tool", "/opt/suite/bin"),
            ("/opt/suite/tool", "/opt/suite/tool"),
            ("/opt/apps/node_modules/tool/cli.js", "/opt/apps/node_modules/tool/cli.js"),
            ("/opt/other/bin/tool", "/opt/other"),
        ] {
            assert_eq!(places.installation(Path::new(path)), Path::new(shown), "{path}");
        }
    }

    /// A sandbox may have left it there.
    #[test]
    fn what_lies_in_the_workspace_chooses_nothing_that_is_shown() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let workspace = root.join("workspace");
        for (path, text) in [
            ("other/project/bin/tool", "#!/bin/sh\n"),
            ("node/bin/node", ""),
            ("workspace/script", &format!("#!{}/other/project/bin/tool\n", root.display())),
            ("workspace/agent.js", "#!/usr/bin/env node\n"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("other/project/bin/tool"), workspace.join("link")).unwrap();
        let search = root.join("node/bin");
        let search = search.to_str().unwrap();
        let places = Places { search, workspace: &workspace, ..places("/nowhere") };
        for (name, shown) in [("./script", None), ("./link", None), ("./agent.js", Some("node/bin"))] {
            let mounts = places.resolve(name.as_ref()).unwrap().mounts;
            assert_eq!(mounts, shown.map(|path| root.join(path)).into_iter().collect(), "{name}");
        }
    }

    #[test]
    fn a_script_brings_its_interpreter_and_a_link_what_it_leads_to() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let program = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("node/bin/node", "");
        program("packages/node_modules/agent/cli.js", "#!/usr/bin/env -S node --flag\n");
        fs::create_dir_all(root.join("home/bin")).unwrap();
        std::os::unix::fs::symlink("../../packages/node_modules/agent/cli.js", root.join("home/bin/agent"))
            .unwrap();
        let search = format!("relative:{0}/home/bin:{0}/node/bin", root.display());
        let home = root.join("home");
        let places = Places { search: &search, ..places(home.to_str().unwrap()) };

        let found = places.resolve("agent".as_ref()).unwrap();

        assert_eq!(found.path, root.join("home/bin/agent"));
        let mounts: BTreeSet<PathBuf> =
            ["home/bin", "node/bin", "packages/node_modules"].map(|path| root.join(path)).into();
        assert_eq!(found.mounts, mounts);
        assert_eq!(
            found.directories,
            [root.join("home/bin"), root.join("node/bin")].map(|path| path.to_str().unwrap().to_owned())
        );
    }

    #[test]
    fn what_is_not_there_is_an_error_that_says_where_it_was_looked_for() {
        let places = Places { search: "/usr/bin:/bin", workspace: Path::new("/tmp"), ..places("/") };
        for name in ["no-such-program", "./no-such-program", "/etc/passwd", "/usr", ""] {
            let error = places.resolve(name.as_ref()).unwrap_err();
            assert!(matches!(error, Error::CommandNotFound { .. }), "{name}: {error}");
        }
    }
}
