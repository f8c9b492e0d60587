//! What a local sandbox costs: its start, beside bare bubblewrap and no sandbox at all; its memory while nothing happens in it; and the
//! way to the proxy through the forwarder, beside the same proxy reached directly.
//!
//! The proxy is the yardstick, whose downloads are as fast as keyferry's, and the client is curl. Everything runs as whoever starts this;
//! root alone may read what an init holds.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use keyferry_benches::authority::{Authority, Pair};
use keyferry_benches::table::Table;
use keyferry_benches::{upstream, yardstick};
use keyferry_sandbox::{
    Attach, Attached, Driver, Environment, Exit, Host, Limits, LocalDriver, LocalSandbox, Pipes, Request,
    Sandbox, SandboxId, Spec, Workspace,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;

/// Measures local sandboxes
#[derive(Parser)]
struct Options {
    /// The binary that goes inside [default: the one beside this program's folder]
    #[arg(long)]
    keyferry: Option<PathBuf>,
    /// How many starts of each kind
    #[arg(long, default_value_t = 100)]
    starts: usize,
    /// How many sandboxes that do nothing
    #[arg(long, default_value_t = 200)]
    idle: usize,
    /// How many downloads each way
    #[arg(long, default_value_t = 7)]
    downloads: usize,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

const START_BUDGET_MS: f64 = 30.0;
const IDLE_BUDGET_MIB: f64 = 8.0;
const FORWARD_BUDGET: f64 = 0.8;
const DOWNLOAD: u64 = 1 << 30;
const SMALL_REQUESTS: usize = 3000;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: Options) -> anyhow::Result<()> {
    let world = World::make(options.keyferry).await?;
    let mut budgets = Table::new(["budget", "asked", "measured", "met"].map(str::to_owned));
    let mut judge = |what: &str, asked: String, measured: String, met: bool| {
        budgets.row([what.to_owned(), asked, measured, if met { "yes" } else { "no" }.to_owned()]);
    };
    let mut tables = String::new();
    {
        use std::fmt::Write as _;

        let (table, start) = starts(&world, options.starts).await?;
        writeln!(tables, "### From the call to the first byte, ms\n\n{table}")?;
        judge(
            "start to the first byte",
            format!("≤ {START_BUDGET_MS} ms"),
            ms(start),
            start <= START_BUDGET_MS / 1e3,
        );

        let (table, idle) = idle(&world, options.idle).await?;
        writeln!(tables, "### Memory of one of {} idle sandboxes, KiB\n\n{table}", options.idle)?;
        let measured = format!("{:.2} MiB", idle / 1024.0);
        judge(
            "idle, of ours",
            format!("≤ {IDLE_BUDGET_MIB} MiB"),
            measured,
            idle <= IDLE_BUDGET_MIB * 1024.0,
        );

        let (table, ratio) = forwarding(&world, options.downloads).await?;
        writeln!(tables, "### The way to the proxy\n\n{table}")?;
        judge(
            "throughput beside the proxy's own",
            format!("≥ {FORWARD_BUDGET} ×"),
            format!("{ratio:.2} ×"),
            ratio >= FORWARD_BUDGET,
        );
    }
    write!(std::io::stdout(), "{tables}### Budgets\n\n{budgets}")?;
    Ok(())
}

fn ms(seconds: f64) -> String {
    format!("{:.1}", seconds * 1e3)
}

/// A proxy with a port and a socket, its upstream, and a driver.
struct World {
    directory: TempDir,
    driver: LocalDriver,
    ca: PathBuf,
    proxy_port: u16,
    upstream_port: u16,
}

impl World {
    async fn make(keyferry: Option<PathBuf>) -> anyhow::Result<Self> {
        let keyferry = match keyferry {
            Some(keyferry) => keyferry.canonicalize().context("--keyferry")?,
            // This program is target/PROFILE/deps/sandbox-HASH.
            None => std::env::current_exe()?.ancestors().nth(2).context("no folder")?.join("keyferry"),
        };
        ensure!(
            keyferry.exists(),
            "{} is missing\nhint: cargo build --release -p keyferry, or give --keyferry",
            keyferry.display()
        );
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let (authority, roots) = Authority::make(path, "upstream-ca")?;
        let Pair { certificate, key } = authority.issue(path, "upstream", "*.bench.localhost")?;
        let (_, peer) = Authority::make(path, "peer")?;
        let [proxy_port, upstream_port, unused] = free_ports()?;
        tokio::spawn(upstream::serve(upstream::Options {
            h1_port: upstream_port,
            h2_port: unused,
            certificate,
            key,
            credential: "none".to_owned(),
        }));
        tokio::spawn(yardstick::serve(yardstick::Options {
            port: proxy_port,
            certificate: peer.certificate.clone(),
            key: peer.key,
            upstream_ca: roots.certificate,
            socket: Some(path.join("proxy.sock")),
        }));
        for port in [proxy_port, upstream_port] {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let host = Host {
            state: path.join("state"),
            keyferry,
            search_path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            home: None,
        };
        let driver = LocalDriver::new(host)?;
        Ok(Self { driver, ca: peer.certificate, proxy_port, upstream_port, directory })
    }

    async fn create(&self, name: &str, command: &[&str]) -> anyhow::Result<LocalSandbox> {
        let workspace = self.directory.path().join("workspaces").join(name);
        std::fs::create_dir_all(&workspace)?;
        let spec = Spec {
            command: command.iter().map(Into::into).collect(),
            environment: Environment::new(&Request::default())?,
            workspace: Workspace { path: workspace, allow_sockets: false },
            read_only: Vec::new(),
            proxy_socket: self.directory.path().join("proxy.sock"),
            ca_bundle: std::fs::read_to_string(&self.ca)?,
            limits: Limits::default(),
        };
        Ok(self
            .driver
            .create(SandboxId::parse(&format!("bench-{}-{name}", std::process::id()))?, spec)
            .await?)
    }
}

fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let listeners: Vec<_> =
        (0..N).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port()));
    let ports: Vec<u16> = ports.collect::<anyhow::Result<_>>()?;
    ports.try_into().map_err(|_| anyhow::anyhow!("ports"))
}

