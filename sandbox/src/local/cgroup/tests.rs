use super::*;

fn limits() -> Limits {
    Limits { memory: Some(1 << 20), processes: Some(7), cpu: Some(1500), ..Limits::default() }
}

fn mount(root: &str, place: &Path, kind: &str, options: &str) -> String {
    format!("30 25 0:26 {root} {} rw,relatime shared:4 - {kind} {kind} rw,{options}\n", place.display())
}

fn content(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// No tree of version 2 with these controllers is to be had on every machine that runs this, so it is a copy in ordinary files.

#[test]
fn version_2_limits_below_the_nearest_group_that_hands_its_controllers_down() {
    let tree = tempfile::tempdir().unwrap();
    let slice = tree.path().join("user.slice");
    let own = slice.join("shell.scope");
    fs::create_dir_all(&own).unwrap();
    // Ours has processes of its own and hands nothing down: the kernel refuses the write, here a directory in the file's place does.
    fs::create_dir(own.join("cgroup.subtree_control")).unwrap();
    fs::write(own.join("cgroup.procs"), "").unwrap();
    fs::write(slice.join("cgroup.procs"), "").unwrap();
    let made_by_the_kernel = slice.join("keyferry-s1");
    fs::create_dir(&made_by_the_kernel).unwrap();
    let standing = Standing {
        groups: "0::/user.slice/shell.scope\n".to_owned(),
        mounts: mount("/", tree.path(), "cgroup2", "nsdelegate"),
    };
    // Files keep what was written last, and a kernel adds to it.
    fs::write(slice.join("cgroup.subtree_control"), "memory pids cpu").unwrap();
    let one = Limits { processes: None, cpu: None, ..limits() };

    let possible = standing.possible("keyferry-s1", &one);
    let made = standing.make("keyferry-s1", &one);

    assert_eq!(
        possible,
        [tree.path().join("keyferry-s1"), slice.join("keyferry-s1"), own.join("keyferry-s1")]
    );
    assert_eq!(
        made,
        Cgroups { directories: vec![made_by_the_kernel.clone()], held: vec![Controller::Memory] }
    );
    assert_eq!(content(made_by_the_kernel.join("memory.max")), "1048576");
    assert_eq!(content(made_by_the_kernel.join("memory.swap.max")), "0");
}

#[test]
fn version_1_limits_in_the_hierarchy_of_each_controller() {
    let tree = tempfile::tempdir().unwrap();
    let place = |name: &str| tree.path().join(name);
    for name in ["memory/box", "pids", "cpu,cpuacct/box"] {
        fs::create_dir_all(place(name)).unwrap();
    }
    let standing = Standing {
        groups: "4:memory:/outer/box\n3:cpu,cpuacct:/box\n2:pids:/\n1:name=systemd:/\n0::/\n".to_owned(),
        mounts: mount("/outer", &place("memory"), "cgroup", "memory")
            + &mount("/", &place("cpu,cpuacct"), "cgroup", "cpu,cpuacct")
            + &mount("/", &place("pids"), "cgroup", "pids"),
    };

    let possible = standing.possible("keyferry-s1", &limits());
    let made = standing.make("keyferry-s1", &limits());

    assert!(made.directories.iter().all(|group| possible.contains(group)), "{possible:?}");
    assert_eq!(made.held, [Controller::Memory, Controller::Processes, Controller::Cpu]);
    assert_eq!(content(place("memory/box/keyferry-s1/memory.limit_in_bytes")), "1048576");
    assert_eq!(content(place("pids/keyferry-s1/pids.max")), "7");
    assert_eq!(content(place("cpu,cpuacct/box/keyferry-s1/cpu.cfs_quota_us")), "150000");
}

#[test]
fn a_system_without_cgroups_limits_nothing_and_says_so() {
    let none = Standing { groups: String::new(), mounts: String::new() };
    assert_eq!(none.make("keyferry-s1", &limits()), Cgroups::default());
}

#[test]
fn sandboxes_with_one_id_in_two_directories_share_no_group() {
    let id = SandboxId::parse("s1").unwrap();
    let [one, same, other] = ["/one", "/one", "/two"].map(|records| name(Path::new(records), &id));
    assert_eq!(one, same);
    assert_ne!(one, other);
}
