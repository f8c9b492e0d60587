//! A sandbox: an empty environment but for the variables that lead through the proxy.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::proxy::Proxy;
use crate::{parts, within};

/// Where a real client runs.
pub struct Sandbox {
    home: TempDir,
    ca: Option<PathBuf>,
    variables: BTreeMap<String, OsString>,
}

/// How a client ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Its standard output, if it succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "the client failed: {self:#?}");
        self.stdout
    }

    /// What it said on standard output, then on standard error, if it failed.
    ///
    /// # Panics
    /// When it did not fail.
    #[track_caller]
    pub fn failure(self) -> String {
        assert!(!self.status.success(), "the client succeeded: {self:#?}");
        self.stdout + &self.stderr
    }
}

/// A response as curl saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Such as 200.
    pub status: u16,
    /// `h2` or `http/1.1`
    pub protocol: &'static str,
    /// The body.
    pub body: String,
}

impl Fetched {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }

    /// The code of a refusal.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_else(|| panic!("not a refusal: {self:#?}")).to_owned()
    }
}

impl Sandbox {
    /// One whose way out is that proxy.
    pub fn of(proxy: &Proxy) -> Self {
        Self::with_proxy_url(proxy, &proxy.url())
    }

    /// The same with other credentials in the proxy's address.
    pub fn with_proxy_url(proxy: &Proxy, url: &str) -> Self {
        let mut sandbox = Self::without_proxy().trusting(&proxy.ca_certificate());
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            sandbox = sandbox.env(name, url);
        }
        sandbox
    }

    /// No sandbox: a client that reaches the origins directly, to prove them by themselves.
    pub fn without_proxy() -> Self {
        let home = TempDir::new().expect("a temporary home");
        let sandbox = Self { home, ca: None, variables: BTreeMap::new() };
        // Files of the machine's own, and questions that nobody is there to answer.
        sandbox
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    }

    /// The one authority that its clients trust.
    pub fn trusting(mut self, certificate: &Path) -> Self {
        self = self.with_ca(certificate);
        let names = [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "GIT_SSL_CAINFO",
            "PIP_CERT",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        ];
        for name in names {
            self = self.env(name, certificate);
        }
        self
    }

    /// The same, where no variable says so yet.
    pub fn with_ca(mut self, certificate: &Path) -> Self {
        self.ca = Some(certificate.to_owned());
        self
    }

    /// A variable more.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.insert(name.to_owned(), value.as_ref().to_owned());
        self
    }

    /// The authority that its clients trust, for those that read no variable.
    ///
    /// # Panics
    /// When none was given.
    pub fn ca(&self) -> &Path {
        self.ca.as_deref().expect("a sandbox that trusts somebody")
    }

    /// Its home, which is also where its programs start.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A file in its home.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home().join(name);
        std::fs::write(&path, content).expect("write into the sandbox");
        path
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Ran {
        let program = program.as_ref();
        let output = self.command(program, arguments).output();
        let output = within(&format!("the end of {}", program.display()), output).await;
        ran(output.unwrap_or_else(|error| panic!("run {}: {error}", program.display())))
    }

    /// Runs curl, quiet but for errors, with these arguments more.
    pub async fn curl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        let mut all = vec![OsString::from("-sS")];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self.run("curl", all).await
    }

    /// Fetches a resource with curl: these arguments and the URL among them.
    ///
    /// # Panics
    /// When there was no answer from the resource's own side: use [`curl`](Self::curl) for that.
    pub async fn fetch<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Fetched {
        let mut all = vec![OsString::from("-w"), OsString::from("\n%{http_code} %{http_version}")];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        let output = self.curl(all).await.success();
        let (body, written) = output.rsplit_once('\n').expect("curl writes what -w asks for");
        let (status, protocol) = written.split_once(' ').expect("two words");
        Fetched {
            status: status.parse().expect("a status"),
            protocol: if protocol == "2" { "h2" } else { "http/1.1" },
            body: body.to_owned(),
        }
    }

    /// Runs one of our Python programs.
    pub async fn python<A: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = A>) -> Ran {
        let mut all = vec![parts::script(name).into_os_string()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self.run(parts::python(), all).await
    }

    /// Starts a program to be talked with while it runs.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Running {
        let mut command = self.command(program.as_ref(), arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("start the client");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a piped standard output"));
        Running { child, stdin, stdout }
    }

    fn command<A: AsRef<OsStr>>(&self, program: &OsStr, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", parts::search_path())
            .env("HOME", self.home())
            .env("LC_ALL", "C.UTF-8")
            .envs(&self.variables)
            .current_dir(self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A client that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// The number of its process.
    ///
    /// # Panics
    /// When it is gone.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a client that runs")
    }

    /// The next line of its standard output, without its end.
    ///
    /// # Panics
    /// When none comes.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = within("a line from the client", self.stdout.read_line(&mut line)).await;
        if read.expect("read from the client") == 0 {
            let mut said = String::new();
            let mut stderr = self.child.stderr.take().expect("a piped standard error");
            stderr.read_to_string(&mut said).await.expect("read what the client said");
            panic!("the client ended before its next line: {said}");
        }
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When it no longer reads.
    pub async fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("a client whose standard input is open");
        stdin.write_all(text.as_bytes()).await.expect("write to the client");
        stdin.flush().await.expect("write to the client");
    }

    /// Closes its standard input and waits for its end; the output is what was not read before.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn finish(mut self) -> Ran {
        drop(self.stdin.take());
        let mut stdout = String::new();
        let mut stderr = String::new();
        let mut errors = self.child.stderr.take().expect("a piped standard error");
        let rest = async {
            let (out, err) =
                tokio::join!(self.stdout.read_to_string(&mut stdout), errors.read_to_string(&mut stderr));
            out.and(err).expect("read from the client");
            self.child.wait().await.expect("wait for the client")
        };
        let status = within("the client's end", rest).await;
        Ran { status, stdout, stderr }
    }

    /// Kills it, as a crash does.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("kill the client");
    }
}
