//! What becomes of sandboxes when something is killed, and when an ordinary user runs them.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use keyferry_sandbox::Driver;
use keyferry_tests::authority::Authority;
use keyferry_tests::local_sandbox::{self, cgroups, inhabitants, processes};

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const RUNNER: &str = env!("CARGO_BIN_EXE_sandbox-runner");

/// Directories for the runner, and a proxy's socket.
struct Place {
    directory: tempfile::TempDir,
    _proxy: std::os::unix::net::UnixListener,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("workspace")).expect("a workspace");
        std::fs::write(directory.path().join("ca.pem"), Authority::named("sandbox test").pem())
            .expect("certificates");
        let proxy =
            std::os::unix::net::UnixListener::bind(directory.path().join("proxy.sock")).expect("a socket");
        Self { directory, _proxy: proxy }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn runner(&self, count: u32, script: &str) -> Command {
        let mut command = Command::new(RUNNER);
        command.args([KEYFERRY.as_ref(), self.path().as_os_str()]).args([&count.to_string(), script]);
        command.stdout(Stdio::piped());
        command
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: i32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs").success());
}

#[tokio::test]
async fn killing_the_parent_ends_everything_and_what_is_left_is_reaped() {
    let place = Place::new();
    let naps = format!("9{:07}", std::process::id());
    let mut parent = place.runner(2, &format!("echo on; sleep {naps} & sleep {naps}")).spawn().unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    assert_eq!([lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()], ["on", "on"]);
    wait_until("both to sleep", || processes(&format!("sleep\0{naps}")).len() == 4);
    assert!(place.path().join("workspace/.envrc").exists());

    kill(i32::try_from(parent.id()).unwrap());
    parent.wait().unwrap();

    wait_until("the end of all", || {
        processes(&naps).is_empty() && processes(place.path().to_str().unwrap()).is_empty()
    });
    let driver = local_sandbox::driver(Path::new(KEYFERRY), &place.path().join("state"));
    let leftovers = driver.leftovers().await.unwrap();
    assert_eq!(leftovers.len(), 2);
    for id in &leftovers {
        driver.reap(id).await.unwrap();
        assert_eq!(cgroups(id.as_str()), Vec::<PathBuf>::new());
    }
    assert_eq!(driver.leftovers().await.unwrap(), []);
    assert_eq!(
        std::fs::read_dir(place.path().join("workspace")).unwrap().count(),
        0,
        "the workspace is as it was"
    );
}

#[tokio::test]
async fn killing_the_command_the_init_or_bubblewrap_ends_the_sandbox_and_leaves_nothing() {
    for (who, ended) in [("sleep\0", "Signal(9)"), ("sandbox-init\0init", "Killed"), ("bwrap", "Killed")] {
        let place = Place::new();
        let naps = format!("8{:07}", std::process::id());
        let mut runner = place.runner(1, &format!("echo on; exec sleep {naps}")).spawn().unwrap();
        let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "on");
        wait_until("it to sleep", || !processes(&format!("sleep\0{naps}")).is_empty());

        let mark = if who.starts_with("sleep") { naps.clone() } else { place.path().display().to_string() };
        let parent = i32::try_from(runner.id()).unwrap();
        let inside: Vec<i32> = if who.starts_with("sandbox-init") {
            let outside = processes(&mark).into_iter().filter(|pid| *pid != parent);
            outside.flat_map(children).collect()
        } else {
            processes(&mark).into_iter().filter(|pid| *pid != parent).take(1).collect()
        };
        assert!(!inside.is_empty(), "{who} runs");
        kill(inside[0]);

        assert_eq!(lines.next().unwrap().unwrap(), ended, "{who}");
        assert!(runner.wait().unwrap().success(), "{who}");
        assert_eq!(processes(&naps), Vec::<i32>::new(), "{who}");
        let id = format!("runner-{parent}-0");
        assert_eq!(cgroups(&id), Vec::<PathBuf>::new(), "{who}");
        assert!(!place.path().join("state").join(id).exists(), "{who}");
    }
}

/// Of all its threads.
fn children(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let pids = lists.map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect());
    pids.collect::<Vec<Vec<i32>>>().concat()
}

