//! All processes, and how each is to be asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::config::{self, CREDENTIAL, PolicySize, Ports};
use super::part::{Part, command, free_port, loopback, prepare};
use super::scenario::{Scenario, Who};
use super::{CompareError, Options, say};
use crate::authority::{Authority, Pair};
use crate::process;
use crate::tls::Protocol;

/// What is compared.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) who: Who,
    /// None is straight to the upstream.
    pub(super) proxy: Option<SocketAddr>,
    pub(super) part: Option<Part>,
    pub(super) roots: Vec<PathBuf>,
    /// It swaps placeholders; the others get the credential itself.
    pub(super) swaps: bool,
    pub(super) speaks_h2: bool,
    /// How it names its own version.
    pub(super) version: String,
    /// KiB in RAM before anybody asked.
    pub(super) at_rest: Option<u64>,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct World {
    pub(super) program: PathBuf,
    pub(super) ports: [u16; 2],
    pub(super) folder: PathBuf,
    pub(super) targets: Vec<Target>,
    pub(super) upstream: Part,
}

/// The names of the targets that the report compares with each other.
pub(super) const DIRECT: &str = "no proxy";
pub(super) const YARDSTICK: &str = "yardstick";
pub(super) const KEYFERRY: &str = "keyferry";
pub(super) const SQUID: &str = "Squid";
pub(super) const MITMPROXY: &str = "mitmproxy";

const SIZES: [PolicySize; 4] = [
    PolicySize::SMALL,
    PolicySize { rules: 1_000, secrets: 100 },
    PolicySize { rules: 10_000, secrets: 1_000 },
    PolicySize { rules: 10_000, secrets: 10_000 },
];

impl World {
    /// Starts what the scenarios need.
    pub(super) async fn start(options: &Options, scenarios: &[Scenario]) -> Result<Self, CompareError> {
        let folder = options.folder.clone();
        let program = std::env::current_exe()
            .map_err(|source| CompareError::File { path: PathBuf::from("/proc/self/exe"), source })?;
        let (authority, authority_pair) = Authority::make(&folder, "upstream-ca")?;
        let server = authority.issue(&folder, "upstream", "*.bench.localhost")?;
        let ports = [free_port().await?, free_port().await?];
        let mut upstream = command(&program, &folder);
        upstream.arg("upstream");
        upstream.args(["--h1-port", &ports[0].to_string(), "--h2-port", &ports[1].to_string()]);
        upstream.arg("--certificate").arg(&server.certificate).arg("--key").arg(&server.key);
        upstream.args(["--credential", CREDENTIAL]);
        let upstream = Part::start("upstream", upstream, ports[1], &folder).await?;
        for (name, credential) in [("credential", CREDENTIAL), ("placeholder", config::BODY_PLACEHOLDER)] {
            write(&folder.join(format!("{name}.json")), &config::body(credential))?;
        }

        let builder = Builder { options, folder: &folder, upstream_ca: authority_pair.certificate, ports };
        let mut targets = Vec::new();
        if scenarios.iter().any(|scenario| scenario.who == Who::Proxies) {
            targets = builder.proxies(&program).await?;
        }
        if scenarios.iter().any(|scenario| scenario.who == Who::Policies) {
            // The names of SIZES end up in a table; a short run does without the middle.
            for size in SIZES.into_iter().filter(|size| !options.quick || size.rules != 1_000) {
                let name = format!("{} rules, {} secrets", size.rules, size.secrets);
                targets.push(builder.keyferry(&name, Who::Policies, size).await?);
            }
        }
        Ok(Self { program, ports, folder, targets, upstream })
    }

    /// The port of the upstream that offers this.
    pub(super) fn port(&self, upstream: Protocol) -> u16 {
        match upstream {
            Protocol::H1 => self.ports[0],
            Protocol::H2 => self.ports[1],
        }
    }
}

struct Builder<'a> {
    options: &'a Options,
    folder: &'a Path,
    upstream_ca: PathBuf,
    ports: [u16; 2],
}

