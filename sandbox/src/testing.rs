//! The suite that every driver must pass. A driver's tests call [`conformance`], or one function at a time.

#![expect(clippy::expect_used, reason = "a test that cannot go on should say so and stop")]
#![expect(clippy::panic, reason = "a test that fails should say what it saw")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{Attach, Attached, Driver, Error, Exit, Pipes, Sandbox, SandboxId, Signal, Size, Spec};

/// What a test needs of a driver's surroundings.
pub trait Bench: Sync {
    /// The driver under test.
    type Driver: Driver;

    /// The driver.
    fn driver(&self) -> &Self::Driver;

    /// An id that nobody has.
    fn fresh_id(&self) -> SandboxId;

    /// A sandbox that can be made, in an empty workspace of its own, with the usual environment and a living proxy, which runs `command`.
    fn spec(&self, command: &[&str]) -> Spec;
}

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Outcome {
    /// A command that ended well and said this.
    #[must_use]
    pub fn said(stdout: &str) -> Self {
        Self { exit: Exit::Code(0), stdout: stdout.to_owned(), stderr: String::new() }
    }
}

/// For what should take no time at all, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that a driver owes.
pub async fn conformance<B: Bench>(bench: &B) {
    a_command_ends_with_its_code_and_what_it_wrote(bench).await;
    a_command_reads_what_it_is_given(bench).await;
    arguments_arrive_as_they_are(bench).await;
    the_environment_is_what_was_asked_for_and_nothing_else(bench).await;
    a_signal_reaches_the_command_and_ends_it(bench).await;
    time_runs_out(bench).await;
    a_terminal_is_one(bench).await;
    the_command_is_nobody_in_particular(bench).await;
    what_is_written_outside_of_the_workspace_is_gone_and_what_is_inside_stays(bench).await;
    orphans_end_with_the_command(bench).await;
    a_sandbox_starts_once_and_its_id_is_its_own(bench).await;
    what_was_left_is_listed_and_reaped(bench).await;
    what_cannot_run_is_refused(bench).await;
}

/// Runs `spec` to its end, without input.
///
/// # Panics
/// When it cannot be run.
pub async fn run<B: Bench>(bench: &B, spec: Spec) -> Outcome {
    let mut sandbox = bench.driver().create(bench.fresh_id(), spec).await.expect("the sandbox is made");
    let pipes = piped(&mut sandbox).await;
    drop(pipes.stdin);
    let outcome = outcome(&mut sandbox, pipes.stdout, pipes.stderr).await;
    sandbox.delete().await.expect("the sandbox is deleted");
    outcome
}

/// Runs a shell's script in a sandbox.
///
/// # Panics
/// When it cannot be run.
pub async fn script<B: Bench>(bench: &B, script: &str) -> Outcome {
    run(bench, bench.spec(&["sh", "-c", script])).await
}

async fn piped(sandbox: &mut impl Sandbox) -> Pipes {
    match sandbox.start(Attach::Pipes).await.expect("the sandbox starts") {
        Attached::Pipes(pipes) => pipes,
        Attached::Terminal(_) => panic!("pipes were asked for"),
    }
}

async fn outcome(
    sandbox: &mut impl Sandbox,
    mut stdout: impl AsyncRead + Unpin,
    mut stderr: impl AsyncRead + Unpin,
) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async {
        let (exit, out, err) =
            tokio::join!(sandbox.wait(), stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        out.expect("its output is read");
        err.expect("its complaints are read");
        exit.expect("it ends")
    };
    let exit = tokio::time::timeout(PATIENCE, all).await.expect("it ends in time");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { exit, stdout: text(out), stderr: text(err) }
}

/// Output, complaints and exit code are told apart; no code is lost.
pub async fn a_command_ends_with_its_code_and_what_it_wrote<B: Bench>(bench: &B) {
    let outcome = script(bench, "echo out; echo err >&2; exit 203").await;
    let expected = Outcome { exit: Exit::Code(203), stdout: "out\n".to_owned(), stderr: "err\n".to_owned() };
    assert_eq!(outcome, expected);
    let outcome = script(bench, "kill -SEGV $$").await;
    assert_eq!(outcome.exit, Exit::Signal(11));
}

