//! The proxy under test: a process of its own, with a configuration, a name server and an audit file.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::authority::Authority;
use crate::dns::NameServer;
use crate::origin::Origin;
use crate::raw_origin::RawOrigin;
use crate::{audit, http1, parts, ports, within};

/// A running proxy. Dropping it kills it.
pub struct Proxy {
    folder: TempDir,
    child: Child,
    listen: SocketAddr,
    metrics: SocketAddr,
    stderr: Arc<Mutex<String>>,
    credentials: Option<(String, String)>,
    dns: NameServer,
}

/// How a proxy is to be.
#[derive(Clone)]
pub struct ProxyBuilder {
    binary: PathBuf,
    names: Vec<(String, Ipv4Addr)>,
    ports: Vec<u16>,
    variables: Vec<(String, String)>,
    options: Vec<String>,
    credentials: Option<(String, String)>,
    audit: String,
    document: String,
    waits_for: &'static str,
}

/// A proxy that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// All that it said.
    pub stderr: String,
    /// Its audit file, byte for byte.
    pub audit: String,
}

impl Ended {
    /// Every record of a finished request.
    pub fn records(&self) -> Vec<Value> {
        audit::requests(&self.audit)
    }

    /// The only audit record, normalised.
    ///
    /// # Panics
    /// When there were none, or more.
    pub fn only_record(&self) -> Value {
        let records = self.records();
        let [only] = records.as_slice() else { panic!("not one record but {}: {records:#?}", records.len()) };
        audit::normalised(only)
    }

    /// Fails the test if a value stands in anything that the proxy wrote, plainly or as Basic
    /// credentials hold it.
    ///
    /// # Panics
    /// When it does.
    pub fn assert_never_wrote(&self, secret: &str) {
        for (place, text) in [("standard error", &self.stderr), ("the audit file", &self.audit)] {
            for form in audit::forms(secret) {
                assert!(!text.contains(&form), "{place} holds {secret} as {form}:\n{text}");
            }
        }
    }
}

impl Proxy {
    /// A proxy by that binary, which trusts the origins of this bench and may reach loopback.
    pub fn builder(binary: impl AsRef<Path>) -> ProxyBuilder {
        ProxyBuilder {
            binary: binary.as_ref().to_owned(),
            names: Vec::new(),
            ports: Vec::new(),
            variables: Vec::new(),
            options: Vec::new(),
            credentials: None,
            audit: String::new(),
            document: String::new(),
            waits_for: "/readyz",
        }
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// What a sandbox has in `HTTPS_PROXY`, with its credentials where it has some.
    pub fn url(&self) -> String {
        match &self.credentials {
            None => format!("http://{}", self.listen),
            Some((user, password)) => format!("http://{user}:{password}@{}", self.listen),
        }
    }

    /// The same without, or with other, credentials.
    pub fn url_as(&self, credentials: Option<(&str, &str)>) -> String {
        match credentials {
            None => format!("http://{}", self.listen),
            Some((user, password)) => format!("http://{user}:{password}@{}", self.listen),
        }
    }

    /// The certificate that its clients trust.
    pub fn ca_certificate(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// The authority that it signs leafs with.
    pub fn authority(&self) -> Authority {
        Authority::from_files(&self.ca_certificate(), &self.folder.path().join("ca.key"))
    }

    /// The name server that it asks.
    pub fn dns(&self) -> &NameServer {
        &self.dns
    }

    /// Asks its admin listener.
    pub async fn admin(&self, path: &str) -> http1::Answer {
        within(path, get(self.metrics, path)).await.expect("an answer of the admin listener")
    }

    /// Where its admin listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.metrics
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no holder of this lock panics").clone()
    }

    /// Waits until at least that many audit records are there, and returns all, normalised.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for_records(&self, count: usize) -> Vec<Value> {
        let path = self.folder.path().join("audit.jsonl");
        let complete = async {
            loop {
                let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
                // A line may be half written; the next look sees all of it.
                let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
                let records = audit::requests(whole);
                if records.len() >= count {
                    return records;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let records = within(&format!("{count} audit records"), complete).await;
        records.iter().map(audit::normalised).collect()
    }

    /// The number of its process.
    ///
    /// # Panics
    /// When it is gone.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a proxy that still runs")
    }

    /// The most memory that it has used so far, in bytes.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn peak_memory(&self) -> u64 {
        let pid = self.child.id().expect("a proxy that still runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the proxy's state");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("VmHWM in kB") * 1024
    }

    /// Asks it to end, as a service manager does.
    ///
    /// # Panics
    /// When it is gone already.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends a signal, named as `kill` names it.
    ///
    /// # Panics
    /// When the proxy is gone.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("a proxy that still runs");
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().await;
        assert!(sent.expect("run kill").success(), "the proxy was gone: {}", self.stderr());
    }