async fn started(sandbox: &mut LocalSandbox) -> anyhow::Result<Pipes> {
    match sandbox.start(Attach::Pipes).await? {
        Attached::Pipes(pipes) => Ok(pipes),
        Attached::Terminal(_) => bail!("pipes were asked for"),
    }
}

async fn ended(mut sandbox: LocalSandbox) -> anyhow::Result<()> {
    let exit = sandbox.wait().await?;
    sandbox.delete().await?;
    ensure!(exit == Exit::Code(0), "a command ended with {exit:?}");
    Ok(())
}

/// A program that does nothing but say so.
const FIRST_BYTE: [&str; 2] = ["/usr/bin/printf", "x"];

/// The table, and the median of a sandbox in seconds.
async fn starts(world: &World, count: usize) -> anyhow::Result<(Table, f64)> {
    let namespaces =
        ["--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--ro-bind", "/usr", "/usr"];
    let links =
        ["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"];
    let bare =
        [&["bwrap"][..], &namespaces, &links, &["--proc", "/proc", "--dev", "/dev", "--"], &FIRST_BYTE]
            .concat();
    let [mut plain, mut bubblewrap, mut created, mut whole] = [(); 4].map(|()| Vec::with_capacity(count));
    // In turn, so that what else the machine does meets all alike.
    for number in 0..count {
        plain.push(first_byte(&FIRST_BYTE).await?);
        bubblewrap.push(first_byte(&bare).await?);
        let name = format!("start-{number}");
        let begun = Instant::now();
        let mut sandbox = world.create(&name, &FIRST_BYTE).await?;
        created.push(begun.elapsed());
        let mut pipes = started(&mut sandbox).await?;
        pipes.stdout.read_u8().await?;
        whole.push(begun.elapsed());
        ended(sandbox).await?;
    }
    let mut table = Table::new(["", "median", "90 %", "worst"].map(str::to_owned));
    let mut median = 0.0;
    for (name, mut times) in [
        ("a process", plain),
        ("bubblewrap alone", bubblewrap),
        ("a sandbox, prepared (`create`)", created),
        ("a sandbox, both", whole),
    ] {
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64();
        table.row([name.to_owned(), ms(at(0.5)), ms(at(0.9)), ms(at(1.0))]);
        median = at(0.5);
    }
    Ok((table, median))
}

async fn first_byte(words: &[&str]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| words[0].to_owned())?;
    child.stdout.take().context("a pipe")?.read_u8().await.with_context(|| words[0].to_owned())?;
    let taken = begun.elapsed();
    child.wait().await?;
    Ok(taken)
}