/// A mebibyte each way, and the end of input is heard.
pub async fn a_command_reads_what_it_is_given<B: Bench>(bench: &B) {
    let mut sandbox =
        bench.driver().create(bench.fresh_id(), bench.spec(&["cat"])).await.expect("the sandbox is made");
    let mut pipes = piped(&mut sandbox).await;
    let given = "0123456789abcdef".repeat(65_536);
    let mut stdin = pipes.stdin;
    let sent = given.clone();
    let writer = tokio::spawn(async move { stdin.write_all(sent.as_bytes()).await });
    let outcome = outcome(&mut sandbox, &mut pipes.stdout, &mut pipes.stderr).await;
    writer.await.expect("the writer ends").expect("all is written");
    assert!(outcome == Outcome::said(&given), "{} bytes came back, {:?}", outcome.stdout.len(), outcome.exit);
    sandbox.delete().await.expect("the sandbox is deleted");
}

/// Whatever bytes they hold, and however many there are.
pub async fn arguments_arrive_as_they_are<B: Bench>(bench: &B) {
    let hostile =
        ["", "--", "-c", "$(id)", "`id`", "a b", "'\"", "line\nbreak", "*", "--bind", "é", "\u{1b}[2J"];
    let mut spec = bench.spec(&["printf", "[%s]"]);
    spec.command.extend(hostile.iter().map(OsString::from));
    spec.command.push(std::os::unix::ffi::OsStringExt::from_vec(vec![0xff, 0xfe]));
    let shown: String = hostile.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(run(bench, spec).await, Outcome::said(&format!("{shown}[\u{fffd}\u{fffd}]")));
    let mut long = bench.spec(&["sh", "-c", "echo $#", "sh"]);
    long.command.extend(std::iter::repeat_n(OsString::from("x".repeat(100)), 5_000));
    assert_eq!(run(bench, long).await, Outcome::said("5000\n"));
}

/// What the driver's own process knows is not among it.
pub async fn the_environment_is_what_was_asked_for_and_nothing_else<B: Bench>(bench: &B) {
    let spec = bench.spec(&["env", "-0"]);
    let expected: BTreeSet<String> = spec
        .environment
        .iter()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    let outcome = run(bench, spec).await;
    let seen: BTreeSet<String> = outcome.stdout.split_terminator('\0').map(str::to_owned).collect();
    assert_eq!(seen, expected);
}

/// One that it can handle is its own to handle, one that it cannot ends it; a signal to who has ended is no error.
pub async fn a_signal_reaches_the_command_and_ends_it<B: Bench>(bench: &B) {
    let handles = ["sh", "-c", "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done"];
    for (command, signal, expected) in [
        (&handles[..], Signal::Terminate, Exit::Code(7)),
        (&["sh", "-c", "echo ready; exec sleep 1000"][..], Signal::Interrupt, Exit::Signal(2)),
        (
            &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"][..],
            Signal::Kill,
            Exit::Signal(9),
        ),
    ] {
        let mut sandbox =
            bench.driver().create(bench.fresh_id(), bench.spec(command)).await.expect("the sandbox is made");
        let mut pipes = piped(&mut sandbox).await;
        let mut ready = [0; 6];
        pipes.stdout.read_exact(&mut ready).await.expect("it says that it is ready");
        sandbox.signal(signal).await.expect("the signal is sent");
        let outcome = outcome(&mut sandbox, pipes.stdout, pipes.stderr).await;
        assert_eq!(outcome.exit, expected, "{signal:?}");
        sandbox.signal(signal).await.expect("nobody is there any more");
        sandbox.delete().await.expect("the sandbox is deleted");
    }
}

