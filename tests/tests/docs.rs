//! What the documents say is true of the program: their commands run, their configurations load, their links and the
//! tests that they name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use keyferry_store::seal::{Keyring, Keys};
use keyferry_store::{DatabaseUrl, Store};
use keyferry_tests::document::{Document, documents, keyferry_command};
use keyferry_tests::proxy::{Proxy, command, make_ca};
use keyferry_tests::{http1, parts, ports, tunnel, within};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Child;

const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry-under-test");

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_a_document_runs() {
    let mut seen = BTreeSet::new();
    for document in documents() {
        if !document.blocks.iter().any(|block| block.commands().next().is_some()) {
            continue;
        }
        let place = Place::new();
        if !document.blocks.iter().any(|block| block.text.contains("keyferry ca init")) {
            make_ca(KEYFERRY, place.folder.path()).await;
        }
        if document.blocks.iter().any(|block| block.text.contains("keyferry keyring")) {
            place.database().await;
        }
        for block in &document.blocks {
            if let Some(name) = block.file_name() {
                fs::write(place.folder.path().join(name), &block.text)
                    .expect("write what the document shows");
            }
            for line in block.commands() {
                seen.insert(words(&line).join(" "));
                place.run(&line).await.unwrap_or_else(|fault| panic!("{}: {line}: {fault}", document.name));
            }
        }
    }
    let expected = [
        "allow alice",
        "ca bundle",
        "ca init",
        "ca show",
        "check",
        "control",
        "deny alice",
        "doctor",
        "explain",
        "grant alice github",
        "grant alice models github",
        "grant default",
        "keyring init",
        "keyring rotate",
        "keyring status",
        "log",
        "log verify",
        "perms",
        "perms principals revoke",
        "perms principals show",
        "perms roles show",
        "perms secrets list",
        "policy replay",
        "policy test",
        "preset add anthropic",
        "preset add github",
        "preset add npm",
        "preset add npm pypi",
        "preset list",
        "preset show anthropic github npm",
        "principal add alice",
        "principal rm alice",
        "principal show alice",
        "proxies add edge",
        "proxies list",
        "proxy",
        "revoke alice github",
        "revoke alice models",
        "run",
        "sandbox create job",
        "sandbox rm job",
        "sandbox rotate job",
        "secret add",
        "secret add github",
        "secret add models",
        "secret list",
        "secret rm models",
        "status",
        "up",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into(), "the documents show these commands");
}

#[test]
fn what_another_test_runs_of_a_document_is_run_there() {
    let mut count = 0;
    for document in documents() {
        for test in document.blocks.iter().filter_map(|block| block.run_by()) {
            let text = fs::read_to_string(parts::workspace().join(test)).unwrap_or_default();
            let name = document.path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            assert!(text.contains(&format!("\"{name}\"")), "{}: {test} does not read it", document.name);
            count += 1;
        }
    }
    assert!(count >= 8, "the recipes of agents have two such blocks each, and {count} were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_configuration_of_a_document_loads() {
    let mut count = 0;
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.is_configuration()) {
            let folder = TempDir::new().expect("a temporary folder");
            fs::write(folder.path().join("keyferry.yaml"), &block.text).expect("write the configuration");
            let check = command(KEYFERRY, folder.path())
                .args(["check", "keyferry.yaml"])
                .stderr(Stdio::piped())
                .output()
                .await
                .expect("run `keyferry check`");
            assert_eq!(said(&check), (Some(0), String::new()), "{}:\n{}", document.name, block.text);
            count += 1;
        }
    }
    assert!(count >= 3, "README.md and docs/ hold configurations, and {count} were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_a_sentence_names_exists() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut helps: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for document in documents() {
        for span in document.spans.iter().filter(|span| span.starts_with("keyferry ")) {
            let words = words(span);
            if !helps.contains_key(&words) {
                let help = command(KEYFERRY, folder.path())
                    .args(&words)
                    .arg("--help")
                    .stdout(Stdio::piped())
                    .output()
                    .await
                    .expect("run `keyferry … --help`");
                assert!(help.status.success(), "{}: `{span}`: there is no such command", document.name);
                helps.insert(words.clone(), String::from_utf8_lossy(&help.stdout).into_owned());
            }
            for flag in span.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(helps[&words].contains(flag), "{}: `{span}`: there is no {flag}", document.name);
            }
        }
    }
    assert!(helps.len() >= 4, "the documents name commands, and these were found: {:?}", helps.keys());
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for document in documents() {
        for link in document.links.iter().filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.path.clone(),
                path => document.path.parent().expect("a file has a folder").join(path),
            };
            assert!(target.exists(), "{}: there is no {}", document.name, target.display());
            if !heading.is_empty() {
                let anchors = Document::read(&target).anchors;
                let name = &document.name;
                assert!(
                    anchors.iter().any(|anchor| anchor == heading),
                    "{name}: no {link} among {anchors:?}"
                );
            }
            count += 1;
        }
    }
    assert!(count >= 10, "the documents link to each other, and {count} links were found");
}