/// The table, and what is ours of one, in KiB.
async fn idle(world: &World, count: usize) -> anyhow::Result<(Table, f64)> {
    let own = std::process::id();
    let before = (pss(own)?, kernel()?);
    let mut sandboxes = Vec::with_capacity(count);
    for number in 0..count {
        let mut sandbox = world.create(&format!("idle-{number}"), &["/usr/bin/sleep", "100000"]).await?;
        // Its ends are part of what it costs the parent.
        let pipes = started(&mut sandbox).await?;
        sandboxes.push((sandbox, pipes));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = (pss(own)?, kernel()?);
    let (mut outside, mut inits, mut commands) = (0, 0, 0);
    for bubblewrap in children(own)? {
        outside += pss(bubblewrap)?;
        for init in children(bubblewrap)? {
            inits += pss(init)?;
            for command in children(init)? {
                commands += pss(command)?;
            }
        }
    }
    ensure!(inits > 0 && outside > 0, "nothing runs, or nothing of it can be seen");
    for (sandbox, pipes) in sandboxes {
        drop(pipes);
        sandbox.delete().await?;
    }
    let each = |kib: u64| kib as f64 / count as f64;
    let parent = after.0.saturating_sub(before.0);
    let ours = each(outside + inits + parent);
    let mut table = Table::new(["", "KiB"].map(str::to_owned));
    for (name, kib) in [
        ("the init, with the forwarder", each(inits)),
        ("bubblewrap outside", each(outside)),
        ("in the driver", each(parent)),
        ("of ours in all", ours),
        ("the command (`sleep`)", each(commands)),
        ("in the kernel: slabs, stacks, tables, per processor", each(after.1.saturating_sub(before.1))),
    ] {
        table.row([name.to_owned(), format!("{kib:.0}")]);
    }
    Ok((table, ours))
}

/// A process's share of memory in KiB: what several map is divided among them.
fn pss(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{path} cannot be read\nhint: an init shows its memory to root alone"))?;
    field(&text, "Pss:").with_context(|| path)
}

/// What the kernel holds for processes, namespaces and mounts, in KiB.
fn kernel() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    ["Slab:", "KernelStack:", "PageTables:", "Percpu:"]
        .iter()
        .map(|name| field(&text, name).context("/proc/meminfo"))
        .sum()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

/// The table, and how many times the direct way's throughput the forwarder has.
async fn forwarding(world: &World, rounds: usize) -> anyhow::Result<(Table, f64)> {
    let url = |path: &str| format!("https://api.bench.localhost:{}/{path}", world.upstream_port);
    let download = url(&format!("bytes/{DOWNLOAD}"));
    let small = url(&format!("open?[1-{SMALL_REQUESTS}]"));
    let [mut direct, mut forwarded] = [(); 2].map(|()| (Vec::new(), Vec::new()));
    for round in 0..rounds {
        for (number, (url, pick)) in [(&download, 0), (&small, 1)].into_iter().enumerate() {
            let outside = outside(world, url).await?;
            let inside = inside(world, &format!("way-{round}-{number}"), url).await?;
            let (direct, forwarded) = match pick {
                0 => (&mut direct.0, &mut forwarded.0),
                _ => (&mut direct.1, &mut forwarded.1),
            };
            direct.push(outside);
            forwarded.push(inside);
        }
    }
    let middle = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let throughput = |seconds: f64| DOWNLOAD as f64 / f64::from(1 << 20) / seconds;
    let (direct, forwarded) =
        ((middle(direct.0), middle(direct.1)), (middle(forwarded.0), middle(forwarded.1)));
    let mut table = Table::new(["", "direct", "through the forwarder", "beside direct"].map(str::to_owned));
    let ratio = throughput(forwarded.0) / throughput(direct.0);
    let row = |name: &str, direct: f64, forwarded: f64| {
        [
            name.to_owned(),
            format!("{direct:.0}"),
            format!("{forwarded:.0}"),
            format!("{:.2} ×", forwarded / direct),
        ]
    };
    table.row(row("download of 1 GiB, MiB/s", throughput(direct.0), throughput(forwarded.0)));
    let each = |seconds: f64| seconds * 1e6 / SMALL_REQUESTS as f64;
    table.row(row("one small request after the other, µs", each(direct.1), each(forwarded.1)));
    Ok((table, ratio))
}

/// What curl is told: it writes how long each transfer took, and throws away what it gets.
fn curl(ca: &str, port: u16, url: &str) -> String {
    format!(
        "exec curl -sS --fail --http1.1 --cacert {ca} --noproxy '' --proxy http://127.0.0.1:{port} \
         --write-out '%{{stderr}}%{{time_total}}\\n' '{url}' >/dev/null"
    )
}

async fn outside(world: &World, url: &str) -> anyhow::Result<f64> {
    let script = curl(&world.ca.display().to_string(), world.proxy_port, url);
    let output = Command::new("sh").args(["-c", &script]).output().await?;
    total(&String::from_utf8_lossy(&output.stderr))
}

async fn inside(world: &World, name: &str, url: &str) -> anyhow::Result<f64> {
    let script = curl(keyferry_sandbox::CA_BUNDLE, keyferry_sandbox::PROXY_PORT, url);
    let mut sandbox = world.create(name, &["sh", "-c", &script]).await?;
    let mut pipes = started(&mut sandbox).await?;
    let mut said = String::new();
    pipes.stderr.read_to_string(&mut said).await?;
    ended(sandbox).await.with_context(|| said.clone())?;
    total(&said)
}

fn total(said: &str) -> anyhow::Result<f64> {
    let times = said.lines().map(|line| line.parse::<f64>().with_context(|| format!("curl said {line}")));
    times.sum()
}