/// However the command feels about it.
pub async fn time_runs_out<B: Bench>(bench: &B) {
    let mut spec = bench.spec(&["sh", "-c", "trap '' TERM INT HUP; echo on; while :; do sleep 0.05; done"]);
    spec.limits.wall_clock = Some(Duration::from_millis(700));
    let outcome = run(bench, spec).await;
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::TimeLimit, "on\n"));
}

/// It has a size, it can be resized, it controls its session, and Ctrl-C interrupts.
pub async fn a_terminal_is_one<B: Bench>(bench: &B) {
    let script = "trap 'stty size; exit 3' INT; test -t 0 && test -t 1 && test -t 2 && stty size </dev/tty; tty; \
                  while :; do sleep 0.05; done";
    let spec = bench.spec(&["sh", "-c", script]);
    let mut sandbox = bench.driver().create(bench.fresh_id(), spec).await.expect("the sandbox is made");
    let attached = sandbox.start(Attach::Terminal(Size { rows: 33, columns: 77 })).await.expect("it starts");
    let Attached::Terminal(mut terminal) = attached else { panic!("a terminal was asked for") };
    let mut seen = String::new();
    let all = async {
        let mut piece = [0; 256];
        let mut interrupted = false;
        loop {
            let read = terminal.read(&mut piece).await.expect("the terminal is read");
            if read == 0 {
                return;
            }
            seen.push_str(&String::from_utf8_lossy(&piece[..read]));
            if seen.contains("/dev/console") && !interrupted {
                interrupted = true;
                terminal.resize(Size { rows: 11, columns: 22 }).expect("it is resized");
                terminal.write_all(b"\x03").await.expect("Ctrl-C is typed");
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the terminal ends in time");
    let exit = sandbox.wait().await.expect("it ends");
    assert_eq!((seen.as_str(), exit), ("33 77\r\n/dev/console\r\n^C11 22\r\n", Exit::Code(3)));
    sandbox.delete().await.expect("the sandbox is deleted");
}

/// Neither root nor able to become it.
pub async fn the_command_is_nobody_in_particular<B: Bench>(bench: &B) {
    let fields = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t\\n'";
    let zero = "0000000000000000";
    let expected = format!(
        "user\nCapInh:{zero}CapPrm:{zero}CapEff:{zero}CapBnd:{zero}CapAmb:{zero}NoNewPrivs:1Seccomp:2"
    );
    let outcome =
        script(bench, &format!("test $(id -u) -ne 0 && test $(id -g) -ne 0 && echo user; {fields}")).await;
    assert_eq!(outcome, Outcome::said(&expected));
}

/// The workspace is the only place that outlives a sandbox.
pub async fn what_is_written_outside_of_the_workspace_is_gone_and_what_is_inside_stays<B: Bench>(bench: &B) {
    let mark = format!("mark-{}", bench.fresh_id());
    let spec = bench.spec(&[
        "sh",
        "-c",
        &format!("echo kept > kept; echo x > /tmp/{mark} && echo x > ~/{mark} && pwd -P"),
    ]);
    let workspace = spec.workspace.path.clone();
    let outcome = run(bench, spec).await;
    assert_eq!(outcome, Outcome::said(&format!("{}\n", workspace.display())));
    assert_eq!(std::fs::read_to_string(workspace.join("kept")).expect("it is there"), "kept\n");
    let left: Vec<_> = std::fs::read_dir(&workspace)
        .expect("it is a directory")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["kept"]);
    let again = script(
        bench,
        &format!("ls /tmp ~ | grep {mark}; test ! -e {}", std::env::temp_dir().join(&mark).display()),
    )
    .await;
    assert_eq!(again, Outcome { exit: Exit::Code(0), ..Outcome::said("") });
}

/// What the command leaves running does not run on, and does not keep the sandbox open.
pub async fn orphans_end_with_the_command<B: Bench>(bench: &B) {
    let outcome = script(
        bench,
        "for i in 1 2 3; do (setsid sleep 1000 >/dev/null 2>&1 &) ; done; true & wait; echo done",
    )
    .await;
    assert_eq!(outcome, Outcome::said("done\n"));
}

/// A second start and a second sandbox of one name are refused; what was not started is not waited for.
pub async fn a_sandbox_starts_once_and_its_id_is_its_own<B: Bench>(bench: &B) {
    let id = bench.fresh_id();
    let mut first =
        bench.driver().create(id.clone(), bench.spec(&["true"])).await.expect("the sandbox is made");
    let second = bench.driver().create(id.clone(), bench.spec(&["true"])).await.err();
    assert!(matches!(second, Some(Error::Exists { .. })), "{second:?}");
    let early = first.wait().await;
    assert!(matches!(early, Err(Error::State { .. })), "{early:?}");
    let pipes = piped(&mut first).await;
    let again = first.start(Attach::Pipes).await.err();
    assert!(matches!(again, Some(Error::State { .. })), "{again:?}");
    assert_eq!(outcome(&mut first, pipes.stdout, pipes.stderr).await, Outcome::said(""));
    first.delete().await.expect("the sandbox is deleted");
    let third = bench.driver().create(id, bench.spec(&["true"])).await.expect("the id is free again");
    third.delete().await.expect("what never started is deleted too");
}

/// A sandbox that is dropped is dead, and what it left is found by who comes after; one that lives is left alone.
pub async fn what_was_left_is_listed_and_reaped<B: Bench>(bench: &B) {
    let (lost, alive) = (bench.fresh_id(), bench.fresh_id());
    let create = |id: &SandboxId| {
        bench.driver().create(id.clone(), bench.spec(&["sh", "-c", "echo on; exec sleep 1000"]))
    };
    let mut dropped = create(&lost).await.expect("the sandbox is made");
    let mut kept = create(&alive).await.expect("the sandbox is made");
    let mut output = piped(&mut dropped).await.stdout;
    let kept_pipes = piped(&mut kept).await;
    drop(dropped);
    let mut rest = String::new();
    let ended = tokio::time::timeout(PATIENCE, output.read_to_string(&mut rest)).await;
    ended.expect("it has ended").expect("its output is read");

    let leftovers = bench.driver().leftovers().await.expect("leftovers are listed");
    assert!(leftovers.contains(&lost) && !leftovers.contains(&alive), "{leftovers:?}");
    for id in [&lost, &lost, &alive] {
        bench.driver().reap(id).await.expect("it is reaped, or left alone");
    }
    let leftovers = bench.driver().leftovers().await.expect("leftovers are listed");
    assert!(!leftovers.contains(&lost), "{leftovers:?}");
    kept.signal(Signal::Terminate).await.expect("it still lives");
    let outcome = outcome(&mut kept, kept_pipes.stdout, kept_pipes.stderr).await;
    assert_eq!(outcome.exit, Exit::Signal(15));
    kept.delete().await.expect("the sandbox is deleted");
}

/// With an error that says why, and nothing left of the attempt.
pub async fn what_cannot_run_is_refused<B: Bench>(bench: &B) {
    let with = |change: fn(&mut Spec)| {
        let mut spec = bench.spec(&["true"]);
        change(&mut spec);
        spec
    };
    for (what, spec) in [
        ("no command", bench.spec(&[])),
        ("no such program", bench.spec(&["no-such-program-anywhere"])),
        ("a NUL in an argument", bench.spec(&["true", "a\0b"])),
        ("the whole file system as workspace", with(|spec| spec.workspace.path = "/".into())),
        ("a workspace that is not there", with(|spec| spec.workspace.path.push("missing"))),
        ("no proxy", with(|spec| spec.proxy_socket.push("missing"))),
        ("no certificates", with(|spec| spec.ca_bundle.clear())),
        ("a limit that nothing runs under", with(|spec| spec.limits.memory = Some(1))),
    ] {
        let id = bench.fresh_id();
        let refused = bench.driver().create(id.clone(), spec).await;
        assert!(refused.is_err(), "{what}");
        drop(refused);
        let leftovers = bench.driver().leftovers().await.expect("leftovers are listed");
        assert!(!leftovers.contains(&id), "{what} left something");
    }
}
