//! A git server: `git http-backend` behind TLS and Basic authentication.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::origin::{Body, Handler, Origin, OriginBuilder, channel};
use crate::parts;

/// A running git server with one repository.
pub struct GitServer {
    /// Where it is served.
    pub origin: Origin,
    root: TempDir,
    repository: String,
}

impl GitServer {
    /// Serves `sample.git`, a repository with one commit, in which `README` says "hello".
    ///
    /// # Panics
    /// When git is not installed.
    pub async fn start(name: &str, user: &str, password: &str) -> Self {
        Self::serve(Origin::builder(name), "sample.git", user, password).await
    }

    /// Serves such a repository under another path.
    ///
    /// # Panics
    /// When git is not installed.
    pub async fn serve(origin: OriginBuilder, repository: &str, user: &str, password: &str) -> Self {
        let root = TempDir::new().expect("a temporary folder");
        make_repository(root.path(), repository).await;
        let backend = backend().await;
        let folder: Arc<Path> = root.path().into();
        let handler: Handler = Arc::new(move |request| {
            let (backend, folder) = (backend.clone(), Arc::clone(&folder));
            Box::pin(async move { run(request, &backend, &folder).await })
        });
        let origin = origin.basic_auth(user, password).handler(handler).start().await;
        Self { origin, root, repository: repository.to_owned() }
    }

    /// What to clone, with these credentials in the address.
    pub fn url(&self, user: &str, password: &str) -> String {
        format!("https://{user}:{password}@{}/{}", self.origin.authority(), self.repository)
    }

    /// A file at the tip of the server's own branch.
    pub async fn show(&self, file: &str) -> String {
        let at = self.root.path().join(&self.repository);
        git(&at, &["show", &format!("main:{file}")]).await
    }
}

async fn make_repository(root: &Path, path: &str) {
    git(root, &["init", "--quiet", "--initial-branch=main", "work"]).await;
    let work = root.join("work");
    std::fs::write(work.join("README"), "hello\n").expect("write a file to commit");
    git(&work, &["add", "README"]).await;
    git(&work, &["commit", "--quiet", "--message", "first"]).await;
    git(root, &["clone", "--quiet", "--bare", "work", path]).await;
    git(&root.join(path), &["config", "http.receivepack", "true"]).await;
}

/// Next to the git that is first on the search path: two may be installed, and they do not mix.
async fn backend() -> PathBuf {
    let folder = git(Path::new("/"), &["--exec-path"]).await;
    let backend = Path::new(folder.trim()).join("git-http-backend");
    assert!(backend.exists(), "{} is missing\nhint: run ./scripts/test", backend.display());
    backend
}

async fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(parts::command("git"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(environment())
        .output()
        .await
        .expect("run git");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text from git")
}

fn environment() -> [(&'static str, std::ffi::OsString); 7] {
    [
        ("PATH", parts::search_path()),
        ("GIT_CONFIG_NOSYSTEM", "1".into()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
        ("GIT_AUTHOR_NAME", "Origin".into()),
        ("GIT_AUTHOR_EMAIL", "origin@example".into()),
        ("GIT_COMMITTER_NAME", "Origin".into()),
        ("GIT_COMMITTER_EMAIL", "origin@example".into()),
    ]
}

/// One request by CGI (RFC 3875), both bodies streamed.
async fn run(request: Request<Incoming>, backend: &Path, root: &Path) -> Response<Body> {
    let mut command = Command::new(backend);
    command.env_clear().envs(environment()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "somebody")
        .env("REQUEST_METHOD", request.method().as_str())
        .env("PATH_INFO", request.uri().path())
        .env("QUERY_STRING", request.uri().query().unwrap_or_default());
    let fields = [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ];
    for (field, variable) in fields {
        if let Some(value) = request.headers().get(field).and_then(|value| value.to_str().ok()) {
            command.env(variable, value);
        }
    }
    let mut child = command.spawn().expect("run git http-backend");
    let stdin = child.stdin.take().expect("a piped standard input");
    let stdout = BufReader::new(child.stdout.take().expect("a piped standard output"));
    tokio::spawn(feed(request.into_body(), stdin));
    let response = read_response(stdout).await;
    // Its output has ended or is being read; this only reaps it.
    tokio::spawn(async move { child.wait().await });
    response
}

async fn feed(mut body: Incoming, mut stdin: ChildStdin) {
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
}

async fn read_response(mut stdout: BufReader<ChildStdout>) -> Response<Body> {
    let mut response = Response::builder();
    loop {
        let mut line = String::new();
        stdout.read_line(&mut line).await.expect("the output of git http-backend");
        match line.trim_end().split_once(": ") {
            Some(("Status", status)) => response = response.status(&status[..3]),
            Some((name, value)) => response = response.header(name, value),
            None => break,
        }
    }
    let (sender, body) = channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = stdout.read(&mut buffer).await {
            if sender.send(Ok(Frame::data(Bytes::copy_from_slice(&buffer[..length])))).await.is_err() {
                return;
            }
        }
    });
    response.body(body).expect("a valid answer of git http-backend")
}
