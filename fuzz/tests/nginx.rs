//! The guard, hyper and a real nginx on the same bytes: what the guard lets through, all of them divide into the same requests (T23, T25).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use keyferry_fuzz::guard::{Read, read_by_hyper, read_strictly};
use keyferry_proxy::fuzzing::guard;
use serde_json::Value;
use tempfile::TempDir;

/// Random compositions beside the table.
const COMPOSED: usize = 1500;
const PATIENCE: Duration = Duration::from_secs(60);

/// Ways to say how long a body is, most of them wrong.
const FRAMINGS: &[&str] = &[
    "",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "content-length:\t5 \r\n",
    "Content-Length: 05\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 5,5\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length : 5\r\n",
    "Content-Length: 5\n",
    "Content-Length:\r\n 5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:CHUNKED\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "X: y\0\r\n",
    "Expect: 100-continue\r\nContent-Length: 5\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
];

/// What follows a head.
const BODIES: &[&str] = &[
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n",
    "005\r\nhello\r\n00\r\n\r\n",
    "2\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
    "5\r\nhello\r\n0\r\n folded: y\r\n\r\n",
    "5\nhello\n0\n\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\r\n-0\r\n\r\n",
    "5;\r\nhello\r\n0;\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffe\r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\n\n",
    "\r\n",
];

const LINES: &[&str] = &[
    "GET /a HTTP/1.1\r\n",
    "POST /b?c=%20d HTTP/1.1\r\n",
    "PUT /e HTTP/1.0\r\n",
    "POST http://a.example/f HTTP/1.1\r\n",
    "DELETE /g%2e%2e/h HTTP/1.1\r\n",
    "PATCH //i/./j HTTP/1.1\r\n",
    "POST  /k HTTP/1.1\r\n",
    "POST /l  HTTP/1.1\r\n",
    "POST /m HTTP/1.1\n",
    "\r\nPOST /n HTTP/1.1\r\n",
    "POST /o HTTP/1.10\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "QUERY /p|q HTTP/1.1\r\n",
];

const HOSTS: &[&str] =
    &["Host: a.example\r\n", "hOST:a.example\r\n", "Host: a.example\r\nConnection: close\r\n"];

#[test]
fn t23_the_guard_hyper_and_nginx_divide_the_same_bytes_into_the_same_requests() {
    let nginx = Nginx::start();
    let (mut compared, mut whole, mut refused) = (0, 0, 0);
    for bytes in corpus() {
        let guarded = guard([&bytes[..]], false);
        if guarded.passed.is_empty() {
            refused += 1;
            continue;
        }
        let (requests, _) = read_strictly(&guarded.passed);
        let shown = String::from_utf8_lossy(&guarded.passed).into_owned();
        assert_agrees("hyper", &read_by_hyper(&guarded.passed), &requests, &shown);
        let by_nginx = nginx.read(&guarded.passed);
        let answered: Vec<Read> =
            by_nginx.iter().take_while(|seen| seen.status == 200).map(Seen::to_read).collect();
        // nginx may refuse what the guard lets through, which ends its connection; it never reads another request into it.
        let refuses = answered.len() < by_nginx.len();
        assert!(by_nginx.len() <= answered.len() + 1, "{by_nginx:?} of {shown:?}");
        if refuses {
            assert_prefix("nginx", &answered, &requests, &shown);
        } else {
            assert_agrees("nginx", &answered, &requests, &shown);
            whole += 1;
        }
        compared += 1;
    }
    assert!(
        compared > 300 && whole > 200 && refused > 300,
        "{compared} compared, {whole} whole, {refused} refused"
    );
}

fn assert_agrees(who: &str, read: &[Read], requests: &[Read], bytes: &str) {
    assert_prefix(who, read, requests, bytes);
    // The connection ends with a request that closes it, or in the middle of a body.
    let expected = requests.iter().position(|request| request.closes || request.body.is_none());
    let expected = expected.map_or(requests.len(), |last| last + 1);
    let complete = requests[..expected].iter().filter(|request| request.body.is_some()).count();
    assert!(read.len() == expected || read.len() == complete, "{who} read {read:?} of {bytes:?}");
}

fn assert_prefix(who: &str, read: &[Read], requests: &[Read], bytes: &str) {
    assert!(read.len() <= requests.len(), "{who} read {read:?} of {bytes:?}");
    for (read, expected) in read.iter().zip(requests) {
        assert_eq!((&read.method, &read.body), (&expected.method, &expected.body), "{who} of {bytes:?}");
        let path = expected.target.strip_prefix("http://a.example").unwrap_or(&expected.target);
        assert!(read.target.ends_with(path), "{who} read {} of {bytes:?}", read.target);
    }
}

