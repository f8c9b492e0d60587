//! `keyferry doctor`: real clients in real sandboxes, against a service that knows whether a credential is the real one.

mod direct;
mod names;
mod probes;
mod report;
mod service;
mod verdict;
mod world;

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyferry_sandbox::{Attach, Attached, Exit, Limits, Workspace};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep;

pub(crate) use self::direct::tell_ways_out;
pub(crate) use self::probes::names;
use self::probes::{PROBES, Probe};
use self::report::{Check, Finding};
pub(crate) use self::report::{Report, State};
use self::verdict::{Attempt, judge};
use self::world::World;
use crate::environment;
use crate::failure::Failure;
use crate::sandboxed::{Job, Made, Sandboxes};

/// What an operator says.
pub(crate) struct Wanted {
    /// The names of clients; all of them, if empty.
    pub(crate) only: Vec<String>,
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// How long one client may take.
    pub(crate) time: Duration,
}

/// Of what a client says, that is kept.
const LONGEST_WORDS: u64 = 256 * 1024;

/// Looks at this machine, unless it is `interrupted`. Nothing is left of it.
pub(crate) async fn examine(
    wanted: &Wanted,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, Failure> {
    let world = World::create().await?;
    let report = tokio::select! {
        report = look(&world, wanted) => report,
        () = interrupted => Err(Failure::fatal("it was interrupted")),
    };
    world.end(report.is_err()).await;
    report
}

async fn look(world: &World, wanted: &Wanted) -> Result<Report, Failure> {
    let mut report = Report::default();
    let sandboxes = match Sandboxes::of(world.keyferry()) {
        Ok(sandboxes) => sandboxes,
        Err(failure) => {
            report.checks.push(Check::failed("bubblewrap", failure.message()));
            return Ok(report);
        }
    };
    report.checks.push(Check::ok("bubblewrap", "is installed"));
    let patient = Patient { world, wanted, sandboxes };
    if patient.examine_the_sandbox(&mut report.checks).await? {
        report.clients = patient.try_clients().await?;
    }
    Ok(report)
}

/// A machine's sandboxes.
struct Patient<'a> {
    world: &'a World,
    wanted: &'a Wanted,
    sandboxes: Sandboxes<'a>,
}

/// What a command said in its sandbox.
struct Said {
    exit: Exit,
    stdout: String,
    stderr: String,
}

