//! What a sandbox is given may be hostile too: its workspace, its command, its variables, and whoever shares its workspace.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyferry_sandbox::testing::{Bench, Outcome, run, script};
use keyferry_sandbox::{
    Attach, Attached, Driver, Environment, Error, Exit, LocalDriver, Request, Sandbox, Spec,
};
use keyferry_tests::local_sandbox::{GREETING, LocalBench};
use tokio::io::AsyncReadExt;

fn bench() -> LocalBench {
    LocalBench::new(Path::new(env!("CARGO_BIN_EXE_keyferry-under-test")))
}

fn make_directory(path: PathBuf) -> PathBuf {
    std::fs::create_dir_all(&path).expect("a directory");
    path
}

async fn refusal(bench: &LocalBench, spec: Spec) -> String {
    let refused = bench.driver().create(bench.fresh_id(), spec).await.err();
    assert_eq!(bench.records(), Vec::<String>::new(), "something is left");
    refused.expect("it is refused").to_string()
}

/// Between its judgement and its mount somebody puts a link in the place of each thing. Another sandbox of this workspace could.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_is_what_was_judged() {
    let bench = bench();
    let secret = make_directory(bench.path().join("secret"));
    for name in ["hooks", "config", "key"] {
        std::fs::write(secret.join(name), "s3cret").unwrap();
    }
    for place in [".vscode", ".git", ".git/hooks", ".", "tool"] {
        let mut spec = bench.spec(&["sh", "-c", "cat */key .*/key */*/key .*/*/key key tool/key 2>&1"]);
        let workspace = make_directory(spec.workspace.path.join("inner"));
        spec.workspace.path.clone_from(&workspace);
        make_directory(workspace.join(".git/hooks"));
        make_directory(workspace.join(".vscode"));
        spec.read_only.push(make_directory(workspace.join("tool")));
        let mut sandbox = bench.driver().create(bench.fresh_id(), spec).await.unwrap();

        let victim = workspace.join(place).components().collect::<PathBuf>();
        std::fs::rename(&victim, bench.path().join("aside")).unwrap();
        symlink(&secret, &victim).unwrap();

        // Whether it starts does not matter.
        if let Ok(Attached::Pipes(mut pipes)) = sandbox.start(Attach::Pipes).await {
            let mut seen = String::new();
            pipes.stdout.read_to_string(&mut seen).await.unwrap();
            assert!(!seen.contains("s3cret"), "{place}: {seen}");
        }
        std::fs::remove_file(&victim).unwrap();
        std::fs::rename(bench.path().join("aside"), &victim).unwrap();
        sandbox.delete().await.unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(&secret).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// A sandbox of the same workspace swaps a directory for a link to the host's secrets while others start: at times so fast that each sees it, at
/// times so slowly that some do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_swaps_links_gets_nothing_of_the_host_mounted() {
    let bench = bench();
    let secret = make_directory(bench.path().join("secret"));
    std::fs::write(secret.join("config"), "s3cret").unwrap();
    let swap = format!(
        "import ctypes, os, random, time\nlibc = ctypes.CDLL(None)\nos.makedirs('git'); os.symlink('{}', 'link')\nos.rename('git', '.git')\n\
         print('on', flush=True)\nwhile True:\n libc.renameat2(-100, b'.git', -100, b'link', 2)\n time.sleep(random.choice([0, 0.001, 0.01]))",
        secret.display()
    );
    let neighbour = bench.spec(&["/usr/bin/python3", "-c", &swap]);
    let workspace = neighbour.workspace.path.clone();
    let mut sandbox = bench.driver().create(bench.fresh_id(), neighbour).await.unwrap();
    let Attached::Pipes(mut pipes) = sandbox.start(Attach::Pipes).await.unwrap() else { panic!("pipes") };
    pipes.stdout.read_exact(&mut [0; 3]).await.unwrap();
    let mut started = 0;
    for _ in 0..100 {
        let mut spec = bench.spec(&["sh", "-c", "cat .git/config link/config; echo on"]);
        spec.workspace.path.clone_from(&workspace);
        let Ok(mut sandbox) = bench.driver().create(bench.fresh_id(), spec).await else { continue };
        if let Ok(Attached::Pipes(mut pipes)) = sandbox.start(Attach::Pipes).await {
            let mut seen = String::new();
            pipes.stdout.read_to_string(&mut seen).await.unwrap();
            assert!(!seen.contains("s3cret"), "{seen}");
            started += u32::from(seen.contains("on"));
        }
        sandbox.delete().await.unwrap();
    }
    sandbox.delete().await.unwrap();
    assert!(started > 0, "none started");
    assert_eq!(std::fs::read_to_string(secret.join("config")).unwrap(), "s3cret");
    assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 1);
    assert_eq!(bench.records(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_shown_holds_keyferrys_own_files_or_a_socket() {
    let bench = bench();
    let mut own = bench.spec(&["true"]);
    own.read_only.push(bench.path().to_owned());
    assert!(refusal(&bench, own).await.ends_with(
        "cannot be mounted read-only: keyferry keeps its own files there\nhint: name what is needed of it"
    ));

    let mut program = bench.spec(&["true"]);
    program.workspace.path =
        Path::new(env!("CARGO_BIN_EXE_keyferry-under-test")).parent().unwrap().to_owned();
    assert!(refusal(&bench, program).await.contains("keyferry keeps its own files there"));

    let installed = tempfile::Builder::new().prefix("tool").tempdir_in("/opt").unwrap();
    let tool = make_directory(installed.path().join("bin")).join("tool");
    std::fs::write(&tool, "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = tool.to_str().unwrap();
    assert_eq!(run(&bench, bench.spec(&[command])).await, Outcome::said("ran\n"));
    let socket = installed.path().join("run.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = refusal(&bench, bench.spec(&[command])).await;
    assert!(refused.starts_with(&format!("{} is a Unix socket", socket.display())), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_cannot_be_read_is_refused_and_one_behind_var_tmp_works() {
    let bench = bench();
    let mut file = bench.spec(&["true"]);
    file.workspace.path.push("file");
    std::fs::write(&file.workspace.path, "").unwrap();
    assert!(refusal(&bench, file).await.ends_with("it is no directory"));
    let mut loop_of_links = bench.spec(&["true"]);
    loop_of_links.workspace.path.push("loop");
    symlink(&loop_of_links.workspace.path, &loop_of_links.workspace.path).unwrap();
    assert!(refusal(&bench, loop_of_links).await.contains("Too many levels of symbolic links"));

    let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut spec = bench.spec(&["sh", "-c", "pwd -P; echo x > kept"]);
    spec.workspace.path = elsewhere.path().to_owned();
    assert_eq!(run(&bench, spec).await, Outcome::said(&format!("{}\n", elsewhere.path().display())));
    assert!(elsewhere.path().join("kept").exists());
}

/// A hundred thousand files take no longer than looking once at each name.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_workspace_takes_as_long_as_a_look_at_its_names() {
    let bench = bench();
    let spec = bench.spec(&["sh", "-c", "echo on"]);
    for directory in 0..200 {
        let directory = make_directory(spec.workspace.path.join(format!("d{directory}")));
        for file in 0..500 {
            std::fs::File::create(directory.join(file.to_string())).unwrap();
        }
    }
    let looked = Instant::now();
    let found = std::process::Command::new("find").arg(&spec.workspace.path).args(["-type", "s"]).output();
    assert!(found.unwrap().stdout.is_empty());
    let looked = looked.elapsed();
    let without = {
        let mut spec = spec.clone();
        spec.workspace.allow_sockets = true;
        let begun = Instant::now();
        assert_eq!(run(&bench, spec).await, Outcome::said("on\n"));
        begun.elapsed()
    };
    let begun = Instant::now();
    assert_eq!(run(&bench, spec).await, Outcome::said("on\n"));
    let with = begun.elapsed();
    println!("find: {looked:?}, without the search: {without:?}, with it: {with:?}");
    assert!(with < without + 5 * looked + Duration::from_secs(1), "{looked:?} {without:?} {with:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_arguments_and_variables_arrive_or_are_refused_by_name() {
    let bench = bench();
    // As a whole: an empty name is no program, and what looks like bubblewrap's own flags is an argument.
    assert!(refusal(&bench, bench.spec(&[""])).await.starts_with("there is no program \"\""));
    let flags = ["--ro-bind", "/", "/", "--", "--cap-add", "ALL", "", "-"];
    let mut spec = bench.spec(&["printf", "[%s]"]);
    spec.command.extend(flags.iter().map(OsString::from));
    let shown: String = flags.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(run(&bench, spec).await, Outcome::said(&shown));

    let long = "x".repeat(100 * 1024);
    let mut spec =
        bench.spec(&["sh", "-c", "echo ${#1} ${#LONG}; printf %s \"$ODD\" | od -An -tx1", "sh", &long]);
    let asked = vec![
        ("LONG".into(), long.clone().into()),
        ("ODD".into(), OsString::from_vec(vec![0xff, b'=', b'\n', 0x1b, 0x80])),
    ];
    spec.environment = Environment::new(&Request { asked, ..Request::default() }).unwrap();
    assert_eq!(run(&bench, spec).await, Outcome::said("102400 102400\n ff 3d 0a 1b 80\n"));

    // The kernel takes no word of 128 KiB, and no 6 MiB in all: that is refused. How much less depends on the stack's limit; then the
    // command is told as a shell would tell.
    for (words, length) in [(1, 128 * 1024), (70, 100 * 1024)] {
        let mut spec = bench.spec(&["true"]);
        spec.command.extend(std::iter::repeat_n(OsString::from("x".repeat(length)), words));
        assert!(refusal(&bench, spec).await.starts_with("the command is longer than"), "{words} of {length}");
    }
    let mut spec = bench.spec(&["true"]);
    spec.command.extend(std::iter::repeat_n(OsString::from("x".repeat(100 * 1024)), 40));
    let outcome = run(&bench, spec).await;
    assert_eq!(outcome.exit, Exit::Code(126), "{outcome:?}");
    assert!(outcome.stderr.contains("Argument list too long"), "{outcome:?}");
    for name in ["A=B", "", "1A", "A B", "A\0", "LD_PRELOAD\n", "é"] {
        let asked = vec![(name.into(), "x".into())];
        let refused = Environment::new(&Request { asked, ..Request::default() });
        assert!(matches!(refused, Err(Error::Variable { .. })), "{name:?}");
    }
}

/// Variables that change what a program loads are the command's own affair: none of them is obeyed by what runs before it.
#[tokio::test(flavor = "multi_thread")]
async fn the_init_obeys_no_variable_of_the_command() {
    let bench = bench();
    let mut spec =
        bench.spec(&["sh", "-c", "echo \"$LD_PRELOAD $GCONV_PATH\"; curl -sS http://any.example/"]);
    let asked = [("LD_PRELOAD", "/no/such.so"), ("LD_LIBRARY_PATH", "/tmp"), ("GCONV_PATH", "/tmp")];
    let asked = asked.map(|(name, value)| (name.into(), value.into())).into();
    spec.environment = Environment::new(&Request { asked, ..Request::default() }).unwrap();
    let outcome = run(&bench, spec).await;
    assert_eq!(outcome.stdout, format!("/no/such.so /tmp\n{GREETING}"));
    // Once for each program of the command, and never for ours.
    assert_eq!(outcome.stderr.matches("cannot be preloaded").count(), 2, "{outcome:?}");
}

/// It has the init's user, but neither its memory nor its program nor its end in its hands.
#[tokio::test(flavor = "multi_thread")]
async fn the_init_is_out_of_reach_of_the_command() {
    let bench = bench();
    let outcome = script(
        &bench,
        "for signal in KILL STOP SEGV ABRT USR1 PIPE TRAP; do kill -$signal 1; done; sleep 0.2; \
         for file in exe mem maps environ fd/0 cwd root; do cat /proc/1/$file >/dev/null 2>&1 && echo read $file; \
         (: >> /proc/1/$file) 2>/dev/null && echo wrote $file; done; \
         (: >> /run/keyferry/init) 2>/dev/null && echo wrote init; \
         rm /run/keyferry/proxy/proxy.sock 2>/dev/null && echo removed the socket; \
         (: > /run/keyferry/proxy/more) 2>/dev/null && echo wrote beside it; \
         curl -sS http://any.example/",
    )
    .await;
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::Code(0), GREETING), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_in_a_sandbox_is_refused_by_name() {
    let bench = bench();
    let mut spec =
        bench.spec(&[env!("CARGO_BIN_EXE_sandbox-runner"), env!("CARGO_BIN_EXE_keyferry-under-test")]);
    let workspace = spec.workspace.path.clone();
    let inner = make_directory(workspace.join("inner"));
    make_directory(inner.join("workspace"));
    std::fs::write(inner.join("ca.pem"), &spec.ca_bundle).unwrap();
    let _proxy = std::os::unix::net::UnixListener::bind(inner.join("proxy.sock")).unwrap();
    spec.workspace.allow_sockets = true;
    spec.read_only.push(env!("CARGO_BIN_EXE_keyferry-under-test").into());
    spec.command.extend([inner.into_os_string(), "1".into(), "echo ran".into()]);
    let outcome = run(&bench, spec).await;
    assert!(
        !outcome.stdout.contains("ran")
            && outcome.stderr.contains("this system cannot isolate a sandbox: namespaces cannot be had")
            && outcome.stderr.contains("in a container or in another sandbox they may be forbidden"),
        "{outcome:?}"
    );
}

/// Of the place from which the driver runs, nothing depends on it.
#[test]
fn a_working_directory_that_is_gone_harms_nobody() {
    let _: fn(keyferry_sandbox::Host) -> Result<LocalDriver, Error> = LocalDriver::new;
    let place = tempfile::tempdir().unwrap();
    make_directory(place.path().join("workspace"));
    let ca = keyferry_tests::authority::Authority::named("sandbox test");
    std::fs::write(place.path().join("ca.pem"), ca.pem()).unwrap();
    let _proxy = std::os::unix::net::UnixListener::bind(place.path().join("proxy.sock")).unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_sandbox-runner"), env!("CARGO_BIN_EXE_keyferry-under-test")])
        .arg(place.path())
        .args(["1", "pwd -P"])
        .current_dir(place.path())
        .output()
        .unwrap();
    let expected = format!("{}\nCode(0)\n", place.path().join("workspace").display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
}
