//! The local driver: bubblewrap, on this machine, as root or as an ordinary user.

mod cgroup;
mod command;
mod mounts;
mod record;
mod refusal;
mod running;
mod seen;
mod spawner;
mod workspace;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use self::cgroup::{Cgroups, Controller, Standing};
use self::command::Places;
use self::mounts::{Arguments, Mount};
use self::record::{Owned, Records};
pub use self::running::LocalSandbox;
use self::seen::Seen;
use self::spawner::Spawner;
use self::workspace::{KeptApart, Protection};
use crate::driver::{Driver, Warning};
use crate::error::Error;
use crate::inside::Order;
use crate::spec::{Limits, SandboxId, Spec};
use crate::{layout, trust_store};

/// What the driver must know of its host.
#[derive(Clone, Debug)]
pub struct Host {
    /// A directory of the driver's own, for its records.
    pub state: PathBuf,
    /// The program that has `sandbox-init`: keyferry itself.
    pub keyferry: PathBuf,
    /// Where programs are looked for, as in `PATH`.
    pub search_path: String,
    /// The home of who runs this: never shown as a whole.
    pub home: Option<PathBuf>,
}

/// Makes sandboxes with bubblewrap. They end when the driver and all that it made are gone.
#[derive(Clone, Debug)]
pub struct LocalDriver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    host: Host,
    bubblewrap: PathBuf,
    records: Records,
    spawner: Spawner,
}

impl LocalDriver {
    /// Looks whether this host has what is needed.
    ///
    /// # Errors
    /// When bubblewrap is missing, or the directory for records cannot be used.
    pub fn new(host: Host) -> Result<Self, Error> {
        let nothing = KeptApart::new(&[]);
        let nowhere =
            Places { search: &host.search_path, home: None, workspace: Path::new("/"), kept_apart: &nothing };
        let bubblewrap = nowhere
            .resolve("bwrap".as_ref())
            .map_err(|_| Error::BubblewrapMissing { searched: host.search_path.clone() })?
            .path;
        let records = Records::open(&host.state)?;
        let spawner = Spawner::start().map_err(Error::io("start a thread for", &host.state))?;
        Ok(Self(Arc::new(Shared { host, bubblewrap, records, spawner })))
    }
}

impl Driver for LocalDriver {
    type Sandbox = LocalSandbox;

    async fn create(&self, id: SandboxId, spec: Spec) -> Result<LocalSandbox, Error> {
        let shared = Arc::clone(&self.0);
        blocking(move || LocalSandbox::prepare(shared, &id, spec)).await
    }

    async fn leftovers(&self) -> Result<Vec<SandboxId>, Error> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.records.leftovers()).await
    }

    async fn reap(&self, id: &SandboxId) -> Result<(), Error> {
        let (shared, id) = (Arc::clone(&self.0), id.clone());
        blocking(move || shared.records.reap(&id)).await
    }
}

/// Files and directories are looked at where that may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::State { problem: "could not be handled: the program is ending" }),
    }
}

