//! The local driver: it passes the suite of all drivers, and nothing is reachable from inside but the proxy (T69).

use std::os::linux::net::SocketAddrExt;
use std::path::{Path, PathBuf};

use keyferry_sandbox::testing::{Bench, Outcome, conformance, run, script};
use keyferry_sandbox::{
    Driver, Environment, Error, Exit, Granted, Host, LocalDriver, Request, Sandbox, Shown,
};
use keyferry_tests::local_sandbox::{self, GREETING, LocalBench};
use keyferry_tests::origin::Origin;
use keyferry_tests::parts;
use keyferry_tests::proxy::Proxy;

fn bench() -> LocalBench {
    LocalBench::new(Path::new(env!("CARGO_BIN_EXE_keyferry-under-test")))
}

fn host(bench: &LocalBench) -> Host {
    Host {
        state: bench.state(),
        keyferry: env!("CARGO_BIN_EXE_keyferry-under-test").into(),
        search_path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
        home: Some("/root".into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_driver_conforms() {
    let bench = bench();
    conformance(&bench).await;
    assert_eq!(bench.records(), Vec::<String>::new(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn t69_the_proxy_is_where_clients_look_for_it() {
    let bench = bench();
    let asked =
        script(&bench, "curl -sS http://any.example/ && curl -sS --noproxy '*' http://[::1]:3128/").await;
    assert_eq!(asked, Outcome::said(&GREETING.repeat(2)));
}

/// Python by the variable, whatever reads the system's place by that, and Java, whose store we write ourselves.
#[tokio::test(flavor = "multi_thread")]
async fn every_program_trusts_the_same_authorities() {
    let bench = bench();
    let bundle = bench.spec(&["true"]).ca_bundle;
    let shown = script(&bench, "cat $SSL_CERT_FILE; cmp $SSL_CERT_FILE /etc/ssl/cert.pem").await;
    assert_eq!(shown, Outcome::said(&bundle));
    let count = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))";
    assert_eq!(run(&bench, bench.spec(&["/usr/bin/python3", "-c", count])).await, Outcome::said("1\n"));
    let java =
        "unset JAVA_TOOL_OPTIONS; keytool -list -keystore /etc/ssl/certs/java/cacerts -storepass changeit";
    let listed = script(&bench, java).await;
    assert_eq!(listed.exit, Exit::Code(0), "{listed:?}");
    assert!(listed.stdout.contains("ca-0, Jan 1, 1970, trustedCertEntry"), "{listed:?}");
    let proxied = "unset http_proxy HTTP_PROXY; java -XshowSettings:properties -version 2>&1 | grep -E '^ +(https.proxyPort|javax.net.ssl.trustStore) ='";
    let expected = "    https.proxyPort = 3128\n    javax.net.ssl.trustStore = /etc/ssl/certs/java/cacerts\n";
    assert_eq!(script(&bench, proxied).await, Outcome::said(expected));
}

/// With nothing but the variables that every sandbox has.
#[tokio::test(flavor = "multi_thread")]
async fn java_and_curl_reach_a_service_through_the_real_proxy() {
    const REAL: &str = "real-0123456789";
    const POLICY: &str = r#"
transforms:
  - { name: allowlist, config: { domains: [api.example] } }
  - name: secrets
    config:
      secrets:
        - source: { type: env, var: SERVICE_TOKEN }
          replace: { proxy_value: SERVICE_TOKEN, match_headers: [X-Api-Key] }
          rules: [{ host: api.example }]
"#;
    let origin = Origin::start("api.example").await;
    let proxy = Proxy::builder(env!("CARGO_BIN_EXE_keyferry-under-test"))
        .policy(POLICY)
        .env("SERVICE_TOKEN", REAL)
        .route(&origin)
        .start()
        .await;
    let bench = bench();
    let (url, program) = (origin.url("/v1/models"), parts::program("java/Ask.java"));
    let script = format!(
        "java {} {url} \"$SERVICE_TOKEN\" && curl -sS -H \"X-Api-Key: $SERVICE_TOKEN\" {url} >/dev/null && echo asked",
        program.display()
    );
    let mut spec = bench.spec(&["sh", "-c", &script]);
    spec.read_only.push(program);
    spec.ca_bundle = std::fs::read_to_string(proxy.ca_certificate()).unwrap();
    spec.proxy_socket = bench.relay(proxy.address());
    let token = Granted {
        name: None,
        foreign_id: "service".to_owned(),
        shown: Shown::Placeholder("SERVICE_TOKEN".to_owned()),
    };
    spec.environment = Environment::new(&Request { secrets: vec![token], ..Request::default() }).unwrap();

    let outcome = run(&bench, spec).await;

    assert_eq!(outcome.exit, Exit::Code(0), "{outcome:?}");
    assert!(outcome.stdout.ends_with("asked\n") && !outcome.stdout.contains(REAL), "{outcome:?}");
    let keys: Vec<_> =
        origin.received().iter().map(|request| request.header("x-api-key").map(str::to_owned)).collect();
    assert_eq!(keys, [(); 3].map(|()| Some(REAL.to_owned())));
}

/// Each attempt says `name: what came of it`; what is expected stands beside it. The program has no way to know what to expect.
#[tokio::test(flavor = "multi_thread")]
async fn t69_nothing_else_is_reachable() {
    let bench = bench();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = format!("keyferry-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let other = bench.path().join("other.sock");
    let _other = std::os::unix::net::UnixListener::bind(&other).unwrap();
    let mut spec = bench.spec(&["/usr/bin/python3", "-"]);
    let program = std::fs::read_to_string(parts::script("reach_out.py")).unwrap();
    spec.command[1] = "-c".into();
    spec.command.push(program.into());
    for argument in [
        tcp.local_addr().unwrap().port().to_string(),
        udp.local_addr().unwrap().port().to_string(),
        name,
        other.display().to_string(),
        std::process::id().to_string(),
    ] {
        spec.command.push(argument.into());
    }

    let outcome = run(&bench, spec).await;

    let expected = "\
tcp to the host's loopback: ECONNREFUSED
tcp to another address: ENETUNREACH
tcp over IPv6: ENETUNREACH
udp to the host's loopback: ECONNREFUSED
udp to a name server: ENETUNREACH
a name: gaierror
a raw socket: EPERM
a packet socket: EACCES
a packet socket by its old name: EACCES
a vsock socket: EACCES
a bluetooth socket: EACCES
an alg socket: EACCES
an xdp socket: EACCES
netlink for routes: allowed
netlink for the firewall: EACCES
netlink for audit: EACCES
a family hidden behind upper bits: EACCES
a pair of vsock sockets: EACCES
the host's abstract socket: ECONNREFUSED
another sandbox's socket: ENOENT
the driver's process: ENOENT
processes other than ours: none
the init's memory: EACCES
the init's environment: EACCES
";
    assert_eq!(outcome, Outcome::said(expected));
}

/// The errno is the filter's own: these calls would say something else, or work.
#[tokio::test(flavor = "multi_thread")]
async fn system_calls_that_attack_kernels_are_not_there() {
    let bench = bench();
    let program = std::fs::read_to_string(parts::script("call_kernel.py")).unwrap();
    let outcome = run(&bench, bench.spec(&["/usr/bin/python3", "-c", &program])).await;
    let expected = "\
io_uring_setup: ENOSYS
clone3: ENOSYS
a call from the future: ENOSYS
a call of the x32 interface: ENOSYS
bpf: EPERM
userfaultfd: EPERM
keyctl: EPERM
add_key: EPERM
ptrace: EPERM
process_vm_readv: EPERM
perf_event_open: EPERM
mount: EPERM
umount2: EPERM
open_tree: EPERM
fsopen: EPERM
unshare: EPERM
setns: EPERM
clone with a user namespace: EPERM
open_by_handle_at: EPERM
TIOCSTI: EPERM
TIOCSTI behind upper bits: EPERM
";
    assert_eq!(outcome, Outcome::said(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_kernel_or_the_host_can_be_written() {
    let bench = bench();
    // As root of the host would: without what covers it, this names the program that the kernel runs on a crash.
    let probe = r#"
        for file in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger; do
            if [ -e $file ] && ( : >> $file ) 2>/dev/null; then echo "written: $file"; fi
        done
        find /proc -path '/proc/[0-9]*' -prune -o -path /proc/self -prune -o -path /proc/thread-self -prune -o \
            -type f -writable -print 2>/dev/null
        for place in / /usr /usr/bin /etc /dev /run /run/keyferry /var /root /home /opt; do
            ( : > $place/written ) 2>/dev/null && echo "written: $place"
        done
        ls -A / | tr '\n' ' '; ls -A /run /home | tr '\n' ' '
        ulimit -c; ls /proc/self/fd | tr '\n' ' '
    "#;
    let outcome = script(&bench, probe).await;
    // `tmp` holds the workspace. The last descriptor is the listing's own.
    let mut roots: Vec<&str> =
        ["bin", "dev", "etc", "home", "lib", "proc", "run", "sbin", "tmp", "usr", "var"].into();
    roots.extend(["lib32", "lib64", "libx32"].into_iter().filter(|name| Path::new("/").join(name).exists()));
    roots.sort_unstable();
    let expected = format!("{} /home: agent  /run: keyferry 0\n0 1 2 3 ", roots.join(" "));
    assert_eq!(outcome, Outcome::said(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_knows_does_not_get_in() {
    let bench = bench();
    let secret = format!("s3cret-{}", std::process::id());
    std::fs::write(bench.path().join("secret"), &secret).unwrap();
    let directory = bench.path().display();
    // The pattern does not match itself where it stands among arguments.
    let probe = format!(
        "ls {directory} | grep -v workspace; cat {directory}/secret /root/.bashrc /etc/shadow 2>&1 | grep -c 'No such file'; \
         cat /proc/1/environ /proc/1/maps 2>/dev/null | wc -c; for file in /proc/1/fd/*; do readlink $file; done; \
         cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c 's3cre[t]'; grep -rs 's3cre[t]' /run /etc /home /tmp | wc -l"
    );
    assert_eq!(
        script(&bench, &probe).await,
        Outcome { exit: Exit::Code(0), ..Outcome::said("3\n0\n0\n0\n") }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_of_the_host_obey_stays_read_only() {
    let bench = bench();
    let script = r#"
        try() { if sh -c "$1" 2>/dev/null; then echo "done: $1"; fi; }
        for file in .git/hooks/pre-commit .git/config .git/commondir .git/config.worktree .envrc .vscode/tasks.json .claude/settings.json; do
            try "echo x > $file"; try "test -e $file && rm -rf $file"
        done
        try 'mv .git elsewhere'; try 'mv .vscode elsewhere'; try 'rm -rf .git/hooks'; try 'ln -sf /tmp .claude'
        echo work > file && git add file && git -c user.name=a -c user.email=a@b commit -qm work && git log --format=%s
    "#;
    let spec = bench.spec(&["sh", "-c", script]);
    let workspace = spec.workspace.path.clone();
    let git = |arguments: &[&str]| {
        let status =
            std::process::Command::new("git").args(arguments).current_dir(&workspace).status().unwrap();
        assert!(status.success());
    };
    git(&["init", "-q"]);
    let before = std::fs::read_to_string(workspace.join(".git/config")).unwrap();

    let outcome = run(&bench, spec).await;

    assert_eq!(outcome, Outcome::said("work\n"));
    assert_eq!(std::fs::read_to_string(workspace.join(".git/config")).unwrap(), before);
    for stand_in in [".envrc", ".vscode", ".claude", ".git/commondir", ".git/config.worktree"] {
        assert!(!workspace.join(stand_in).exists(), "{stand_in} is left");
    }
    git(&["fsck"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_leads_elsewhere_is_refused() {
    let bench = bench();
    let link: fn(PathBuf) = |path| std::os::unix::fs::symlink("/root", path).unwrap();
    let socket: fn(PathBuf) = |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    for (name, make) in [(".git", link), (".claude", link), (".envrc", link), ("deep.sock", socket)] {
        let spec = bench.spec(&["true"]);
        make(spec.workspace.path.join(name));
        let refused = bench.driver().create(bench.fresh_id(), spec).await.err();
        assert!(
            matches!(refused, Some(Error::Workspace { .. } | Error::Socket { .. })),
            "{name}: {refused:?}"
        );
    }
    let mut allowed = bench.spec(&["true"]);
    socket(allowed.workspace.path.join("a.sock"));
    allowed.workspace.allow_sockets = true;
    assert_eq!(run(&bench, allowed).await, Outcome::said(""));
    for place in [bench.path(), Path::new("/root"), Path::new("/usr/share"), Path::new("/tmp")] {
        let mut spec = bench.spec(&["true"]);
        spec.workspace.path = place.to_owned();
        let refused = bench.driver().create(bench.fresh_id(), spec).await.err();
        assert!(matches!(refused, Some(Error::Workspace { .. })), "{}: {refused:?}", place.display());
    }
    assert_eq!(bench.records(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_behind_a_link_is_mounted_where_it_is() {
    let bench = bench();
    let mut spec = bench.spec(&["pwd", "-P"]);
    let real = spec.workspace.path.canonicalize().unwrap();
    spec.workspace.path = bench.path().join("link");
    std::os::unix::fs::symlink(&real, &spec.workspace.path).unwrap();
    assert_eq!(run(&bench, spec).await, Outcome::said(&format!("{}\n", real.display())));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_directories_hold_so_much_and_no_more() {
    let bench = bench();
    let mut spec = bench.spec(&[
        "sh",
        "-c",
        "for place in /tmp ~ /dev/shm /var/tmp; do head -c 8M /dev/zero > $place/fill; stat -c %s $place/fill; done",
    ]);
    (spec.limits.tmp, spec.limits.home) = (1 << 20, 2 << 20);
    let outcome = run(&bench, spec).await;
    assert_eq!(
        (outcome.exit, outcome.stdout.as_str()),
        (Exit::Code(0), "1048576\n2097152\n1048576\n1048576\n")
    );
    assert_eq!(outcome.stderr.matches("No space left on device").count(), 4, "{}", outcome.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_and_a_memory_hog_stay_inside() {
    let bench = bench();
    let mut bomb = bench.spec(&["/usr/bin/python3", "-c", FORK_UNTIL_REFUSED]);
    bomb.limits.processes = Some(40);
    let outcome = run(&bench, bomb).await;
    assert_eq!(outcome.exit, Exit::Code(0), "{outcome:?}");
    let forks: u32 = outcome.stdout.trim().parse().unwrap();
    assert!((20..40).contains(&forks), "{forks} forks");

    let mut hog = bench.spec(&["/usr/bin/python3", "-c", "held = bytearray(512 << 20); print('held')"]);
    hog.limits.memory = Some(96 << 20);
    let outcome = run(&bench, hog).await;
    assert_eq!(outcome.stdout, "");
    // Killed by the kernel under a cgroup; refused by it under a limit of each process.
    assert!(matches!(outcome.exit, Exit::Signal(9) | Exit::Killed | Exit::Code(1)), "{outcome:?}");
    assert_eq!(script(&bench, "echo others go on").await, Outcome::said("others go on\n"));
}

const FORK_UNTIL_REFUSED: &str = "
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(1000)
        count += 1
except BlockingIOError:
    print(count)
";

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_in_a_sandbox_and_a_host_without_the_means_are_refused_by_name() {
    let bench = bench();
    let nested = script(&bench, "bwrap --unshare-user --ro-bind /usr /usr /usr/bin/true").await;
    assert_ne!(nested.exit, Exit::Code(0));

    let empty = Host { search_path: "/nowhere".to_owned(), ..host(&bench) };
    let missing = LocalDriver::new(empty).err().map(|error| error.to_string());
    let expected =
        "bubblewrap is not installed: there is no bwrap in /nowhere\nhint: install the package bubblewrap";
    assert_eq!(missing.as_deref(), Some(expected));

    // A bubblewrap that says what it says where the kernel refuses.
    let place = bench.path().join("forbidden");
    std::fs::create_dir(&place).unwrap();
    let words = "bwrap: No permissions to create new namespace";
    std::fs::write(place.join("bwrap"), format!("#!/bin/sh\necho '{words}' >&2\nexit 1\n")).unwrap();
    std::fs::set_permissions(place.join("bwrap"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let search_path = format!("{}:/usr/bin", place.display());
    let driver = LocalDriver::new(Host { search_path, ..host(&bench) }).unwrap();
    let mut sandbox = driver.create(bench.fresh_id(), bench.spec(&["true"])).await.unwrap();
    let refused = sandbox.start(keyferry_sandbox::Attach::Pipes).await.err();
    assert!(matches!(refused, Some(Error::Unsupported { feature: "namespaces", .. })), "{refused:?}");
    sandbox.delete().await.unwrap();
    assert_eq!(bench.records(), Vec::<String>::new());
}

/// Each has a socket of its own, and who asks through it is known by it alone.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_fetch_through_their_own_sockets_and_leave_nothing() {
    const COUNT: usize = 200;
    // Some twenty descriptors each; the usual limit of 1,024 is for programs that use select(2).
    let process = std::process::id().to_string();
    let raised = std::process::Command::new("prlimit").args(["--pid", &process, "--nofile=16384:"]).status();
    assert!(raised.unwrap().success());
    let bench = std::sync::Arc::new(bench());
    let begun = std::time::Instant::now();
    let runs = (0..COUNT).map(|number| {
        let bench = std::sync::Arc::clone(&bench);
        tokio::spawn(async move {
            let mut spec = bench.spec(&["curl", "-sS", "http://any.example/"]);
            spec.proxy_socket = bench.proxy(&number.to_string());
            assert_eq!(run(&*bench, spec).await, Outcome::said(&number.to_string()));
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
    println!("{COUNT} at once: {:?}", begun.elapsed());
    assert!(begun.elapsed() < std::time::Duration::from_secs(120), "{:?}", begun.elapsed());
    assert_eq!(bench.records(), Vec::<String>::new());
    let of_ours = format!("keyferry-t{process}-");
    assert_eq!(local_sandbox::cgroups(&of_ours), Vec::<PathBuf>::new());
    assert_eq!(local_sandbox::inhabitants(bench.path()), Vec::<i32>::new());
    let workspaces = std::fs::read_dir(bench.path()).unwrap().flatten();
    let workspaces = workspaces.filter(|entry| entry.file_name().to_string_lossy().starts_with("workspace"));
    assert!(workspaces.map(|entry| std::fs::read_dir(entry.path()).unwrap().count()).all(|left| left == 0));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bench.path().to_str().unwrap()), "{mounts}");
}