    /// A file in the folder that it runs in.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes the text of its configuration file.
    ///
    /// # Panics
    /// When `old` is not in it, or it cannot be written.
    pub fn edit(&self, old: &str, new: &str) {
        let path = self.file("keyferry.yaml");
        let text = std::fs::read_to_string(&path).expect("read the configuration");
        assert!(text.contains(old), "{old:?} is not in the configuration:\n{text}");
        // Replaced by renaming, as editors do: a reader sees the old text or the new.
        let draft = self.file("keyferry.yaml.new");
        std::fs::write(&draft, text.replacen(old, new, 1)).expect("write the configuration");
        std::fs::rename(draft, path).expect("replace the configuration");
    }

    /// Waits until its log says `text` for the `count`th time.
    ///
    /// # Panics
    /// When it does not.
    pub async fn wait_for_log(&self, text: &str, count: usize) {
        let waiting = async {
            while self.stderr().matches(text).count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(text, waiting).await;
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn wait(mut self) -> Ended {
        let status: ExitStatus =
            within("the proxy's end", self.child.wait()).await.expect("wait for the proxy");
        // Its standard error ends with it; the reader has then seen all of it.
        let text = within("the end of its standard error", async {
            loop {
                if Arc::strong_count(&self.stderr) == 1 {
                    return self.stderr();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let audit = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap_or_default();
        Ended { code: status.code(), stderr: text, audit }
    }

    /// Asks it to end and waits until it has: every record is written then.
    pub async fn stop(self) -> Ended {
        self.terminate().await;
        self.wait().await
    }
}

impl ProxyBuilder {
    /// The origin's name leads to it, and its port is allowed.
    pub fn route(self, origin: &Origin) -> Self {
        self.name_at(origin.name(), origin.ip()).port(origin.port())
    }

    /// The same for an origin that writes byte by byte.
    pub fn route_raw(self, origin: &RawOrigin) -> Self {
        self.name(origin.name()).port(origin.port())
    }

    /// A name that leads to loopback.
    pub fn name(self, name: &str) -> Self {
        self.name_at(name, Ipv4Addr::LOCALHOST)
    }

    /// A name that leads elsewhere.
    pub fn name_at(mut self, name: &str, address: Ipv4Addr) -> Self {
        self.names.push((name.to_owned(), address));
        self
    }

    /// A port that may be asked for.
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// A variable of the proxy's environment, which is empty otherwise.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of the `proxy` block.
    pub fn option(mut self, line: &str) -> Self {
        self.options.push(line.to_owned());
        self
    }

    /// Clients must show these credentials.
    pub fn auth(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self.env("LISTENER_PASSWORD", password)
            .option(&format!("auth: {{ user: {user}, password: {{ type: env, var: LISTENER_PASSWORD }} }}"))
    }

    /// The rest of the document: `transforms`, `default_action`, …
    pub fn policy(mut self, yaml: &str) -> Self {
        self.document = yaml.to_owned();
        self
    }

    /// More keys of the `audit` block.
    pub fn audit(mut self, keys: &str) -> Self {
        self.audit = format!(", {keys}");
        self
    }

    /// It is started when it answers, whether or not it has a policy.
    pub fn without_policy(mut self) -> Self {
        self.waits_for = "/healthz";
        self
    }

    /// The policy comes from the control service at `url`, which gave the proxy this token.
    pub fn managed(self, url: &str, token: &str) -> Self {
        self.env("KEYFERRY_CONTROL_PLANE_URL", url).env("KEYFERRY_PROXY_TOKEN", token)
    }

    /// Only `domains`, nothing to swap.
    pub fn allow(self, domains: &[&str]) -> Self {
        let domains = domains.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        self.policy(&format!("transforms: [{{ name: allowlist, config: {{ domains: [{domains}] }} }}]\n"))
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(self) -> Proxy {
        // Another process may take a free port between our look and the proxy's bind.
        for _ in 0..3 {
            match self.try_start().await {
                Ok(proxy) => return proxy,
                Err(said) if said.contains("in use") => {}
                Err(said) => panic!("the proxy ended before it was ready, and said:\n{said}"),
            }
        }
        panic!("no port for the proxy after three attempts");
    }

    async fn try_start(&self) -> Result<Proxy, String> {
        let folder = TempDir::new().expect("a temporary folder");
        let dns = NameServer::start().await;
        for (name, address) in &self.names {
            dns.set(name, &[*address]);
        }
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()));
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()));
        make_ca(&self.binary, folder.path()).await;
        std::fs::write(folder.path().join("origins.pem"), Authority::trusted().pem())
            .expect("write the roots");
        let config = folder.path().join("keyferry.yaml");
        std::fs::write(&config, self.render(listen, metrics, dns.address()))
            .expect("write the configuration");

        let mut child = command(&self.binary, folder.path())
            .arg("proxy")
            .arg("--config")
            .arg(&config)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the proxy");
        let stderr = collect_stderr(&mut child);
        let mut proxy =
            Proxy { folder, child, listen, metrics, stderr, credentials: self.credentials.clone(), dns };
        match within("the proxy to be ready", until_ready(&mut proxy, self.waits_for)).await {
            Ok(()) => Ok(proxy),
            Err(()) => Err(proxy.wait().await.stderr),
        }
    }

    fn render(&self, listen: SocketAddr, metrics: SocketAddr, dns: SocketAddr) -> String {
        let mut yaml = format!("proxy:\n  tunnel_listen: \"{listen}\"\n");
        if !self.ports.is_empty() {
            writeln!(yaml, "  allowed_ports: {:?}", self.ports).expect("a String takes it");
        }
        if !self.options.iter().any(|line| line.starts_with("upstream_allow_cidrs")) {
            yaml += "  upstream_allow_cidrs: [\"127.0.0.0/8\"]\n";
        }
        for line in &self.options {
            writeln!(yaml, "  {line}").expect("a String takes it");
        }
        yaml += "tls: { ca_cert: ca.crt, ca_key: ca.key, upstream_ca: origins.pem }\n";
        writeln!(yaml, "audit: {{ sink: file, path: audit.jsonl{} }}", self.audit)
            .expect("a String takes it");
        writeln!(yaml, "dns: {{ upstream_resolver: \"{dns}\" }}\nmetrics: {{ listen: \"{metrics}\" }}")
            .expect("a String takes it");
        yaml + &self.document
    }
}

/// A run of the binary with no environment but a search path, in `folder`.
pub fn command(binary: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("PATH", parts::search_path()).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

/// Makes `ca.crt` and `ca.key` in `folder`, as an operator does.
///
/// # Panics
/// When the binary does not.
pub async fn make_ca(binary: impl AsRef<OsStr>, folder: &Path) {
    let made = command(binary, folder)
        .args(["ca", "init", "--cert", "ca.crt", "--key", "ca.key"])
        .stderr(Stdio::piped())
        .output()
        .await
        .expect("run `ca init`");
    assert!(made.status.success(), "`ca init` failed: {}", String::from_utf8_lossy(&made.stderr));
}

fn collect_stderr(child: &mut Child) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let mut pipe = child.stderr.take().expect("a piped standard error");
    let sink = Arc::clone(&text);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
            let part = String::from_utf8_lossy(&buffer[..length]);
            sink.lock().expect("no holder of this lock panics").push_str(&part);
        }
    });
    text
}

/// An error when the process ended instead.
async fn until_ready(proxy: &mut Proxy, path: &str) -> Result<(), ()> {
    loop {
        if proxy.child.try_wait().expect("ask for the proxy's state").is_some() {
            return Err(());
        }
        if get(proxy.metrics, path).await.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<http1::Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    http1::read_answer(&mut stream).await
}