impl LocalSandbox {
    fn prepare(shared: Arc<Shared>, id: &SandboxId, spec: Spec) -> Result<Self, Error> {
        check(&spec)?;
        let trust_store = trust_store::from_pem(&spec.ca_bundle)?;
        let host = &shared.host;
        let ours = [shared.records.path(), spec.proxy_socket.as_path(), host.keyferry.as_path()];
        // Whoever can write our program runs outside the next time. Reading it harms nobody.
        let (written, read) = (KeptApart::new(&ours), KeptApart::new(&ours[..2]));
        let workspace = workspace::locate(&spec.workspace.path, host.home.as_deref(), &written)?;
        let proxy = proxy(&spec.proxy_socket)?;
        let read_only =
            spec.read_only.iter().map(|path| shown(path, &read)).collect::<Result<Vec<_>, _>>()?;
        let places = Places {
            search: &host.search_path,
            home: host.home.as_deref(),
            workspace: &workspace.path,
            kept_apart: &read,
        };
        let name = spec.command.first().map(OsString::as_os_str).unwrap_or_default();
        let program = places.resolve(name)?;
        let shown: BTreeSet<&PathBuf> = program.mounts.iter().chain(&read_only).collect();
        if !spec.workspace.allow_sockets {
            shown
                .iter()
                .copied()
                .chain([&workspace.path])
                .try_for_each(|path| workspace::refuse_sockets(path))?;
        }
        let mut environment = spec.environment;
        environment.find_programs_in(&program.directories);

        let owned = shared.records.own(id)?;
        let made = Self::furnish(&shared, &owned, id, &spec.limits, &workspace);
        let (cgroups, protected) = match made {
            Ok(made) => made,
            Err(error) => {
                // Nothing half made stays; what cannot be removed is a leftover.
                let _ = shared.records.clean(&owned);
                return Err(error);
            }
        };
        let warnings = approximations(&spec.limits, &cgroups);
        let order = Order {
            program: program.path.into(),
            command: spec.command,
            environment,
            directory: workspace.path.clone().into(),
            terminal: false,
            wall_clock: spec.limits.wall_clock,
            memory_per_process: spec.limits.memory.filter(|_| !cgroups.holds(Controller::Memory)),
            processes: spec.limits.processes.filter(|_| !cgroups.holds(Controller::Processes)),
        };
        let (uid, gid) = inside_ids();
        let arguments = || -> Result<Arguments, Error> {
            let mut arguments = Arguments::isolated(uid, gid);
            arguments.system()?;
            arguments.processes()?;
            arguments.private(spec.limits.tmp, spec.limits.home);
            own_files(&mut arguments, &owned.directory, &spec.ca_bundle, &trust_store, (uid, gid))?;
            arguments.mount(Mount::shown(&host.keyferry, layout::INIT));
            arguments.mount(proxy);
            let mut places = shown.iter().map(|path| Mount::judged(path)).collect::<Result<Vec<_>, _>>()?;
            let place = workspace.path.clone();
            places.push(Mount::Judged { seen: workspace, place, writable: true });
            // What holds others comes before them, or it would hide them.
            places.sort_by_key(|mount| mount.place().components().count());
            places.into_iter().chain(protected).for_each(|mount| arguments.mount(mount));
            Ok(arguments)
        };
        match arguments() {
            Ok(arguments) if !spec.limits.required || warnings.is_empty() => {
                Ok(Self::new(Arc::clone(&shared), owned, order, arguments, cgroups.directories, warnings))
            }
            Ok(_) => {
                shared.records.clean(&owned)?;
                let missing: Vec<String> = warnings.iter().map(Warning::to_string).collect();
                Err(Error::LimitsUnavailable { missing: missing.join("; ") })
            }
            Err(error) => {
                let _ = shared.records.clean(&owned);
                Err(error)
            }
        }
    }

    /// Makes what must be removed again. It is written down first, so that it is found whenever this ends.
    fn furnish(
        shared: &Shared,
        owned: &Owned,
        id: &SandboxId,
        limits: &Limits,
        workspace: &Seen,
    ) -> Result<(Cgroups, Vec<Mount>), Error> {
        let standing = Standing::read();
        let group = cgroup::name(shared.records.path(), id);
        // Held to the end: two that plan for one workspace at a time would make the same.
        let all = shared.records.lock()?;
        let protection = Protection::plan(workspace)?;
        owned.change(&all, |record| {
            record.workspace.clone_from(&workspace.path);
            record.cgroups = standing.possible(&group, limits);
            record.stand_ins.clone_from(&protection.stand_ins);
        })?;
        let cgroups = standing.make(&group, limits);
        Ok((cgroups, protection.carry_out(workspace)?))
    }
}

fn check(spec: &Spec) -> Result<(), Error> {
    if spec.command.is_empty() {
        return Err(Error::Command { problem: "empty" });
    }
    if spec.command.iter().any(|word| word.as_bytes().contains(&0)) {
        return Err(Error::Command { problem: "none that can be run: it holds a NUL" });
    }
    let variables = spec.environment.iter().map(|(name, value)| name.len() + value.len() + 1);
    let lengths: Vec<usize> = spec.command.iter().map(|word| word.len()).chain(variables).collect();
    if lengths.iter().any(|length| *length >= WORD) || lengths.iter().sum::<usize>() >= ALL_WORDS {
        return Err(Error::Command {
            problem: "longer than the kernel takes, with its variables: 128 KiB for one and 6 MiB for all",
        });
    }
    let limits = &spec.limits;
    for (what, given, least) in [
        ("memory", limits.memory, 32 << 20),
        ("processes", limits.processes.map(u64::from), 8),
        ("cpu", limits.cpu.map(u64::from), 10),
        ("/tmp", Some(limits.tmp), 1 << 12),
        ("the home", Some(limits.home), 1 << 12),
    ] {
        if let Some(given) = given.filter(|given| *given < least) {
            return Err(Error::Limit { what, given, least });
        }
    }
    Ok(())
}

/// The kernel's limits on the arguments and variables of a program (execve(2)), with the NUL after each.
const WORD: usize = 128 << 10;
const ALL_WORDS: usize = 6 << 20;

/// The way to the proxy: its socket, or the directory that holds it and nothing else.
fn proxy(path: &Path) -> Result<Mount, Error> {
    let problem = |problem: String| Error::ProxySocket { path: path.to_owned(), problem };
    let found = fs::metadata(path).map_err(|error| problem(error.to_string()))?;
    if !found.file_type().is_socket() {
        return Err(problem("it is something else".to_owned()));
    }
    let inside = Path::new(layout::PROXY_SOCKET);
    let (Some(directory), Some(place)) = (path.parent(), inside.parent()) else {
        return Ok(Mount::shown(path, inside));
    };
    let mut others = fs::read_dir(directory).map_err(|error| problem(error.to_string()))?;
    let alone = others.all(|entry| entry.is_ok_and(|entry| entry.path() == path));
    match alone && path.file_name() == inside.file_name() {
        true => Ok(Mount::shown(directory, place)),
        false => Ok(Mount::shown(path, inside)),
    }
}