impl Builder<'_> {
    async fn proxies(&self, program: &Path) -> Result<Vec<Target>, CompareError> {
        let (_, peer) = Authority::make(self.folder, "peer")?;
        let mut targets = vec![self.direct(), self.yardstick(program, &peer).await?];
        targets.push(self.keyferry(KEYFERRY, Who::Proxies, PolicySize::SMALL).await?);
        if let (Some(squid), Some(certgen)) = (&self.options.squid, &self.options.squid_certgen) {
            targets.push(self.squid(squid, certgen, &peer).await?);
        }
        if let Some(mitmdump) = &self.options.mitmdump {
            targets.push(self.mitmproxy(mitmdump).await?);
        }
        Ok(targets)
    }

    fn direct(&self) -> Target {
        Target {
            name: DIRECT.to_owned(),
            who: Who::Proxies,
            proxy: None,
            part: None,
            roots: vec![self.upstream_ca.clone()],
            swaps: false,
            speaks_h2: true,
            version: String::new(),
            at_rest: None,
        }
    }

    fn target(&self, name: &str, port: u16, part: Part, root: PathBuf, version: String) -> Target {
        say(&format!("{name} is up after {} ms", part.started_in.as_millis()));
        let at_rest = part.pid().and_then(|pid| process::usage(pid).ok()).map(|usage| usage.resident);
        Target {
            name: name.to_owned(),
            at_rest,
            proxy: Some(loopback(port)),
            part: Some(part),
            roots: vec![root],
            version,
            ..self.direct()
        }
    }

    async fn yardstick(&self, program: &Path, authority: &Pair) -> Result<Target, CompareError> {
        let port = free_port().await?;
        let mut yardstick = command(program, self.folder);
        yardstick.args(["yardstick", "--port", &port.to_string()]);
        yardstick.arg("--certificate").arg(&authority.certificate).arg("--key").arg(&authority.key);
        yardstick.arg("--upstream-ca").arg(&self.upstream_ca);
        let part = Part::start(YARDSTICK, yardstick, port, self.folder).await?;
        let version = "hyper and rustls, bare".to_owned();
        Ok(self.target(YARDSTICK, port, part, authority.certificate.clone(), version))
    }

    async fn keyferry(&self, name: &str, who: Who, size: PolicySize) -> Result<Target, CompareError> {
        let binary = &self.options.keyferry;
        let folder = self.folder.join(format!("keyferry-{}-{}", size.rules, size.secrets));
        let folder = if who == Who::Proxies { self.folder.join("keyferry") } else { folder };
        std::fs::create_dir_all(&folder)
            .map_err(|source| CompareError::File { path: folder.clone(), source })?;
        let mut init = command(binary, &folder);
        init.args(["ca", "init", "--cert", "ca.crt", "--key", "ca.key"]);
        prepare(init).await?;
        let port = free_port().await?;
        let ports = Ports { listen: port, upstream: self.ports };
        let yaml = config::keyferry(ports, size, &folder.join("audit.jsonl"), &self.upstream_ca);
        write(&folder.join("keyferry.yaml"), &yaml)?;
        let mut keyferry = command(binary, &folder);
        keyferry.args(["proxy", "--config", "keyferry.yaml"]).env(config::VARIABLE, CREDENTIAL);
        let part = Part::start(KEYFERRY, keyferry, port, &folder).await?;
        let mut version = command(binary, &folder);
        version.arg("--version");
        let version = prepare(version).await?.trim().to_owned();
        let target = self.target(name, port, part, folder.join("ca.crt"), version);
        Ok(Target { who, swaps: true, ..target })
    }

    async fn squid(&self, squid: &Path, certgen: &Path, authority: &Pair) -> Result<Target, CompareError> {
        let port = free_port().await?;
        let store = self.folder.join("squid-certificates");
        let mut create = command(certgen, self.folder);
        create.arg("-c").arg("-s").arg(&store).args(["-M", "64MB"]);
        prepare(create).await?;
        // Squid resolves names by itself and knows only those of its hosts file.
        let names =
            ["api", "plain", "swap"].map(|name| format!("127.0.0.1 {name}.bench.localhost\n")).concat();
        write(&self.folder.join("hosts"), &names)?;
        write(
            &self.folder.join("squid.conf"),
            &config::squid(port, self.folder, certgen, &self.upstream_ca),
        )?;
        // Started by root, it becomes another user, which must be able to write here.
        let mut open = command("chmod", self.folder);
        open.args(["-R", "a+rwX"]).arg(self.folder);
        prepare(open).await?;
        let mut run = command(squid, self.folder);
        run.args(["-N", "-f"]).arg(self.folder.join("squid.conf"));
        let part = Part::start(SQUID, run, port, self.folder).await?;
        let mut version = command(squid, self.folder);
        version.arg("-v");
        let version = prepare(version).await?.lines().next().unwrap_or_default().to_owned();
        let target = self.target(SQUID, port, part, authority.certificate.clone(), version);
        Ok(Target { speaks_h2: false, ..target })
    }

    async fn mitmproxy(&self, mitmdump: &Path) -> Result<Target, CompareError> {
        let port = free_port().await?;
        let addon = self.folder.join("loopback.py");
        write(&addon, config::MITMPROXY_ADDON)?;
        let settings = self.folder.join("mitmproxy");
        let mut run = command(mitmdump, self.folder);
        run.args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
        run.arg("--set").arg(format!("confdir={}", settings.display()));
        run.arg("--set").arg(format!("ssl_verify_upstream_trusted_ca={}", self.upstream_ca.display()));
        run.args(["--set", "stream_large_bodies=1m", "--set", "flow_detail=0", "-s"]).arg(addon);
        let part = Part::start(MITMPROXY, run, port, self.folder).await?;
        let mut version = command(mitmdump, self.folder);
        version.arg("--version");
        let version = prepare(version).await?.lines().next().unwrap_or_default().to_owned();
        Ok(self.target(MITMPROXY, port, part, settings.join("mitmproxy-ca-cert.pem"), version))
    }
}

fn write(path: &Path, text: &str) -> Result<(), CompareError> {
    std::fs::write(path, text).map_err(|source| CompareError::File { path: path.to_owned(), source })
}
