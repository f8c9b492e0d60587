//! The second stage: the first process of the sandbox. When it ends, the kernel ends all others.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal as Number, WaitOptions, getrlimit, getuid, kill_process,
    kill_process_group, set_dumpable_behavior, setrlimit, wait,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};
use tokio::time::Instant;

use super::{Broken, Instruction, Order, Report, descriptors, forward, line, seccomp};
use crate::driver::Signal;
use crate::layout;

/// Runs the sandbox from the inside, until the command has ended, its time is over, or nobody waits for it any more.
///
/// # Errors
/// When the sandbox is not isolated as it should be, or the system refuses what the init needs.
pub fn init() -> Result<(), Broken> {
    check_isolation()?;
    // bubblewrap closes what it mounted; a descriptor of the host's would lead out of every namespace.
    descriptors::close_above(layout::COMMAND_STDERR).map_err(Broken::at("close inherited descriptors"))?;
    let order = Order::read()?;
    let stdio = Stdios::take(order.terminal).map_err(Broken::at("take the command's input and output"))?;
    let control =
        rustix::stdio::stdin().try_clone_to_owned().map_err(Broken::at("take the control channel"))?;
    descriptors_for_connections()?;
    let listeners = forward::listen()?;
    // The command has this process's user: without this it could write to its memory through /proc.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Broken::at("hide its memory")(error.into()))?;
    seccomp::apply()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Broken::at("start its loop"))?;
    runtime.block_on(async {
        for listener in listeners {
            drop(tokio::spawn(forward::serve(listener)));
        }
        supervise(control, &order, stdio).await
    })
}

/// bubblewrap was told to; this is whether it did.
fn check_isolation() -> Result<(), Broken> {
    let found = |found: String| Err(Broken::NotIsolated { found });
    if getuid().is_root() {
        return found("it runs as root".to_owned());
    }
    if std::process::id() != 1 {
        return found("it has no processes of its own".to_owned());
    }
    let status = fs::read_to_string("/proc/self/status").map_err(Broken::at("read its own status"))?;
    for field in status.lines().filter(|line| line.starts_with("Cap") || line.starts_with("NoNewPrivs")) {
        let (name, value) = field.split_once(':').unwrap_or((field, ""));
        let expected = if name == "NoNewPrivs" { 1 } else { 0 };
        if u64::from_str_radix(value.trim(), 16) != Ok(expected) {
            return found(format!("{name} is {}", value.trim()));
        }
    }
    let interfaces = fs::read_to_string("/proc/self/net/dev").map_err(Broken::at("read its interfaces"))?;
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim().to_owned());
    match interfaces.lines().filter_map(name).find(|name| name != "lo") {
        // The kernel adds its tunnels' templates to every new namespace where their modules are loaded. They are down, and lead nowhere.
        Some(other) if !TEMPLATES.contains(&other.as_str()) => found(format!("it has the interface {other}")),
        Some(_) | None => Ok(()),
    }
}

const TEMPLATES: [&str; 8] =
    ["tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6tnl0", "ip6_vti0"];

/// Each connection to the proxy takes two.
fn descriptors_for_connections() -> Result<(), Broken> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|error| Broken::at("raise the number of descriptors")(error.into()))
}