impl Patient<'_> {
    /// Whether there can be sandboxes at all.
    async fn examine_the_sandbox(&self, checks: &mut Vec<Check>) -> Result<bool, Failure> {
        let this =
            std::env::current_exe().map_err(|error| Failure::fatal(format!("this binary: {error}")))?;
        let port = self.world.service.port().to_string();
        let words = [this.into_os_string(), "doctor".into(), "--from-inside".into(), port.into()];
        let made = match self.make("sandbox", words.into()).await {
            Ok(made) => made,
            Err(failure) => {
                checks.push(Check::failed("isolation", failure.message()));
                return Ok(false);
            }
        };
        let warnings: Vec<String> = made.warnings().iter().map(ToString::to_string).collect();
        let said = match run(made).await {
            Ok(said) => said,
            Err(failure) => {
                checks.push(Check::failed("isolation", failure.message()));
                return Ok(false);
            }
        };
        checks
            .push(Check::ok("isolation", "namespaces and the filter of system calls are as they should be"));
        checks.push(match warnings.as_slice() {
            [] => Check::ok("limits", "memory and processes are limited by cgroups"),
            some => Check::note("limits", &some.join("; ")),
        });
        checks.push(match said.exit {
            Exit::Code(0) => Check::ok("network", "nothing but the proxy can be reached"),
            Exit::Code(_) | Exit::Signal(_) | Exit::TimeLimit | Exit::Killed => {
                let told = [said.stdout.trim(), said.stderr.trim()].join(" ");
                Check::failed("network", &format!("a sandbox has another way out: {}", told.trim()))
            }
        });
        Ok(true)
    }

    /// In the order of the table.
    async fn try_clients(&self) -> Result<Vec<Finding>, Failure> {
        let only = &self.wanted.only;
        let chosen: Vec<&Probe> = PROBES
            .iter()
            .filter(|probe| only.is_empty() || only.iter().any(|name| name == probe.name))
            .collect();
        let waiting = RefCell::new(chosen.iter().enumerate());
        let found = RefCell::new(Vec::new());
        let next = || waiting.borrow_mut().next();
        let work = || async {
            while let Some((place, probe)) = next() {
                let finding = self.try_client(probe).await?;
                found.borrow_mut().push((place, finding));
            }
            Ok::<_, Failure>(())
        };
        // Three at a time: the machine is to be examined, not exhausted.
        tokio::try_join!(work(), work(), work())?;
        let mut found = found.into_inner();
        found.sort_by_key(|(place, _)| *place);
        Ok(found.into_iter().map(|(_, finding)| finding).collect())
    }

    async fn try_client(&self, probe: &Probe) -> Result<Finding, Failure> {
        let words = ["sh", "-c", &probe.command()].map(OsString::from);
        let said = run(self.make(probe.name, words.into()).await?).await?;
        let service = &self.world.service;
        let arrived = service.arrived(probe.name);
        // A record is written after the answer, by another process.
        let mut record = self.world.record_of(&service.host(probe.name));
        for _ in 0..10 {
            if record.is_some() || arrived.any() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
            record = self.world.record_of(&service.host(probe.name));
        }
        let attempt = Attempt { said, arrived, record, time: self.wanted.time };
        let mut finding = judge(probe, &attempt);
        if finding.state == State::Absent
            && let Some(path) = unseen(probe.name)
        {
            let path = path.display();
            finding.what = format!(
                "is on this machine ({path}), and sandboxes do not show it: --ro and --env PATH=… do"
            );
        }
        Ok(finding)
    }

    /// A sandbox as `keyferry run` makes one.
    async fn make(&self, name: &str, command: Vec<OsString>) -> Result<Made<'_>, Failure> {
        let service = &self.world.service;
        let own = [
            ("DOCTOR_HOST", service.authority(name)),
            ("DOCTOR_URL", format!("https://{}/hello", service.authority(name))),
        ];
        let own = own.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let job = Job {
            command,
            workspace: Workspace { path: self.world.workspace(name)?, allow_sockets: false },
            read_only: self.wanted.read_only.clone(),
            variables: own.chain(self.wanted.variables.iter().cloned()).collect(),
            limits: Limits { wall_clock: Some(self.wanted.time), ..Limits::default() },
        };
        self.sandboxes.make(world::PRINCIPAL, job).await
    }
}

/// A program that is found here, and not where sandboxes look.
fn unseen(name: &str) -> Option<PathBuf> {
    let search = environment::variable("PATH")?;
    let usual: Vec<&str> = keyferry_sandbox::PATH.split(':').collect();
    let directories =
        search.split(':').filter(|directory| directory.starts_with('/') && !usual.contains(directory));
    directories.map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

/// Runs a command without input to its end, and removes its sandbox.
async fn run(mut made: Made<'_>) -> Result<Said, Failure> {
    let Attached::Pipes(pipes) = made.start(Attach::Pipes).await? else {
        return Err(Failure::fatal("a sandbox has no pipes"));
    };
    drop(pipes.stdin);
    let (exit, stdout, stderr) = tokio::join!(made.wait(), words(pipes.stdout), words(pipes.stderr));
    let exit = exit?;
    made.delete().await?;
    Ok(Said { exit, stdout, stderr })
}

/// All of it is read, so that nobody waits for a reader; so much of it is kept.
async fn words(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let _ = (&mut from).take(LONGEST_WORDS).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}