/// A path that somebody wants to see inside: as it is, without links, so that what was judged is what is mounted.
fn shown(path: &Path, kept_apart: &KeptApart) -> Result<PathBuf, Error> {
    let problem = |problem: String| Error::ReadOnly { path: path.to_owned(), problem };
    let real = fs::canonicalize(path).map_err(|error| problem(error.to_string()))?;
    let ours = ["/proc", "/dev", "/sys", "/run/keyferry"].iter().any(|place| real.starts_with(place));
    if ours || real == Path::new("/") || real == Path::new("/run") {
        return Err(problem("it is the system's own\nhint: name the directory that is needed".to_owned()));
    }
    if kept_apart.meets(&real) {
        return Err(problem(
            "keyferry keeps its own files there\nhint: name what is needed of it".to_owned(),
        ));
    }
    Ok(real)
}

/// Ourselves, but never root.
fn inside_ids() -> (u32, u32) {
    const ORDINARY: u32 = 1000;
    let or_ordinary = |id: u32| if id == 0 { ORDINARY } else { id };
    (or_ordinary(rustix::process::geteuid().as_raw()), or_ordinary(rustix::process::getegid().as_raw()))
}

/// Which limits only hold in part.
fn approximations(limits: &Limits, cgroups: &Cgroups) -> Vec<Warning> {
    let missing = |asked: bool, controller| asked && !cgroups.holds(controller);
    let mut warnings = Vec::new();
    if missing(limits.memory.is_some(), Controller::Memory) {
        warnings.push(Warning::MemoryPerProcess);
    }
    // The kernel counts an ordinary user's processes for each user namespace, and root's not at all.
    if missing(limits.processes.is_some(), Controller::Processes) && rustix::process::geteuid().is_root() {
        warnings.push(Warning::ProcessesUnlimited);
    }
    if missing(limits.cpu.is_some(), Controller::Cpu) {
        warnings.push(Warning::CpuUnlimited);
    }
    warnings
}

/// Files that are not the host's: accounts, names, and whom to trust.
fn own_files(
    arguments: &mut Arguments,
    directory: &Path,
    ca_bundle: &str,
    trust_store: &[u8],
    (uid, gid): (u32, u32),
) -> Result<(), Error> {
    let (user, home) = (layout::USER, layout::HOME);
    let passwd = format!(
        "{user}:x:{uid}:{gid}:{user}:{home}:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    );
    let group = format!("{user}:x:{gid}:\nnogroup:x:65534:\n");
    let mut put = |name: &str, content: &[u8], places: &[&str]| -> Result<(), Error> {
        let path = directory.join(name);
        write_new(&path, content)?;
        places.iter().for_each(|place| arguments.mount(Mount::shown(&path, *place)));
        Ok(())
    };
    put("passwd", passwd.as_bytes(), &["/etc/passwd"])?;
    put("group", group.as_bytes(), &["/etc/group"])?;
    put("hosts", b"127.0.0.1 localhost sandbox\n::1 localhost sandbox\n", &["/etc/hosts"])?;
    put("hostname", b"sandbox\n", &["/etc/hostname"])?;
    // There is nobody to ask for names: the proxy resolves them. Not asking fails at once.
    put(
        "nsswitch.conf",
        b"passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
        &["/etc/nsswitch.conf"],
    )?;
    put(
        "ca-bundle.pem",
        ca_bundle.as_bytes(),
        &[&[layout::CA_BUNDLE][..], &layout::CA_BUNDLE_ELSEWHERE].concat(),
    )?;
    put("cacerts", trust_store, &[layout::TRUST_STORE])
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("write", path))?;
    std::io::Write::write_all(&mut file, content).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_only_holds_in_part_is_told() {
        let all = Limits { cpu: Some(500), ..Limits::default() };
        let held = Cgroups {
            held: vec![Controller::Memory, Controller::Processes, Controller::Cpu],
            ..Cgroups::default()
        };
        assert_eq!(approximations(&all, &held), []);
        let mut told = approximations(&all, &Cgroups::default());
        // Whether processes are limited without a cgroup depends on who asks.
        told.retain(|warning| *warning != Warning::ProcessesUnlimited);
        assert_eq!(told, [Warning::MemoryPerProcess, Warning::CpuUnlimited]);
        let none = Limits { memory: None, processes: None, cpu: None, ..Limits::default() };
        assert_eq!(approximations(&none, &Cgroups::default()), []);
    }
}