/// As somebody who can make no cgroup: where this runs as root, as nobody.
fn as_an_ordinary_user(place: &Place) -> (Command, String) {
    let own = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("our own file");
    };
    let binaries = place.path().join("bin");
    std::fs::create_dir(&binaries).expect("a directory");
    let copy = |from: &str, name: &str| {
        let to = binaries.join(name);
        std::fs::copy(from, &to).expect("a copy");
        to
    };
    let (keyferry, runner) = (copy(KEYFERRY, "keyferry"), copy(RUNNER, "runner"));
    let mut user = own_id();
    // A directory of the host's, open in whoever starts the driver.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 7</ 9<>/dev/null; exec \"$@\"", "sh"]);
    if user == "0" {
        for path in ["", "workspace", "bin", "proxy.sock", "ca.pem"] {
            own(&place.path().join(path));
        }
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        "65534".clone_into(&mut user);
    }
    command.arg(runner).arg(keyferry).arg(place.path());
    (command, user)
}

fn own_id() -> String {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_ordinary_user_has_sandboxes_too_and_descriptors_that_were_inherited_stay_outside() {
    let place = Place::new();
    let (mut command, user) = as_an_ordinary_user(&place);
    let script = "id -u; ls /proc/self/fd | tr '\\n' ' '; env | grep -c CALLER; cat /proc/1/environ 2>&- | wc -c; echo kept > kept && cat kept";
    let output = command.env("CALLER_SECRET", "s3cret").args(["1", script]).output().unwrap();
    let expected = format!("warning: {NO_MEMORY_CGROUP}\n{user}\n0 1 2 3 0\n0\nkept\nCode(0)\n");
    assert_eq!(said(&output), (expected, String::new()));
}

#[test]
fn a_workspace_that_its_user_cannot_read_is_refused() {
    let place = Place::new();
    let (mut command, _) = as_an_ordinary_user(&place);
    let workspace = place.path().join("workspace");
    std::fs::set_permissions(&workspace, std::fs::Permissions::from_mode(0o300)).unwrap();
    let (out, err) = said(&command.args(["1", "echo ran"]).output().unwrap());
    std::fs::set_permissions(&workspace, std::fs::Permissions::from_mode(0o700)).unwrap();
    let reason = format!("{} cannot be the workspace: Permission denied", workspace.display());
    assert!(out.is_empty() && err.contains(&reason), "{out}{err}");
}

const NO_MEMORY_CGROUP: &str =
    "no memory cgroup can be made: the memory limit holds for each process, not for all together";

#[test]
fn without_cgroups_limits_hold_in_part_and_say_so() {
    let place = Place::new();
    let (mut command, _) = as_an_ordinary_user(&place);
    let script = "python3 -c 'bytearray(512 << 20)' 2>&1 | grep -c MemoryError; (for n in $(seq 60); do sleep 5 & done) 2>&1 | grep -ci fork";
    let output = command.args(["1", script, "memory=100663296", "processes=40", "cpu=500"]).output().unwrap();
    let expected = format!(
        "warning: {NO_MEMORY_CGROUP}\nwarning: no cpu cgroup can be made: processor time is not limited\n1\n1\nCode(0)\n"
    );
    assert_eq!(said(&output), (expected, String::new()));
}

#[test]
fn where_limits_are_required_and_cannot_be_had_nothing_is_made() {
    let place = Place::new();
    let (mut command, _) = as_an_ordinary_user(&place);
    let output = command.args(["1", "echo ran", "required=1"]).output().unwrap();
    let (out, err) = said(&output);
    assert_eq!(out, "");
    let reason = format!("limits are required and cannot be enforced: {NO_MEMORY_CGROUP}\nhint: run where");
    assert!(err.contains(&reason), "{err}");
    assert_eq!(listed(&place.path().join("state")), ["lock"]);
    assert_eq!(listed(&place.path().join("workspace")), [""; 0]);
}

fn listed(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A disk that fills up anywhere between the first file and the last: `DIRECTORY SIZE FREE COMMAND…`, in KiB.
const ON_A_FULL_DISK: &str = r#"
    mount -t tmpfs -o size=${2}k tmpfs "$1" && cd "$1" || exit 99
    [ "$1" = "${1%workspace}" ] || { mkdir .git && : > .git/config; }
    head -c $(( ($2 - $3) * 1024 )) /dev/zero > fill
    directory=$1; shift 3; "$@" 2>&1 & wait
    echo "left of $!: $(cd "$directory" && find . -mindepth 1 | sort | tr '\n' ' ')"
"#;

fn on_a_full_disk(place: &Place, directory: &str, free: u32, script: &str) -> String {
    let mut command = Command::new("unshare");
    if own_id() != "0" {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", ON_A_FULL_DISK, "sh"]);
    command.arg(place.path().join(directory)).args(["256", &free.to_string()]);
    command.args([RUNNER.as_ref(), KEYFERRY.as_ref(), place.path().as_os_str()]).args(["1", script]);
    said(&command.output().expect("unshare runs")).0
}

#[test]
fn a_disk_that_is_full_for_the_records_refuses_the_sandbox_and_keeps_nothing_of_it() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("state")).unwrap();
    let (mut refused, mut ran) = (0, 0);
    for free in (0..=80).step_by(4) {
        let output = on_a_full_disk(&place, "state", free, "echo ran");
        let (said, left) = output.rsplit_once("left of ").unwrap_or_else(|| panic!("{output}"));
        let (pid, left) = left.split_once(": ").unwrap();
        if said == "ran\nCode(0)\n" {
            ran += 1;
        } else {
            assert!(said.contains("No space left on device") && !said.contains("ran\n"), "{free}: {said}");
            refused += 1;
        }
        assert_eq!(left.trim_end(), "./fill ./lock", "with {free} KiB: {said}");
        assert_eq!(listed(&place.path().join("workspace")), [""; 0], "with {free} KiB");
        assert_eq!(cgroups(&format!("keyferry-runner-{pid}-")), Vec::<PathBuf>::new(), "with {free} KiB");
    }
    assert!(refused >= 5 && ran >= 2, "{refused} refused, {ran} ran");
}

#[test]
fn a_workspace_that_is_full_or_fills_up_is_the_programs_to_see_and_left_as_it_was() {
    let place = Place::new();
    let script = "head -c 1M /dev/zero > more; stat -c %s more; rm more; echo on";
    let output = on_a_full_disk(&place, "workspace", 64, script);
    let expected = "head: error writing 'standard output': No space left on device\n";
    assert!(output.contains(expected) && output.contains("on\n"), "{output}");
    assert!(
        output.contains("Code(0)\nleft of") && output.ends_with(": ./.git ./.git/config ./fill \n"),
        "{output}"
    );

    // What stands in for `.git/commondir` has two bytes: half made, it would break git.
    let output = on_a_full_disk(&place, "workspace", 0, "echo ran");
    assert!(output.contains("cannot protect") && output.contains("No space left on device"), "{output}");
    assert!(output.ends_with(": ./.git ./.git/config ./fill \n"), "{output}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Parent,
    Bubblewrap,
    Init,
}

/// Everybody of a start, at any moment of it. Reaping finds whatever is left, and a start whose sandbox died ends.
#[tokio::test]
async fn whoever_is_killed_in_the_middle_of_a_start_leaves_nothing() {
    let place = Place::new();
    let workspace = place.path().join("workspace");
    let driver = local_sandbox::driver(Path::new(KEYFERRY), &place.path().join("state"));
    let mut killed = 0;
    for round in 0..102_u64 {
        let victim = [Victim::Parent, Victim::Bubblewrap, Victim::Init][usize::try_from(round % 3).unwrap()];
        let mut runner = place.runner(1, "exec sleep 0.3").stderr(Stdio::null()).spawn().unwrap();
        let parent = i32::try_from(runner.id()).unwrap();
        let outside = || children(parent).first().copied();
        let found = || match victim {
            Victim::Parent => Some(parent),
            Victim::Bubblewrap => outside(),
            Victim::Init => outside().and_then(|outside| children(outside).first().copied()),
        };
        // From the moment at which there is somebody, 0 to 40 ms on.
        let patience = Instant::now() + Duration::from_secs(5);
        while found().is_none() && Instant::now() < patience && runner.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros((round * 7919) % 40_000));
        if let Some(pid) = found() {
            killed +=
                u32::from(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        }
        let patience = Instant::now() + Duration::from_secs(30);
        while runner.try_wait().unwrap().is_none() {
            assert!(Instant::now() < patience, "round {round}, {victim:?}: the runner hangs");
            std::thread::sleep(Duration::from_millis(2));
        }

        // One whose owner was killed is a leftover once its lock is free: a child that has not yet become a program holds it, too.
        let patience = Instant::now() + Duration::from_secs(30);
        while listed(&place.path().join("state")) != ["lock"] {
            assert!(Instant::now() < patience, "round {round}, {victim:?}: it is no leftover, or not reaped");
            for id in driver.leftovers().await.unwrap() {
                driver.reap(&id).await.unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        wait_until(&format!("round {round}, {victim:?}: the end of all"), || {
            inhabitants(&workspace).is_empty()
        });
        assert_eq!(listed(&workspace), [""; 0], "round {round}, {victim:?}");
        assert_eq!(cgroups(&format!("keyferry-runner-{parent}-")), Vec::<PathBuf>::new(), "round {round}");
    }
    assert!(killed > 60, "only {killed} were killed in time");
}