/// Every framing with every body, then compositions of up to three requests.
fn corpus() -> Vec<Vec<u8>> {
    let behind = "GET /behind HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let mut corpus = Vec::new();
    for framing in FRAMINGS {
        for body in BODIES {
            corpus.push(
                format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{framing}\r\n{body}{behind}").into_bytes(),
            );
        }
    }
    for line in LINES {
        corpus.push(format!("{line}Host: a.example\r\nContent-Length: 5\r\n\r\nhello{behind}").into_bytes());
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |end: usize| {
        // xorshift64 (Marsaglia).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % end
    };
    for _ in 0..COMPOSED {
        let mut bytes = String::new();
        for _ in 0..=below(3) {
            bytes += LINES[below(LINES.len())];
            bytes += HOSTS[below(HOSTS.len())];
            // What fits each other, half of the time: else almost nothing would be let through.
            let (framing, body) = match below(4) {
                0 => ("Content-Length: 5\r\n", "hello"),
                1 => ("Transfer-Encoding: chunked\r\n", BODIES[2 + below(6)]),
                _ => (FRAMINGS[below(FRAMINGS.len())], BODIES[below(BODIES.len())]),
            };
            bytes += framing;
            bytes += "\r\n";
            bytes += body;
        }
        corpus.push(bytes.into_bytes());
    }
    corpus
}

/// A request in nginx's log.
#[derive(Debug)]
struct Seen {
    method: String,
    target: String,
    body: String,
    status: u64,
}

impl Seen {
    fn to_read(&self) -> Read {
        let body = Some(self.body.clone().into_bytes());
        Read { method: self.method.clone(), target: self.target.clone(), body, closes: false }
    }
}

/// An nginx of its own, which reads each body whole and logs what it has seen.
struct Nginx {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Nginx {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|socket| socket.local_addr())
            .expect("a port")
            .port();
        let root = folder.path().display();
        let configuration = format!(
            r#"
            daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
            events {{ worker_connections 512; }}
            http {{
                log_format seen escape=json
                    '{{"port":$remote_port,"method":"$request_method","target":"$request_uri","body":"$request_body","status":$status}}';
                access_log off;
                client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
                uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
                client_body_buffer_size 1m;
                server {{
                    listen 127.0.0.1:{port};
                    access_log {root}/seen.log seen;
                    proxy_ignore_client_abort on;
                    location / {{ proxy_pass http://unix:{root}/behind.sock; proxy_http_version 1.1; }}
                }}
                server {{ listen unix:{root}/behind.sock; return 200 seen; }}
            }}"#
        );
        fs::write(folder.path().join("nginx.conf"), configuration).expect("write nginx's configuration");
        let process = Command::new(nginx())
            .args(["-p", &root.to_string(), "-c", "nginx.conf", "-e", &format!("{root}/error.log")])
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start nginx");
        let nginx = Self { process, folder, port };
        wait("nginx to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
        nginx
    }

    /// What it makes of a connection that sends `bytes` and no more.
    fn read(&self, bytes: &[u8]) -> Vec<Seen> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect to nginx");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
        let port = stream.local_addr().expect("a socket of ours").port();
        // It may refuse and close before all is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers);
        let log = self.folder.path().join("seen.log");
        let seen = || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let mut by_port = BTreeMap::<u64, Vec<Seen>>::new();
            for line in text.lines() {
                let Ok(seen) = serde_json::from_str::<Value>(line) else { continue };
                let text = |name: &str| seen[name].as_str().expect("a text").to_owned();
                by_port.entry(seen["port"].as_u64().expect("a number")).or_default().push(Seen {
                    method: text("method"),
                    target: text("target"),
                    body: text("body"),
                    status: seen["status"].as_u64().expect("a number"),
                });
            }
            by_port.remove(&u64::from(port)).unwrap_or_default()
        };
        // A request is logged when its answer has been written; each answer begins with the protocol's name.
        let answered = answers.windows(9).filter(|nine| nine == b"HTTP/1.1 ").count()
            - answers.windows(12).filter(|twelve| twelve == b"HTTP/1.1 100").count();
        let seen = wait("nginx's log", || Some(seen()).filter(|seen| seen.len() >= answered));
        fs::write(&log, "").expect("empty the log");
        seen
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn nginx() -> PathBuf {
    let path = std::env::var_os("PATH").expect("a PATH");
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join("nginx"))
        .find(|candidate| candidate.is_file())
        .expect("nginx is not installed; ./scripts/test-parts installs it")
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "still waiting for {what}");
        sleep(Duration::from_millis(2));
    }
}
