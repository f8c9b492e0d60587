//! Limits on all processes of a sandbox together, where cgroups of either version can be made.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::spec::{Limits, SandboxId};

/// What was made for one sandbox.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroups {
    pub(super) directories: Vec<PathBuf>,
    /// What is limited.
    pub(super) held: Vec<Controller>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Processes,
    Cpu,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
            Self::Cpu => "cpu",
        }
    }

    /// The file that sets the limit, and what to write: version 1, then 2.
    fn settings(self, limits: &Limits) -> Option<[(&'static str, String); 2]> {
        match self {
            Self::Memory => limits.memory.map(|bytes| {
                [("memory.limit_in_bytes", bytes.to_string()), ("memory.max", bytes.to_string())]
            }),
            Self::Processes => limits
                .processes
                .map(|count| [("pids.max", count.to_string()), ("pids.max", count.to_string())]),
            Self::Cpu => limits.cpu.map(|thousandths| {
                let quota = u64::from(thousandths) * 100;
                [("cpu.cfs_quota_us", quota.to_string()), ("cpu.max", format!("{quota} 100000"))]
            }),
        }
    }
}

/// What the groups of a sandbox are called. Ids are unique among those with one directory of records, and groups on the whole machine: who
/// makes a sandbox that another keyferry has by the same id must not share its groups, nor end what is in them.
pub(super) fn name(records: &Path, id: &SandboxId) -> String {
    let mut hasher = DefaultHasher::new();
    records.hash(&mut hasher);
    format!("keyferry-{:016x}-{id}", hasher.finish())
}

/// Where this process stands: the contents of `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub(super) struct Standing {
    pub(super) groups: String,
    pub(super) mounts: String,
}

impl Standing {
    pub(super) fn read() -> Self {
        // A system that does not say has none.
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self { groups: read("/proc/self/cgroup"), mounts: read("/proc/self/mountinfo") }
    }

    /// Every group of that name that [`Standing::make`] may make.
    pub(super) fn possible(&self, name: &str, limits: &Limits) -> Vec<PathBuf> {
        let controllers = [Controller::Memory, Controller::Processes, Controller::Cpu];
        let asked = controllers.into_iter().filter(|controller| controller.settings(limits).is_some());
        let mut possible: Vec<PathBuf> =
            asked.filter_map(|controller| Some(self.own_v1(controller)?.join(name))).collect();
        if let Some((mount, own)) = self.own_v2() {
            let parents = own.ancestors().take_while(|parent| parent.starts_with(&mount));
            possible.extend(parents.map(|parent| parent.join(name)));
        }
        possible.sort();
        possible.dedup();
        possible
    }

    /// Makes what can be made of the limits that are set, in groups of that name.
    pub(super) fn make(&self, name: &str, limits: &Limits) -> Cgroups {
        let mut made = Cgroups::default();
        let mut unified = Vec::new();
        for controller in [Controller::Memory, Controller::Processes, Controller::Cpu] {
            let Some([first, second]) = controller.settings(limits) else { continue };
            match self.own_v1(controller) {
                Some(parent) => {
                    let directory = parent.join(name);
                    if set_up(&directory, &[first]).is_ok() {
                        made.add(directory.clone(), controller);
                        // Not built into every kernel; without it, swap is not limited.
                        if let Some(bytes) = limits.memory.filter(|_| controller == Controller::Memory) {
                            let _ =
                                fs::write(directory.join("memory.memsw.limit_in_bytes"), bytes.to_string());
                        }
                    }
                }
                None => unified.push((controller, second)),
            }
        }
        if !unified.is_empty() {
            self.make_v2(name, unified, &mut made);
        }
        made
    }

    /// Version 2 gives limits only below a group that has no processes of its own: often not ours, but one above it.
    fn make_v2(&self, name: &str, wanted: Vec<(Controller, (&'static str, String))>, made: &mut Cgroups) {
        let Some((mount, own)) = self.own_v2() else { return };
        let (controllers, settings): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
        for parent in own.ancestors().take_while(|parent| parent.starts_with(&mount)) {
            let control = parent.join("cgroup.subtree_control");
            for controller in &controllers {
                let _ = fs::write(&control, format!("+{}", controller.name()));
            }
            let enabled = fs::read_to_string(&control).unwrap_or_default();
            let has = |controller: &Controller| {
                enabled.split_whitespace().any(|name| name.trim_start_matches('+') == controller.name())
            };
            let may_move =
                rustix::fs::access(parent.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
            let directory = parent.join(name);
            if may_move && controllers.iter().all(has) && set_up(&directory, &settings).is_ok() {
                let _ = fs::write(directory.join("memory.swap.max"), "0");
                for controller in controllers {
                    made.add(directory.clone(), controller);
                }
                return;
            }
        }
    }

    fn own_v1(&self, controller: Controller) -> Option<PathBuf> {
        let has = |list: &str| list.split(',').any(|name| name == controller.name());
        let path = self.groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            has(controllers).then_some(path)
        })?;
        let (root, mount) = self.mounted(|kind, options| kind == "cgroup" && has(options))?;
        Some(below(mount, root, path))
    }

    fn own_v2(&self) -> Option<(PathBuf, PathBuf)> {
        let path = self.groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let (root, mount) = self.mounted(|kind, _| kind == "cgroup2")?;
        Some((mount.into(), below(mount, root, path)))
    }

    /// Root and place of the first mount whose type and options are right.
    fn mounted(&self, right: impl Fn(&str, &str) -> bool) -> Option<(&str, &str)> {
        self.mounts.lines().find_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut system = system.split(' ');
            let kind = system.next()?;
            let options = system.nth(1)?;
            let mut mount = mount.split(' ');
            let root = mount.nth(3)?;
            let place = mount.next()?;
            right(kind, options).then_some((root, place))
        })
    }
}

impl Cgroups {
    pub(super) fn holds(&self, controller: Controller) -> bool {
        self.held.contains(&controller)
    }

    fn add(&mut self, directory: PathBuf, controller: Controller) {
        if !self.directories.contains(&directory) {
            self.directories.push(directory);
        }
        self.held.push(controller);
    }
}

/// Kills who is left in a group and removes it.
pub(super) fn remove(directory: &Path) -> Result<(), Error> {
    const ATTEMPTS: u32 = 500;
    for attempt in 0.. {
        match fs::remove_dir(directory) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) if attempt >= ATTEMPTS => {
                return Err(Error::io("remove the cgroup", directory)(error));
            }
            Err(_) => {}
        }
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn below(mount: &str, root: &str, path: &str) -> PathBuf {
    let path = path.strip_prefix(root).filter(|_| root != "/").unwrap_or(path);
    Path::new(mount).join(path.trim_start_matches('/'))
}

fn set_up(directory: &Path, settings: &[(&str, String)]) -> io::Result<()> {
    match fs::create_dir(directory) {
        // Another controller of this sandbox in the same hierarchy, or the same id's from before.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    for (file, value) in settings {
        if let Err(error) = fs::write(directory.join(file), value) {
            let _ = fs::remove_dir(directory);
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