#[test]
fn every_test_in_the_table_of_threats_exists() {
    let page = page("docs/security.md");
    let named: Vec<_> = page.spans.iter().filter_map(|span| span.split_once("::")).collect();
    assert!(named.len() >= 30, "docs/security.md names tests, and {} were found", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| {
            let text = fs::read_to_string(parts::workspace().join(file)).unwrap_or_default();
            !text.contains(&format!("fn {test}("))
        })
        .collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_page_names_the_fields_of_a_record_and_no_others() {
    let proxy = Proxy::builder(KEYFERRY).allow(&[]).start().await;
    let mut stream = tunnel::connect(&proxy).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = format!(
        "CONNECT unlisted.example:443 HTTP/1.1\r\nHost: unlisted.example:443\r\ntraceparent: {trace}\r\n\r\n"
    );
    assert_eq!(tunnel::exchange(&mut stream, request).await.status, 403);
    let records = proxy.stop().await.records();
    let audit = records[0]["audit"].as_object().expect("the request's fields");

    let page = page("docs/audit.md");
    // The file and the setting that the page speaks of begin like a field.
    let is_field = |name: &&str| !name.starts_with("jsonl") && *name != "on_full" && !name.contains(':');
    let named: BTreeSet<_> =
        page.spans.iter().filter_map(|span| span.strip_prefix("audit.")).filter(is_field).collect();
    // A managed proxy has one more; tests/managed.rs holds it.
    let written = audit.keys().map(String::as_str).chain(["sandbox"]);
    assert_eq!(named, written.collect());

    let examples: Vec<_> =
        page.blocks.iter().filter(|block| block.language == "json" && block.note.is_empty()).collect();
    assert!(!examples.is_empty(), "docs/audit.md shows a record");
    for example in examples {
        for line in example.text.lines() {
            let shown: serde_json::Value = serde_json::from_str(line).expect("a record on a line of its own");
            let fields = shown["audit"].as_object().expect("the request's fields");
            assert_eq!(fields.keys().collect::<Vec<_>>(), audit.keys().collect::<Vec<_>>(), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_ends_otherwise_than_the_document_says_is_told() {
    let place = Place::new();
    assert_eq!(place.run("keyferry check nowhere.yaml  # exits with 2").await, Ok(()));
    let wrong = place.run("keyferry check nowhere.yaml").await.expect_err("there is no such file");
    assert!(wrong.contains("Some(2) where 0 was expected") && wrong.contains("nowhere.yaml"), "{wrong}");
    let wrong = place.run("keyferry proxy --config nowhere.yaml").await.expect_err("there is no such file");
    assert!(wrong.contains("Some(2) where 0 was expected") && wrong.contains("nowhere.yaml"), "{wrong}");
}

#[test]
fn a_command_of_a_document_may_have_a_prompt_and_variables() {
    for line in ["keyferry demo", "$ keyferry demo", "A=1 B='2 3' keyferry demo", "$ A= keyferry demo"] {
        assert_eq!(keyferry_command(line), Some(line.trim_start_matches("$ ")), "{line}");
    }
    for line in ["./scripts/demo", "keyferry: ready", "# keyferry demo", "A=1", "curl --cacert a keyferry x"]
    {
        assert_eq!(keyferry_command(line), None, "{line}");
    }
}

/// A folder in which a document's commands run, with a `keyferry` on the search path.
struct Place {
    folder: TempDir,
    bin: TempDir,
    /// `keyferry up`, which runs to the end of the document or until the next one takes its place.
    up: Mutex<Option<Child>>,
}

impl Place {
    fn new() -> Self {
        let (folder, bin) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
        std::os::unix::fs::symlink(KEYFERRY, bin.path().join("keyferry")).expect("link the binary");
        // What a reader has: a secret in a file, and a tool.
        fs::write(folder.path().join("token.txt"), "a-secret-of-the-reader").expect("write the secret");
        // An agent that wants a key, and has the one that it is given.
        let agent = bin.path().join("claude");
        fs::write(&agent, "#!/bin/sh\ntest ${#ANTHROPIC_API_KEY} = 108\n").expect("write the agent");
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("make it a program");
        let tool = folder.path().join("tools/github");
        fs::create_dir_all(&tool).expect("make the tool's folder");
        let manifest = "[tool.centaur]\nhosts = [\"api.github.com\"]\nsecrets = [\"GITHUB_TOKEN\"]\n";
        fs::write(tool.join("pyproject.toml"), manifest).expect("write the tool's manifest");
        Self { folder, bin, up: Mutex::new(None) }
    }

    /// The database that the documents speak of, as a service leaves it that has sealed nothing yet.
    async fn database(&self) {
        let url = DatabaseUrl::sqlite(self.folder.path().join("keyferry.db"));
        let keys = Keys::fixed(Keyring::generate().expect("a keyring"));
        Store::open(&url, keys, &[]).await.expect("make the database").close().await;
    }

    /// Runs a line to its end; a service until it is ready, and then until it has drained.
    async fn run(&self, line: &str) -> Result<(), String> {
        let expected = line.rsplit_once("# exits with ").map_or(0, |(_, code)| code.parse().expect("a code"));
        let output = match words(line).as_slice() {
            [service] if service == "proxy" || service == "control" => self.service(line).await,
            [up] if up == "up" => return self.up(line).await,
            _ => self.command(line).await,
        };
        match said(&output) {
            (Some(code), _) if code == expected => Ok(()),
            (code, stderr) => {
                Err(format!("exit code {code:?} where {expected} was expected; it said:\n{stderr}"))
            }
        }
    }

    async fn command(&self, line: &str) -> Output {
        let ran = self.shell(line).output();
        within(line, ran).await.expect("run the line")
    }

    /// Leaves it running for the lines that follow.
    async fn up(&self, line: &str) -> Result<(), String> {
        let before = self.up.lock().expect("no holder of this lock panics").take();
        if let Some(mut before) = before {
            before.kill().await.expect("end the one before");
        }
        // What an earlier line started for itself answers for a while.
        let socket = self.bin.path().join("data/control.sock");
        within("the keyferry of the lines before to end", async {
            while tokio::net::UnixStream::connect(&socket).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let mut up = self.shell(line.trim_end_matches(['&', ' ']));
        let log = self.folder.path().join("log of keyferry up");
        let mut child =
            up.stderr(fs::File::create(&log).expect("a file for its words")).spawn().expect("start it");
        let ready = within("`keyferry up` to be ready", async {
            while child.try_wait().expect("ask for its state").is_none() {
                // The last that it makes.
                if self.command("keyferry principal show default").await.status.success() {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            false
        });
        match ready.await {
            true => {
                *self.up.lock().expect("no holder of this lock panics") = Some(child);
                Ok(())
            }
            false => Err(fs::read_to_string(log).expect("read its words")),
        }
    }

    async fn service(&self, line: &str) -> Output {
        let [listen, metrics] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port())));
        let health = if words(line) == ["control"] { listen } else { metrics };
        let stderr = self.folder.path().join("stderr of the service");
        // The document's own ports may be taken on this machine, and the variables win over the file.
        let mut child = self
            .shell(line.trim_end_matches('&'))
            .env("IRON_PROXY_TUNNEL_LISTEN", listen.to_string())
            .env("IRON_METRICS_LISTEN", metrics.to_string())
            .env("KEYFERRY_CONTROL_LISTEN", listen.to_string())
            .stderr(fs::File::create(&stderr).expect("a file for its words"))
            .spawn()
            .expect("start the service");
        let ended = within("the service to be ready", async {
            loop {
                if child.try_wait().expect("ask for its state").is_some() {
                    return true;
                }
                if is_ready(health).await {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        if !ended {
            TcpStream::connect(listen).await.expect("the listener that the document configures");
            let pid = child.id().expect("a service that runs");
            let kill =
                command("sh", self.folder.path()).arg("-c").arg(format!("kill -TERM {pid}")).status().await;
            assert!(kill.expect("run kill").success());
        }
        let status = within("the service's end", child.wait()).await.expect("wait for the proxy");
        Output { status, stdout: Vec::new(), stderr: fs::read(&stderr).expect("read its words") }
    }

    /// `env` reads the assignments before the command, and the shell becomes it: a signal reaches keyferry itself.
    fn shell(&self, line: &str) -> tokio::process::Command {
        let mut shell = command("sh", self.folder.path());
        let mut path = OsString::from(self.bin.path());
        path.push(":");
        path.push(parts::search_path());
        shell.arg("-c").arg(format!("exec env {line}")).env("PATH", path).stderr(Stdio::piped());
        // A folder of this document's own, and ports that are free.
        shell.env("KEYFERRY_DATA_DIR", self.bin.path().join("data"));
        if words(line) == ["up"] {
            shell
                .env("KEYFERRY_CONTROL_LISTEN", "127.0.0.1:0")
                .env("IRON_PROXY_TUNNEL_LISTEN", "127.0.0.1:0");
        }
        shell
    }
}

async fn is_ready(health: SocketAddr) -> bool {
    let answer = async {
        let mut stream = TcpStream::connect(health).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {health}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        http1::read_answer(&mut stream).await
    };
    answer.await.is_ok_and(|answer| answer.status == 200)
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The subcommands of a line: the plain words after `keyferry`.
fn words(line: &str) -> Vec<String> {
    let plain = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let after = line.split_whitespace().skip_while(|word| *word != "keyferry").skip(1);
    after.take_while(plain).map(str::to_owned).collect()
}

fn page(name: &str) -> Document {
    Document::read(&parts::workspace().join(name))
}
