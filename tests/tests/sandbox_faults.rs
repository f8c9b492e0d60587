//! What becomes of sandboxes when something is killed, and when an ordinary user runs them.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keyferry_sandbox::Driver;
use keyferry_tests::{authority::Authority, local_sandbox};

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

/// The processes of the host whose arguments hold `mark`.
fn processes(mark: &str) -> Vec<i32> {
    let of = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(of).collect()
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

fn cgroups(mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(mark) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
        }
    }
    found
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

fn children(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn an_ordinary_user_has_sandboxes_too_and_descriptors_that_were_inherited_stay_outside() {
    let place = Place::new();
    // Where this runs as root, somebody else: nobody.
    let own = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    };
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let script = "id -u; ls /proc/self/fd | tr '\\n' ' '; env | grep -c CALLER; cat /proc/1/environ 2>&- | wc -c; echo kept > kept && cat kept";
    let binaries = place.path().join("bin");
    std::fs::create_dir(&binaries).unwrap();
    let copy = |from: &str, name: &str| {
        let to = binaries.join(name);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let (keyferry, runner) = (copy(KEYFERRY, "keyferry"), copy(RUNNER, "runner"));
    // A directory of the host's, open in whoever starts the driver.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 7</ 9<>/dev/null; exec \"$@\"", "sh"]);
    if root {
        for path in ["", "workspace", "bin", "proxy.sock", "ca.pem"] {
            own(&place.path().join(path));
        }
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    }
    command.env("CALLER_SECRET", "s3cret");
    command.arg(runner).arg(keyferry).arg(place.path()).args(["1", script]);
    let output = command.output().unwrap();
    let own_id = Command::new("id").arg("-u").output().unwrap().stdout;
    let user = if root { "65534\n".to_owned() } else { String::from_utf8(own_id).unwrap() };
    let said = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(said, (format!("{user}0 1 2 3 0\n0\nkept\nCode(0)\n"), String::new()));
}