struct Stdios {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Stdios {
    /// Opens what the driver gave once more, so that it is ours to give away, and closes what was given.
    fn take(terminal: bool) -> io::Result<Self> {
        let open = |number: i32, read: bool, write: bool| {
            let path = format!("/proc/self/fd/{number}");
            File::options().read(read).write(write).custom_flags(libc::O_NOCTTY).open(path).map(OwnedFd::from)
        };
        let taken = Self {
            stdin: open(layout::COMMAND_STDIN, true, terminal)?,
            stdout: open(layout::COMMAND_STDOUT, terminal, true)?,
            stderr: open(layout::COMMAND_STDERR, terminal, true)?,
        };
        for number in [layout::COMMAND_STDIN, layout::COMMAND_STDOUT, layout::COMMAND_STDERR] {
            nix::unistd::close(number)?;
        }
        Ok(taken)
    }
}

async fn supervise(control: OwnedFd, order: &Order, stdio: Stdios) -> Result<(), Broken> {
    let control = std::os::unix::net::UnixStream::from(control);
    control.set_nonblocking(true).map_err(Broken::at("take the control channel"))?;
    let (instructions, mut reports) =
        UnixStream::from_std(control).map_err(Broken::at("take the control channel"))?.into_split();
    // Before the command starts, or its end could be missed.
    let children = signal(SignalKind::child()).map_err(Broken::at("receive signals"))?;
    let arriving = Arriving::listen().map_err(Broken::at("receive signals"))?;
    let command = Command::new(layout::INIT)
        .args(["sandbox-init", "launch"])
        .env_clear()
        .stdin(Stdio::from(stdio.stdin))
        .stdout(Stdio::from(stdio.stdout))
        .stderr(Stdio::from(stdio.stderr))
        .spawn()
        .map_err(Broken::at("start the command"))?;
    let command = i32::try_from(command.id()).ok().and_then(Pid::from_raw);
    let command =
        command.ok_or_else(|| Broken::at("start the command")(io::ErrorKind::InvalidData.into()))?;
    // Whether anybody still listens shows in the instructions.
    let _ = reports.write_all(&line(&Report::Started)).await;
    let end = until_the_end(command, order, (children, arriving), BufReader::new(instructions).lines()).await;
    if let Some(report) = end {
        let _ = reports.write_all(&line(&report)).await;
    }
    Ok(())
}

/// What to report, if there is anybody to report to.
async fn until_the_end(
    command: Pid,
    order: &Order,
    (mut children, mut arriving): (Arrivals, Arriving),
    mut instructions: Lines<BufReader<OwnedReadHalf>>,
) -> Option<Report> {
    let deadline = order.wall_clock.map(|time| Instant::now() + time);
    loop {
        tokio::select! {
            _ = children.recv() => {
                if let Some(report) = reap(command) {
                    return Some(report);
                }
            }
            instruction = instructions.next_line() => match instruction {
                Ok(Some(line)) => match serde_json::from_str(&line) {
                    Ok(Instruction::Signal(signal)) => send(command, number(signal)),
                    Ok(Instruction::End) | Err(_) => return None,
                },
                Ok(None) | Err(_) => return None,
            },
            signal = arriving.next() => send(command, signal),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                return Some(Report::TimeLimit);
            }
        }
    }
}

/// Takes in whoever has ended, orphans too; says how the command ended.
fn reap(command: Pid) -> Option<Report> {
    let mut end = None;
    while let Ok(Some((who, status))) = wait(WaitOptions::NOHANG) {
        if who != command {
            continue;
        }
        if let Some(code) = status.exit_status() {
            end = Some(Report::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
        } else if let Some(signal) = status.terminating_signal() {
            end = Some(Report::Signal(signal));
        }
    }
    end
}

/// To the command's group, or to itself as long as it has none.
fn send(command: Pid, signal: Number) {
    if kill_process_group(command, signal).is_err() {
        let _ = kill_process(command, signal);
    }
}

fn number(signal: Signal) -> Number {
    match signal {
        Signal::HangUp => Number::HUP,
        Signal::Interrupt => Number::INT,
        Signal::Quit => Number::QUIT,
        Signal::Terminate => Number::TERM,
        Signal::Kill => Number::KILL,
        Signal::User1 => Number::USR1,
        Signal::User2 => Number::USR2,
        Signal::Stop => Number::STOP,
        Signal::Continue => Number::CONT,
    }
}

/// Signals that reach the init itself.
struct Arriving {
    terminate: Arrivals,
    interrupt: Arrivals,
    hang_up: Arrivals,
    quit: Arrivals,
}

impl Arriving {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Number {
        tokio::select! {
            _ = self.terminate.recv() => Number::TERM,
            _ = self.interrupt.recv() => Number::INT,
            _ = self.hang_up.recv() => Number::HUP,
            _ = self.quit.recv() => Number::QUIT,
        }
    }
}
