//! `keyferry run`: the whole way of a new user, and what becomes of it when something is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use keyferry_tests::authority::Authority;
use keyferry_tests::dns::NameServer;
use keyferry_tests::origin::Origin;
use keyferry_tests::parts;
use serde_json::Value;
use tempfile::TempDir;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");
const VALUE: &str = "the-real-token-of-the-service";

/// A new user: a folder with a project, and a data directory whose proxy finds the origins of the test.
struct User {
    folder: TempDir,
    keyferry: PathBuf,
    /// Whom commands run as, where that is somebody else.
    prefix: Vec<&'static str>,
    _dns: NameServer,
}

impl User {
    async fn new(origins: &[&Origin]) -> Self {
        let folder = tempfile::Builder::new().prefix("keyferry-run-").tempdir().expect("a directory");
        let dns = NameServer::start().await;
        for origin in origins {
            dns.set(origin.name(), &[std::net::Ipv4Addr::LOCALHOST]);
        }
        let data = folder.path().join("data");
        for made in [&data, &folder.path().join("project")] {
            std::fs::create_dir(made).expect("a directory");
        }
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("its owner's alone");
        std::fs::write(data.join("origins.pem"), Authority::trusted().pem()).expect("roots");
        let settings = format!(
            "proxy: {{ upstream_allow_cidrs: [\"127.0.0.0/8\"] }}\ntls: {{ upstream_ca: {} }}\n\
             dns: {{ upstream_resolver: \"{}\" }}\naudit: {{ sink: file, path: {} }}\n",
            data.join("origins.pem").display(),
            dns.address(),
            data.join("audit.jsonl").display()
        );
        std::fs::write(data.join("proxy.yaml"), settings).expect("settings");
        Self { folder, keyferry: KEYFERRY.into(), prefix: Vec::new(), _dns: dns }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let words: Vec<&std::ffi::OsStr> =
            self.prefix.iter().map(|word| (*word).as_ref()).chain([self.keyferry.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).env_clear().env("PATH", parts::search_path());
        command.env("KEYFERRY_DATA_DIR", self.file("data")).env("HOME", self.file("home"));
        command.current_dir(self.file("project")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A verb that goes well.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("keyferry runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// A script in a sandbox.
    fn run(&self, script: &str) -> Output {
        self.command(&["run", "--", "sh", "-c", script]).output().expect("keyferry runs")
    }

    /// A secret for this origin, which is granted to the default principal.
    fn granted(&self, origin: &Origin) {
        let mut add = self.command(&["secret", "add", "service", "--host", &origin.authority()]);
        let mut child = add.stdin(Stdio::piped()).spawn().expect("keyferry runs");
        child.stdin.take().expect("its input").write_all(VALUE.as_bytes()).expect("the value");
        assert!(child.wait().expect("its end").success());
        self.says(&["grant", "default", "service"]);
    }

    /// A command that goes on, and the first line that it says.
    fn start(&self, script: &str) -> (Child, String, BufReader<std::process::ChildStdout>) {
        let mut child = self.command(&["run", "--", "sh", "-c", script]).spawn().expect("keyferry runs");
        let mut lines = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().expect("its words").read_to_string(&mut said).expect("text");
            panic!("it said nothing: {said}");
        }
        (child, line.trim().to_owned(), lines)
    }

    fn sandboxes(&self) -> Vec<Value> {
        let listed = self.says(&["sandbox", "list", "--json"]);
        let all: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
        all.into_iter().filter(|sandbox| sandbox["transport"] == "unix").collect()
    }

    /// Nobody uses this data directory any more, and nothing of a sandbox is left.
    fn wait_for_nothing_left(&self, mark: &str) {
        wait_until("nothing is left", || {
            let left = processes(&self.folder.path().display().to_string());
            left.is_empty()
                && processes(mark).is_empty()
                && ["leases", "sandboxes"]
                    .iter()
                    .all(|name| entries(&self.file("data").join(name)).is_empty())
                && entries(&self.file("data/local-sandboxes")) == ["lock"]
                && !self.file("data/control.sock").exists()
        });
        let hidden = entries(&self.file("project")).into_iter().filter(|name| name.starts_with('.'));
        assert_eq!(hidden.count(), 0, "the project is as it was");
    }

    /// The process that was started to serve.
    fn service(&self) -> Vec<i32> {
        processes(&format!("--while-used\0--namespace\0default\0--data-dir\0{}", self.file("data").display()))
    }

    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file("data/audit.jsonl")).unwrap_or_default();
        keyferry_tests::audit::requests(&text)
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn processes(mark: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    pids.filter(of).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, pid: impl std::fmt::Display) {
    let killed = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A number for `sleep` that marks the processes of one test.
fn nap(first: u8) -> String {
    format!("{first}{:07}", std::process::id())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_secret_and_a_grant_to_a_request_with_nothing_running_and_nothing_left() {
    let origin = Origin::start("api.test").await;
    let user = User::new(&[&origin]).await;
    user.granted(&origin);
    let url = origin.url("/echo");

    // curl, Python and git, with nothing said about a proxy, an authority or a key.
    let script = format!(
        "key=$(env | sed -n 's/^SERVICE=//p'); test -n \"$key\" || {{ env; exit 1; }}\n\
         curl -sS -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: Bearer $key\" {url}\n\
         python3 - <<'EOF'\n\
         import os, urllib.request\n\
         request = urllib.request.Request('{url}', headers={{'Authorization': 'Bearer ' + os.environ['SERVICE']}})\n\
         print(urllib.request.urlopen(request).status)\n\
         EOF\n\
         git ls-remote https://elsewhere.test/repo 2>&1 | grep -o 'response 403'\n\
         pwd; echo made > made"
    );
    let output = user.run(&script);

    let project = user.file("project").canonicalize().expect("a path").display().to_string();
    assert_eq!(said(&output), (Some(0), format!("200\n200\nresponse 403\n{project}\n"), String::new()));
    assert_eq!(std::fs::read_to_string(user.file("project/made")).expect("what it made"), "made\n");
    for request in origin.received() {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {VALUE}").as_str()));
    }
    assert_eq!(origin.received().len(), 2);

    // The value is nowhere inside; a pattern does not find itself.
    let pattern = VALUE.replacen("real", "rea[l]", 1);
    let looked = user.run(&format!(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>&- | tr '\\0' '\\n' | grep -c '{pattern}'; \
         grep -rls '{pattern}' /run /tmp /home /etc . | grep -c ."
    ));
    assert_eq!(said(&looked).1, "0\n0\n", "{looked:?}");

    let records = user.records();
    let who: Vec<_> =
        records.iter().map(|it| (it["audit"]["host"].clone(), it["audit"]["sandbox"].is_string())).collect();
    assert_eq!(who, ["api.test", "api.test", "elsewhere.test"].map(|host| (host.into(), true)));
    assert!(
        records.iter().all(|it| it["audit"]["principal"].as_str().is_some_and(|id| id.starts_with("prn_")))
    );
    assert_eq!(user.sandboxes(), Vec::<Value>::new());
    user.wait_for_nothing_left("no mark");
    // One whose data directory is removed under it ends too.
    user.says(&["secret", "list"]);
    let service = user.service();
    assert_eq!(service.len(), 1);
    let aside = user.file("aside");
    std::fs::rename(user.file("data"), &aside).expect("taken away");
    wait_until("its end", || user.service().is_empty());
    std::fs::rename(&aside, user.file("data")).expect("put back");
    for name in ["log", "audit.jsonl", "keyferry.db"] {
        let bytes = std::fs::read(user.file("data").join(name)).unwrap_or_default();
        assert!(!bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_exits_as_the_command_does_and_tells_its_own_failures_apart() {
    let user = User::new(&[]).await;
    std::fs::write(user.file("project/text"), "#!/etc/services\n").expect("a file");
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(user.file("project/text"), runs).expect("executable, and no program");
    let (settings, right) = (user.file("data/proxy.yaml"), user.file("data/right.yaml"));
    std::fs::rename(&settings, &right).expect("put aside");
    for (wrong, why) in [
        ("proxy: { nonsense: 1 }", "unknown key"),
        ("proxy: {}\naudit: { sink: file, path: /nowhere/audit.jsonl }", "/nowhere/audit.jsonl"),
    ] {
        std::fs::write(&settings, wrong).expect("settings that are wrong");
        let (code, _, stderr) = said(&user.run("true"));
        assert!(code == Some(125) && stderr.contains(why), "{stderr}");
    }
    std::fs::rename(&right, &settings).expect("put back");
    let (code, _, stderr) = said(&user.run("true"));
    assert!(code == Some(0) && stderr.contains("nothing was granted to the principal default"), "{stderr}");
    let bare = user.command(&["run", "--", "true"]).env("PATH", "/nowhere").output().expect("keyferry runs");
    let (code, _, stderr) = said(&bare);
    assert!(code == Some(125) && stderr.contains("apt install bubblewrap"), "{stderr}");
    user.says(&["allow", "default", "api.test"]);
    for (arguments, code, words) in [
        (&["--", "sh", "-c", "exit 7"][..], 7, ""),
        (&["--", "sh", "-c", "kill -TERM $$"], 143, ""),
        (&["--time", "1s", "--", "sleep", "60"], 124, ""),
        (&["--", "no-such-program"], 127, "there is no program \"no-such-program\" on this host"),
        (&["--", "./text"], 126, "cannot run"),
        (&["--principal", "defualt", "--", "true"], 125, "did you mean \"default\"?"),
        (&["--principal", "somebody", "--", "true"], 125, "`keyferry principal add NAME` makes one"),
        (&["--workspace", "/usr", "--", "true"], 125, "belongs to the system"),
        (&["--ro", "../data", "--", "true"], 125, "holds keyferry's own files"),
        (&["--env", "NOT_SET_HERE", "--", "true"], 125, "it is not set here"),
        (&["--env", "A=b", "--env", "PATH", "--", "sh", "-c", "test \"$A\" = b && test -n \"$PATH\""], 0, ""),
    ] {
        let mut all = vec!["run"];
        all.extend(arguments);
        let (exit, _, stderr) = said(&user.command(&all).output().expect("keyferry runs"));
        assert_eq!((exit, stderr.contains(words)), (Some(code), true), "{arguments:?}: {stderr}");
    }
    // One that a user starts takes the place of the one that was started for a while.
    let arguments = ["up", "--json", "--control", "127.0.0.1:0", "--proxy", "127.0.0.1:0"];
    let mut up = user.command(&arguments).spawn().expect("keyferry runs");
    let mut ready = String::new();
    BufReader::new(up.stdout.take().expect("its output")).read_line(&mut ready).expect("a line");
    assert!(ready.contains("proxy_url"), "{ready}");
    assert_eq!(user.run("exit 9").status.code(), Some(9));
    assert_eq!(user.service(), Vec::<i32>::new(), "the one that runs is used");
    kill("-TERM", up.id());
    assert!(up.wait().expect("its end").success());

    let nothing =
        user.command(&["run", "--namespace", "empty", "--principal", "default", "--", "true"]).output();
    assert_eq!(said(&nothing.expect("keyferry runs")).0, Some(125), "a principal of another namespace");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_stay_apart_and_end_where_they_end() {
    let user = User::new(&[]).await;
    user.says(&["allow", "default", "api.test"]);
    let input = vec![b'x'; 3 << 20];
    let mut child = user
        .command(&["run", "--", "sh", "-c", "cat; echo done >&2"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("keyferry runs");
    let mut stdin = child.stdin.take().expect("its input");
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().expect("its end");
    writer.join().expect("a thread").expect("all of it was read");
    assert_eq!(output.stdout.len(), input.len());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "done\n");

    // A reader that has enough ends the command.
    let (mut child, line, lines) = user.start("yes");
    assert_eq!(line, "y");
    drop(lines);
    let code = child.wait().expect("its end").code();
    assert!(matches!(code, Some(141 | 1)), "{code:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_passes_through_and_is_as_it_was_afterwards() {
    let user = User::new(&[]).await;
    user.says(&["allow", "default", "api.test"]);
    let keyferry = KEYFERRY;
    // What a shell would do around it: the size, a change of it, a key that interrupts, and the modes before and after.
    let inside = "test -t 0 && test -t 1 && test -t 2 && stty size; \
        trap 'got=1; echo interrupted' INT; echo waiting; while ! test \"$(stty size)\" = '33 77'; do sleep 0.05; done; \
        echo resized; while test -z \"$got\"; do sleep 0.05; done; read line; echo \"read $line\"; exit 3";
    let outside = format!(
        "stty rows 20 cols 60; stty -a > before; (sleep 2; stty rows 33 cols 77 </dev/tty) & \
         {keyferry} run -- sh -c \"$INSIDE\"; echo code $?; stty rows 20 cols 60; stty -a > after; cmp before after && echo same"
    );
    let mut command = Command::new("script");
    command.args(["-qec", &outside, "/dev/null"]).env_clear().env("PATH", parts::search_path());
    command.env("INSIDE", inside).env("KEYFERRY_DATA_DIR", user.file("data")).env("TERM", "xterm");
    command.current_dir(user.file("project")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("script runs");
    let mut keys = child.stdin.take().expect("a keyboard");
    let mut screen = BufReader::new(child.stdout.take().expect("a screen"));
    let mut seen = String::new();
    let mut read_to = |seen: &mut String, text: &str| {
        while !seen.contains(text) {
            let length = screen.read_line(seen).expect("the screen");
            assert!(length > 0, "{text} was not seen: {seen}");
        }
    };
    read_to(&mut seen, "resized");
    keys.write_all(b"\x03").expect("a key");
    read_to(&mut seen, "interrupted");
    keys.write_all(b"hello\r").expect("keys");
    read_to(&mut seen, "same");
    for part in ["20 60", "waiting", "read hello", "code 3"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    child.wait().expect("its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_the_commands() {
    let user = User::new(&[]).await;
    user.says(&["allow", "default", "api.test"]);
    for (signal, code) in [("INT", 21), ("TERM", 22), ("USR1", 23)] {
        let (mut child, line, _lines) =
            user.start(&format!("trap 'exit {code}' {signal}; echo on; while :; do sleep 0.05; done"));
        assert_eq!(line, "on");
        kill(&format!("-{signal}"), child.id());
        assert_eq!(child.wait().expect("its end").code(), Some(code), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_nothing_is_left() {
    let user = User::new(&[]).await;
    user.says(&["allow", "default", "api.test"]);
    let nap = nap(7);
    let script = format!("echo on; sleep {nap}");

    // The command, and the init: it says so.
    for (who, code) in [(format!("sleep\0{nap}"), 137), ("sandbox-init\0init".to_owned(), 137)] {
        let (mut child, ..) = user.start(&script);
        wait_until("it to sleep", || !processes(&format!("sleep\0{nap}")).is_empty());
        let pid = match who.starts_with("sleep") {
            true => processes(&who)[0],
            false => descendants(i32::try_from(child.id()).expect("a number"), &who)[0],
        };
        kill("-9", pid);
        assert_eq!(child.wait().expect("its end").code(), Some(code), "{who}");
        assert_eq!(processes(&nap), Vec::<i32>::new(), "{who}");
        assert_eq!(user.sandboxes(), Vec::<Value>::new(), "{who}");
    }

    // `keyferry run` itself: what serves takes it back, and ends.
    let (mut child, ..) = user.start(&script);
    let leases = entries(&user.file("data/leases"));
    let lease = leases.iter().find(|name| name.starts_with("run-")).expect("its lease");
    let cgroups = || {
        let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("*{lease}*")]).output();
        String::from_utf8(found.expect("find runs").stdout).expect("text")
    };
    let root = Command::new("id").arg("-u").output().expect("id runs").stdout == b"0\n";
    assert_eq!(cgroups().is_empty(), !root, "root has cgroups: {}", cgroups());
    kill("-9", child.id());
    child.wait().expect("its end");
    user.wait_for_nothing_left(&nap);
    assert_eq!(cgroups(), "");
    assert_eq!(user.sandboxes(), Vec::<Value>::new());

    // At any time of its way, also before there is a command.
    for delay in [0, 20, 40, 70, 100, 150, 200, 300, 400, 600] {
        let mut child = user.command(&["run", "--", "sh", "-c", &script]).spawn().expect("keyferry runs");
        std::thread::sleep(Duration::from_millis(delay));
        kill("-9", child.id());
        child.wait().expect("its end");
    }
    user.wait_for_nothing_left(&nap);
    assert_eq!(user.sandboxes(), Vec::<Value>::new());

    // Both: whoever comes next takes it back.
    let (mut child, ..) = user.start(&script);
    kill("-9", user.service()[0]);
    kill("-9", child.id());
    child.wait().expect("its end");
    wait_until("the end of the command", || processes(&format!("sleep\0{nap}")).is_empty());
    assert_eq!(user.run("echo again").stdout, b"again\n");
    user.wait_for_nothing_left(&nap);
    assert_eq!(user.sandboxes(), Vec::<Value>::new());
    user.wait_for_nothing_left(&nap);
}

/// The processes below one whose arguments hold `mark`.
fn descendants(pid: i32, mark: &str) -> Vec<i32> {
    let mut all = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            next.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        all.push(pid);
    }
    let marked = processes(mark);
    // bubblewrap has the same arguments, and the init below it.
    all.into_iter().filter(|pid| marked.contains(pid)).rev().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_outlives_the_keyferry_that_served_it_and_loses_what_is_revoked() {
    let origin = Origin::start("api.test").await;
    let user = User::new(&[&origin]).await;
    user.granted(&origin);
    let fetch = format!(
        "curl -sS -o /dev/null -w '%{{http_code}}\\n' --retry 20 --retry-all-errors --retry-delay 1 {}",
        origin.url("/")
    );
    let script = format!(
        "{fetch}; while ! test -e go; do sleep 0.05; done; {fetch}; \
         curl -sSN {}; echo ended; exit 5",
        origin.url("/lines/9")
    );
    let (mut child, line, mut lines) = user.start(&script);
    assert_eq!(line, "200");
    let first = user.service();
    kill("-9", first[0]);
    wait_until("another", || user.service().iter().any(|pid| !first.contains(pid)));
    origin.open_gate(1);
    std::fs::write(user.file("project/go"), "").expect("a file");
    let mut next = || {
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    };
    assert_eq!([next(), next()], ["200", "{\"line\":1}"]);

    user.says(&["revoke", "default", "service"]);
    assert_eq!(next(), "ended");
    assert_eq!(child.wait().expect("its end").code(), Some(5));
    user.wait_for_nothing_left("no mark");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_principals_at_once_are_told_apart() {
    let origin = Origin::start("api.test").await;
    let user = User::new(&[&origin]).await;
    user.granted(&origin);
    for name in ["alice", "bob"] {
        user.says(&["principal", "add", name]);
    }
    user.says(&["grant", "alice", "service"]);
    let script = format!(
        "curl -sS -o /dev/null -w '%{{http_code}}/%{{http_connect}} ' {} 2>&-; echo \"${{SERVICE:-nothing}}\" | cut -c1-3",
        origin.url("/")
    );
    let start = |name| user.command(&["run", "--principal", name, "--", "sh", "-c", &script]).spawn();
    let running = ["alice", "bob", "alice", "bob"].map(|name| start(name).expect("keyferry runs"));
    let ended = running.map(|child| said(&child.wait_with_output().expect("its end")).1);
    assert_eq!(ended, ["200/200 kf_\n", "000/403 not\n", "200/200 kf_\n", "000/403 not\n"]);
    let mut who: Vec<_> = user
        .records()
        .iter()
        .map(|it| (it["audit"]["principal"].to_string(), it["audit"]["sandbox"].to_string()))
        .collect();
    who.sort();
    who.dedup();
    assert_eq!(who.len(), 4, "each sandbox is one of its own: {who:?}");
    who.dedup_by_key(|(principal, _)| principal.clone());
    assert_eq!(who.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_runs_it_and_nobody_runs_it_inside() {
    let mut user = User::new(&[]).await;
    let root = Command::new("id").arg("-u").output().expect("id runs").stdout == b"0\n";
    if root {
        std::fs::create_dir(user.file("bin")).expect("a directory");
        std::fs::copy(KEYFERRY, user.file("bin/keyferry")).expect("a copy");
        user.keyferry = user.file("bin/keyferry");
        user.prefix = vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(user.folder.path()).status();
        assert!(owned.expect("chown runs").success());
    }
    user.says(&["allow", "default", "api.test"]);
    let output = user.run("id -u; echo kept > kept; cat kept; /run/keyferry/init run -- true; echo $?");
    let (code, stdout, stderr) = said(&output);
    let uid = if root { "65534" } else { "1000" };
    assert_eq!((code, stdout.as_str()), (Some(0), format!("{uid}\nkept\n125\n").as_str()), "{stderr}");
    assert!(stderr.contains("this is a sandbox of keyferry already"), "{stderr}");
    user.wait_for_nothing_left("no mark");
}
